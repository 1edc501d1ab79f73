/**
 * plotly.js from its compressed script, once per page whoever asks first. It is unpacked beside everything else as soon as it is here, and run
 * when a chart needs it: running takes the page's one thread, and the plan shall be on the screen before.
 */

/** @param {BufferSource} packed @returns {Promise<Blob>} */
export function unpackPlotly(packed) {
  const page = /** @type {any} */ (globalThis);
  page.paredownScript ??= script(packed).catch((error) => { page.paredownScript = undefined; throw error; });
  return page.paredownScript;
}

/** @param {BufferSource} packed @returns {Promise<any>} */
export function runPlotly(packed) {
  const page = /** @type {any} */ (globalThis);
  page.paredownPlotly ??= unpackPlotly(packed).then(evaluated).catch((error) => { page.paredownPlotly = undefined; throw error; });
  return page.paredownPlotly;
}

async function script(packed) {
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Blob([await new Response(unpacked).arrayBuffer()], { type: "text/javascript" });
}

/** The page gets no `Plotly` from us: who else looks for one there may need the kinds of chart that this bundle lacks. */
async function evaluated(blob) {
  const page = /** @type {any} */ (globalThis);
  const [address, before] = [URL.createObjectURL(blob), page.Plotly];
  try { await import(address); } finally { URL.revokeObjectURL(address); }
  const plotly = page.Plotly;
  page.Plotly = before;
  return plotly;
}
