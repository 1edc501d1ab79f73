/** A chart's data as a table, read off what plotly has drawn: its arrays are decoded there, and furniture is left out. */

const plain = (words) => String(words ?? "").replace(/<br>/g, ", ").replace(/<[^>]+>/g, "").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
const written = (value) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : plain(value));

/** Traces that are marks without data of their own. */
const FURNITURE = new Set(["band", "trail", "link", "begun", "best"]);

/**
 * @param {any} plot  what plotly has drawn into @param {any} figure  the figure as it came
 * @returns {{columns: string[], rows: string[][]}}
 */
export function chartTable(plot, figure) {
  const full = plot._fullLayout;
  const title = (axis, fallback) => plain(full?.[axis]?.title?.text) || fallback;
  const rows = [];
  let some = false; // whether any point has an error
  for (const trace of plot._fullData ?? []) {
    const source = figure.data[trace.index];
    if (trace.visible !== true || FURNITURE.has(source?.uid) || !source?.name) continue;
    if (trace.type === "heatmap") {
      const name = (axis, at) => plain(full[axis].ticktext?.[full[axis].tickvals?.indexOf(at)] ?? at);
      trace.z.forEach((line, row) => line.forEach((value, column) => { if (value !== null && Number.isFinite(value)) rows.push([plain(source.hovertext?.[row]?.[column]) || `${name("yaxis", row)}, ${name("xaxis", column)}`, "", "", written(value), ""]); }));
      continue;
    }
    const [xs, ys, errors] = [trace.x ?? [], trace.y ?? [], trace.error_y?.array ?? trace.error_x?.array ?? []];
    for (let k = 0; k < xs.length; k++) {
      if (xs[k] === null || ys[k] === null || ys[k] === undefined || Number.isNaN(ys[k])) continue;
      some ||= errors[k] !== undefined;
      const words = Array.isArray(trace.hovertext) ? trace.hovertext[k] : Array.isArray(trace.text) ? trace.text[k] : "";
      rows.push([plain(source.name), plain(words).split(", ")[0], written(xs[k]), written(ys[k]), errors[k] === undefined ? "" : written(errors[k])]);
    }
  }
  const columns = ["Series", "Point", title("xaxis", "x"), title("yaxis", "Value"), "Standard error"];
  const keep = columns.map((_, i) => (i === 4 ? some : i === 0 || rows.some((row) => row[i] !== "")));
  return { columns: columns.filter((_, i) => keep[i]), rows: rows.map((row) => row.filter((_, i) => keep[i])) };
}
