/** Do the scores rank alike? A triangle of rank correlations, each printed on its colour; what it ranks is switched here. */
import { attr, emptyNote, h, segments, show, text } from "./dom.js";

/** @param {import("./link.js").Context} ctx */
export function createRankings(ctx) {
  const body = h("tbody");
  const head = h("tr");
  const table = h("table", { class: "pd-triangle" }, h("thead", {}, head), body);
  const words = h("p", { class: "sub note" });
  const note = emptyNote();
  const frame = h("div", { class: "fit", tabindex: 0, role: "region", "aria-label": "Rank agreement of the scores, table" }, table);
  const which = segments("What is ranked", (id) => { chosen = id; draw(); });
  const el = h("section", { class: "pd-panel pd-rankings", "aria-label": "Rankings" }, h("header", {}, h("h2", { text: "Rankings" }), h("span", { class: "grow" }), which.el), frame, words, note.el);
  let chosen = "";

  function draw() {
    const state = ctx.get("rankings") ?? {};
    const scores = state.scores ?? [];
    const tables = state.tables ?? [];
    const shown = tables.find((one) => one.id === chosen) ?? tables[0];
    note.update(shown ? "" : state.empty || "How alike the scores rank the layers appears here once all are priced.");
    for (const part of [frame, words]) show(part, shown);
    which.update(tables, shown?.id);
    if (!shown) return;
    text(words, shown.note);
    head.replaceChildren(h("td"), ...scores.slice(0, -1).map((score, i) => h("th", { scope: "col", title: score.label, "aria-label": score.label, text: String(i + 1) })));
    body.replaceChildren(...shown.rows.map((cells, i) => h("tr", {}, h("th", { scope: "row", title: scores[i].title }, h("i", { text: String(i + 1) }), scores[i].label),
      ...cells.map((cell) => h("td", { "data-step": cell.step, title: cell.title, text: cell.text })))));
    attr(table, "data-many", scores.length > 8);
    attr(table, "aria-label", `Spearman's rank correlation, ${shown.label}`);
  }

  return { el, needs: ["rankings"], update: draw };
}
