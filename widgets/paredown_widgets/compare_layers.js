/** Layer by layer: the bits of A, and what the other plans have beyond it, on a diverging ramp with its sign. */
import { attr, emptyNote, h, show } from "./dom.js";
import { letterBadge } from "./compare.js";

/** More blocks than this are laid out across, as in the plan. */
const ACROSS_ABOVE = 12;

/** @param {import("./link.js").Context} ctx */
export function createCompareLayers(ctx) {
  const sub = h("span", { class: "sub" });
  const ramp = h("i", { "aria-hidden": "true" }, ...[0, 1, 2, 3, 4, 5, 6].map((step) => h("s", { "data-diff": step })));
  const legend = h("div", { class: "pd-scale" }, "fewer", ramp, "more bits than A");
  const grids = h("div", { class: "grids" });
  const other = h("table", { class: "other" });
  const note = emptyNote();
  const el = h("section", { class: "pd-panel pd-layers", "aria-label": "Layer by layer" }, h("header", {}, h("h2", { text: "Layer by layer" }), sub, h("span", { class: "grow" }), legend), grids, other, note.el);
  const places = new Map(); // layer -> its cells

  function cell(layer, label, [words, step, badge, said], letter) {
    const first = letter === "A";
    const node = h("td", { "data-layer": layer, [first ? "data-step" : "data-diff"]: step, class: badge ? "more" : null, title: `${label}, ${letter}: ${said}` }, h("span", { text: words }), badge ? h("small", { text: badge }) : null);
    (places.get(layer) ?? places.set(layer, []).get(layer)).push(node);
    return node;
  }

  function gridOf(plan, own, cells, columns, rows, find, turned) {
    const name = (line, i) => (turned && i % 4 ? "" : turned ? String(line.label).match(/\d+$/)?.[0] ?? line.label : line.label);
    const number = (line) => String(line.label).match(/\d+$/)?.[0] ?? line.label;
    const twice = new Set(rows.map(number)).size < rows.length; // an encoder and a decoder: E0, D0
    const short = (line) => (turned ? line.label : twice ? `${String(line.label)[0]}${number(line)}` : number(line));
    const head = h("tr", {}, h("td"), ...columns.map((line, i) => h("th", { scope: "col", title: line.label }, h("span", { text: name(line, i) || "", "aria-hidden": name(line, i) ? null : "true" }), name(line, i) ? null : h("span", { class: "sr", text: line.label }))));
    const body = rows.map((row) => h("tr", {}, h("th", { scope: "row", title: row.label, text: short(row) }), ...columns.map((column) => {
      const spec = find(row, column);
      return spec && cells.has(spec.layer) ? cell(spec.layer, spec.label, cells.get(spec.layer), plan.letter) : h("td", { class: "gap" });
    })));
    const title = own ? "bits" : "minus A";
    return h("figure", {}, h("figcaption", {}, letterBadge(plan.letter), h("b", { text: title })), h("table", { "aria-label": `${plan.letter}, ${title}` }, h("thead", {}, head), h("tbody", {}, ...body)));
  }

  let drawn = "";
  return {
    el,
    needs: ["compare", "grid"],
    update() {
      const { plans = [], layers } = ctx.get("compare") ?? {};
      const grid = ctx.get("grid");
      const ready = Boolean(plans.length && layers?.names?.length && grid?.cells);
      note.update(ready ? "" : "The plans' bits appear here, layer by layer.");
      for (const part of [grids, other, legend]) show(part, ready);
      sub.textContent = !ready ? "" : plans.length > 1 ? "bits, and the difference to A" : "bits";
      show(legend, ready && plans.length > 1);
      if (!ready) return;
      const key = JSON.stringify([plans.map((plan) => plan.letter), layers, grid.blocks.length]);
      if (key === drawn) return;
      drawn = key;
      places.clear();
      const turned = grid.blocks.length > ACROSS_ABOVE;
      const [columns, rows] = turned ? [grid.blocks, grid.columns] : [grid.columns, grid.blocks];
      const at = new Map(grid.cells.map((one) => [`${one.block}\n${one.column}`, one]));
      const find = (row, column) => (turned ? at.get(`${column.id}\n${row.id}`) : at.get(`${row.id}\n${column.id}`));
      const cells = layers.plans.map((list) => new Map(list.map((one, i) => [layers.names[i], one])));
      attr(grids, "class", `grids${turned ? " across" : ""}`);
      grids.style.setProperty("--plans", String(plans.length));
      grids.replaceChildren(...plans.map((plan, i) => gridOf(plan, !i, cells[i], columns, rows, find, turned)));
      const others = (grid.other ?? []).filter((one) => !one.fixed);
      other.replaceChildren(h("thead", {}, h("tr", {}, h("td", { class: "sub", text: "Other layers" }), ...plans.map((plan) => h("th", { scope: "col" }, letterBadge(plan.letter))))),
        h("tbody", {}, ...others.map((one) => h("tr", {}, h("th", { scope: "row", text: one.label, title: one.title }), ...plans.map((plan, i) => (cells[i].has(one.layer) ? cell(one.layer, one.label, cells[i].get(one.layer), plan.letter) : h("td")))))));
      show(other, others.length);
    },
    /** Light the layer that is hovered anywhere. */
    light() {
      for (const [layer, nodes] of places) for (const node of nodes) node.classList.toggle("hover", layer === ctx.link.hover);
    },
  };
}
