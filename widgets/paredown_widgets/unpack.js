/**
 * plotly.js from its compressed script, once per page whoever asks first.
 * @param {BufferSource} packed @returns {Promise<any>}
 */
export function unpackPlotly(packed) {
  const page = /** @type {any} */ (globalThis);
  page.paredownPlotly ??= evaluated(packed).catch((error) => { page.paredownPlotly = undefined; throw error; });
  return page.paredownPlotly;
}

/** The page gets no `Plotly` from us: who else looks for one there may need the kinds of chart that this bundle lacks. */
async function evaluated(packed) {
  const page = /** @type {any} */ (globalThis);
  const script = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  const before = page.Plotly;
  try { await import(address); } finally { URL.revokeObjectURL(address); }
  const plotly = page.Plotly;
  page.Plotly = before;
  return plotly;
}
