/** What pairs of layers lose together: a heat map, and the strongest pairs as a list; a click selects the layers of a pair. */
import { createChart } from "./chart.js";
import { createChartMenu } from "./chartmenu.js";
import { attr, emptyNote, h, keyed, rich, show, text } from "./dom.js";

/** @param {import("./link.js").Context & {plotly: () => Promise<any>}} ctx */
export function createInteractions(ctx) {
  const sub = h("span", { class: "sub" });
  const chart = createChart({ name: "interactions", plotly: ctx.plotly, say: ctx.say, pick: ({ point }) => { const groups = ctx.get("interactions")?.groups; if (groups) ctx.link.select([...new Set([...groups[point[0]], ...groups[point[1]]])], "replace"); } });
  const menu = createChartMenu(ctx, { name: "interactions", title: "Interactions", chart, table: chart.table, figure: () => "interactions" });
  const list = h("div", { class: "pd-pairs", role: "group", "aria-label": "Strongest pairs" });
  const words = h("p", { class: "sub note" });
  const note = emptyNote();
  const el = h("section", { class: "pd-panel pd-interactions", "aria-label": "Interactions" }, h("header", {}, h("h2", { text: "Interactions" }), sub, h("span", { class: "grow" }), menu.el), chart.el, list, words, note.el);
  let pairs = [];
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) ctx.link.select(pairs[[...list.children].indexOf(button)].layers, "replace");
  });
  return {
    el, chart,
    needs: ["interactions"],
    update() {
      const state = ctx.get("interactions") ?? {};
      const ready = Boolean(state.figure) && !state.empty;
      note.update(ready ? "" : state.empty || "What pairs of layers lose together appears here once it is measured.");
      for (const part of [chart.el, list, words, menu.el]) show(part, ready);
      text(sub, ready ? state.sub : "");
      text(words, state.note);
      pairs = ready ? state.pairs ?? [] : [];
      keyed(list, pairs, (_, i) => String(i), () => h("button", { type: "button" }, h("span", { class: "name" }), h("span", { class: "value" })), (node, pair) => {
        text(node.firstChild, pair.label);
        rich(node.lastChild, pair.value);
        attr(node, "title", `Select ${pair.label}`);
      });
      return ready ? chart.update(state.figure, state.label) : undefined;
    },
    redraw: () => chart.redraw(),
    close: () => { menu.close(); chart.close(); },
  };
}
