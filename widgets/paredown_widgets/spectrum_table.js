/** The spectra as a table that sorts by any column; a row is a layer, and a click selects it. */
import { attr, h, keyed, rich, text } from "./dom.js";

/** @param {import("./link.js").Context} ctx */
export function createSpectrumTable(ctx) {
  const head = h("tr");
  const body = h("tbody");
  const el = h("div", { class: "pd-spectable" }, h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Curvature of each layer, table" }, h("table", { class: "pd-tbl" }, h("thead", {}, head), body)));
  let order = { column: 0, down: false };
  let latest = null;

  /** Rows in the order of the chosen column; what has no value comes last, whichever way. */
  function sorted(rows) {
    const { column, down } = order;
    const value = (row) => row.cells[column].value;
    const missing = (row) => Number(value(row) === null || value(row) === undefined);
    return [...rows].sort((left, right) => missing(left) - missing(right) || (missing(left) ? 0 : (down ? -1 : 1) * (value(left) - value(right))));
  }

  function sortBy(column) {
    order = { column, down: order.column === column ? !order.down : column > 0 };
    draw();
  }

  function draw() {
    keyed(head, latest.columns, (column) => column.id,
      (column) => h("th", { scope: "col", title: column.title || null }, h("button", { type: "button", on: { click: () => sortBy(latest.columns.findIndex((one) => one.id === column.id)) } })),
      (node, column, i) => {
        rich(node.firstChild, column.label);
        attr(node, "aria-sort", order.column === i ? (order.down ? "descending" : "ascending") : "none");
      });
    keyed(body, sorted(latest.rows), (row) => row.layer ?? "",
      (row) => h("tr", { "data-layer": row.layer }, ...row.cells.map((_, i) => (i ? h("td", {}) : h("th", { scope: "row" }, row.layer ? h("button", { type: "button" }) : h("span"))))),
      (line, row) => row.cells.forEach((cell, i) => {
        const place = line.children[i];
        if (i) rich(place, cell.text); else text(place.firstChild, cell.text);
        attr(place, "title", cell.title || null);
        attr(place, "data-verdict", cell.verdict || null);
      }));
    light();
  }

  function light() {
    const chosen = new Set(ctx.link.selection);
    for (const line of body.children) {
      line.classList.toggle("sel", chosen.has(line.dataset.layer));
      line.classList.toggle("hover", Boolean(line.dataset.layer) && line.dataset.layer === ctx.link.hover);
    }
  }

  body.addEventListener("click", (event) => {
    const layer = event.target.closest("tr")?.dataset.layer;
    if (layer) ctx.link.select([layer], event.ctrlKey || event.metaKey ? "toggle" : event.shiftKey ? "extend" : "replace");
  });
  body.addEventListener("pointerover", (event) => { ctx.link.hover = event.target.closest("tr")?.dataset.layer ?? null; });
  body.addEventListener("pointerleave", () => { ctx.link.hover = null; });
  ctx.link.on("selection", light);
  ctx.link.on("hover", light);
  return { el, /** @param {{columns: any[], rows: any[]}} table */ update(table) { latest = table; draw(); } };
}
