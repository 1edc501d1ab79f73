/**
 * The grid of the plan: blocks down and roles across; turned when there are more than twelve blocks, so that a deep model keeps to the
 * same panel. It is rebuilt only when the layers change.
 */
import { attr, h } from "./dom.js";
import { createCell } from "./cell.js";

/** More blocks than this are laid out across. */
const TURN_ABOVE = 12;
/** More blocks than this lose their digits, and the grid scrolls sideways. */
const SCROLL_ABOVE = 48;

/**
 * @param {any} grid  the trait `grid`
 * @param {() => string} quantity  what the cells are coloured by, for those who can't see it
 * @returns {{el: HTMLElement, cells: Map<string, any>, lines: string[][], turned: boolean, order: string[][]}}
 *   `order` is the matrix of layers as it is drawn (empty string: a gap), for arrows and rectangles
 */
export function buildGrid(grid, quantity) {
  const turned = grid.blocks.length > TURN_ABOVE;
  const place = new Map(grid.cells.map((cell) => [`${cell.block}\n${cell.column}`, cell]));
  const find = (block, column) => place.get(`${block.id}\n${column.id}`);
  const rows = turned ? grid.columns : grid.blocks;
  const columns = turned ? grid.blocks : grid.columns;
  const at = (row, column) => (turned ? find(column, row) : find(row, column));
  const cells = new Map();
  const el = h("div", { class: turned ? "pd-grid compact" : "pd-grid", role: "grid", "aria-label": "Bits by block and role", "aria-multiselectable": "true",
    "aria-rowcount": rows.length + 1, "aria-colcount": columns.length + 1 });
  el.style.setProperty("--cols", String(columns.length));
  el.style.setProperty("--rows", String(rows.length));
  if (columns.length > SCROLL_ABOVE) el.classList.add("bare");

  const heads = columns.map((column, i) => {
    const inside = columns.length <= TURN_ABOVE;
    const name = inside ? column.label : i % 4 ? "" : String(column.label).match(/\d+$/)?.[0] ?? column.label;
    const head = h("button", { type: "button", class: "col", tabindex: -1, "data-line": turned ? "block" : "column", "data-id": column.id, "aria-label": `Select ${column.label}`, title: inside ? null : column.label }, name);
    return h("span", { role: "columnheader" }, head);
  });
  el.append(h("div", { role: "row" }, h("span", { role: "columnheader" }, h("span", { class: "corner" })), ...heads));

  const order = rows.map((row) => {
    const head = h("button", { type: "button", class: "row", tabindex: -1, "data-line": turned ? "column" : "block", "data-id": row.id, "aria-label": `Select ${row.label}` }, row.label);
    const line = h("div", { role: "row" }, h("span", { role: "rowheader" }, head));
    el.append(line);
    return columns.map((column) => {
      const spec = at(row, column);
      if (!spec) { line.append(h("span", { role: "gridcell", class: "gap", "aria-disabled": "true" })); return ""; }
      const cell = createCell(spec, { quantity });
      cells.set(spec.layer, { ...spec, view: cell });
      line.append(cell.el);
      return spec.layer;
    });
  });
  return { el, cells, turned, order, lines: order };
}

/** The row under the grid: embeddings and whatever has no place in a block; what is kept as it is comes hatched. */
export function buildOther(grid, quantity) {
  const cells = new Map();
  const el = h("div", { class: "pd-extra", role: "group", "aria-label": "Other layers" }, h("span", { class: "name", text: "Other" }));
  for (const spec of grid.other ?? []) {
    if (spec.fixed) { el.append(h("span", { class: "pd-cell fixed", title: spec.title }, h("span", { class: "fit", text: spec.label }))); continue; }
    const cell = createCell({ layer: spec.layer, label: spec.label }, { prefix: spec.label, role: "button", quantity });
    cells.set(spec.layer, { ...spec, block: null, column: null, view: cell });
    el.append(cell.el);
  }
  attr(el, "hidden", !(grid.other ?? []).length);
  return { el, cells };
}

/** Every layer in the rectangle between two layers; both must be in the grid. @param {string[][]} order */
export function rectangle(order, from, to) {
  const where = (layer) => { const row = order.findIndex((line) => line.includes(layer)); return row < 0 ? null : [row, order[row].indexOf(layer)]; };
  const [a, b] = [where(from), where(to)];
  if (!a || !b) return [to];
  const [top, bottom] = [Math.min(a[0], b[0]), Math.max(a[0], b[0])];
  const [left, right] = [Math.min(a[1], b[1]), Math.max(a[1], b[1])];
  return order.slice(top, bottom + 1).flatMap((line) => line.slice(left, right + 1)).filter(Boolean);
}

/** The next layer from here in a direction, over gaps; the same layer at an edge. @param {string[][]} order @param {[number, number]} by */
export function neighbour(order, layer, by) {
  let row = order.findIndex((line) => line.includes(layer));
  if (row < 0) return layer;
  let column = order[row].indexOf(layer);
  for (;;) {
    row += by[0];
    column += by[1];
    const found = order[row]?.[column];
    if (found === undefined) return layer;
    if (found) return found;
  }
}
