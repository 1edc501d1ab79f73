/** The history of the search, newest first: which switch won what. A click on a row loads its plan. */
import { attr, emptyNote, h, keyed, mark, rich, show, text } from "./dom.js";

/** Heads of the columns, with what they mean; `null` stands for no mark. */
const HISTORY_COLUMNS = [
  ["Budget", "mean bits per weight that the plan had to keep to, and its size", null],
  ["What was changed", "what differs from the best plan at this budget until then", null],
  ["From", "how the search came to try it", null],
  ["Tried", "plans tried by then", null],
  ["Before", "mean loss of the best plan until then, on the search split", null],
  ["After", "mean loss of this plan, on the search split", null],
  ["Difference", "after less before, sample by sample, with its standard error", null],
  ["Predicted", "what was predicted of this plan", "predicted"],
  ["Held-out", "what was measured of this plan on the held-out split: the result", "measured"],
];

/** @param {import("./link.js").Context} ctx */
export function createHistory(ctx) {
  const count = h("span", { class: "sub" });
  const head = h("tr", {}, ...HISTORY_COLUMNS.map(([label, title, sign]) => h("th", { scope: "col", title }, sign ? mark(sign) : null, label)));
  const body = h("tbody");
  const scroll = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "History of the search, table" }, h("table", { class: "pd-tbl" }, h("thead", {}, head), body));
  const frame = h("div", { class: "pd-scrolled" }, scroll);
  const words = h("p", { class: "sub note" });
  const note = emptyNote();
  const el = h("section", { class: "pd-panel pd-history", "aria-label": "History of the search" }, h("header", {}, h("h2", { text: "History" }), count), frame, words, note.el);

  body.addEventListener("click", (event) => {
    const digest = event.target.closest("tr")?.dataset.digest;
    if (digest) ctx.emit({ type: "load_plan", digest, shift: event.shiftKey });
  });
  body.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const buttons = [...body.querySelectorAll("button")];
    const next = by && buttons[buttons.indexOf(event.target) + by];
    if (!next) return;
    next.focus();
    event.preventDefault();
    event.stopPropagation();
  });

  return {
    el,
    needs: ["history"],
    update() {
      const state = ctx.get("history") ?? {};
      const rows = state.rows ?? [];
      note.update(rows.length ? "" : state.empty || "The search shows here which switch won what.");
      show(frame, rows.length);
      show(words, rows.length);
      text(words, state.note);
      text(count, state.count);
      keyed(body, rows, (row) => row.digest,
        (row) => h("tr", { "data-digest": row.digest }, h("th", { scope: "row" }, h("b"), h("span", { class: "sub" })), h("td", { class: "what" }, h("button", { type: "button" })),
          h("td", { class: "from" }), h("td"), h("td"), h("td"), h("td", { class: "won" }), h("td", { class: "pred" }), h("td", { class: "meas" })),
        (line, row) => {
          const [budget, what, from, tried, before, after, gain, predicted, measured] = line.children;
          text(budget.firstChild, row.budget);
          text(budget.lastChild, row.size);
          text(what.firstChild, row.what);
          attr(what.firstChild, "title", row.title || null);
          attr(what.firstChild, "aria-label", `Load the plan at ${row.budget}: ${row.title || row.what}`);
          text(from, row.origin);
          attr(from, "title", row.origin_title);
          text(tried, row.tried);
          rich(before, row.before);
          rich(after, row.after);
          rich(gain, row.gain);
          rich(predicted, row.predicted);
          rich(measured, row.measured);
          line.classList.toggle("standing", Boolean(row.standing));
          attr(line, "aria-current", row.loaded ? "true" : null);
        });
    },
  };
}
