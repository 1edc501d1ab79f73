/** This plan in numbers: original, predicted (hollow, italic) and measured (solid) in the same rows and units; Measure, Fill the rest. */
import { attr, button, emptyNote, h, keyed, mark, rich, show, text } from "./dom.js";
import { createPlansMenu, createStepsMenu } from "./plans.js";

/** @param {import("./link.js").Context} ctx */
export function createSummary(ctx) {
  const chip = h("span", { class: "chip", hidden: true });
  const names = [h("span"), h("span"), h("span")];
  const head = h("tr", {}, h("th", {}, h("span", { class: "sr", text: "Quantity" })), h("th", { scope: "col" }, names[0]), h("th", { scope: "col" }, mark("predicted"), names[1]), h("th", { scope: "col" }, mark("measured"), names[2]));
  const body = h("tbody");
  const note = h("p", { class: "sub note" });
  const measure = button("Measure", { class: "primary", title: "Measure this plan on the held-out data (M)", press: () => ctx.emit({ type: "measure" }) });
  const fill = button("Fill the rest", { title: "Choose the best schemes for what is not locked, within the budget (F)", press: () => ctx.emit({ type: "fill" }) });
  const fillText = h("span", { class: "sub" });
  const content = h("div", { class: "content" }, h("table", { class: "pd-tbl" }, h("thead", {}, head), body), note);
  const foot = h("div", { class: "pd-foot" }, measure, fill, fillText);
  const empty = emptyNote();
  const plans = createPlansMenu(ctx);
  const steps = createStepsMenu(ctx);
  const el = h("section", { class: "pd-panel pd-card", "aria-label": "This plan" }, h("header", {}, h("h2", { text: "This plan" }), chip, h("span", { class: "grow" }), plans.el, steps.el), content, empty.el, foot);

  return {
    el,
    needs: ["summary", "presets", "steps"],
    close() { plans.close(); steps.close(); },
    update() {
      plans.update();
      steps.update();
      const state = ctx.get("summary") ?? {};
      const rows = state.rows ?? [];
      empty.update(rows.length ? "" : "The plan's size and what it costs appear here once the layers have been analysed.");
      show(content, rows.length);
      text(chip, state.chip?.text);
      attr(chip, "class", `chip ${state.chip?.kind ?? ""}`);
      show(chip, state.chip?.text);
      names.forEach((name, i) => text(name, state.columns?.[i]));
      keyed(body, rows, (row) => row.label,
        (row) => h("tr", {}, h("th", { scope: "row", text: row.label, title: row.label }), h("td", { class: "sub" }), h("td", { class: "pred" }), h("td", {}, h("span"))),
        (line, row) => {
          const [, original, predicted, measured] = line.children;
          rich(original, row.original || "–");
          rich(predicted, row.predicted || "–");
          rich(measured.firstChild, row.measured || "–");
          measured.firstChild.className = !row.measured || row.measured === "–" ? "sub" : state.stale ? "stale" : "meas";
        });
      rich(note, state.note);
      show(note, state.note);
      attr(measure, "disabled", !state.measure?.enabled);
      text(measure.lastChild, state.measure?.label || "Measure");
      attr(fill, "disabled", !state.fill?.enabled);
      text(fillText, state.fill?.text);
    },
    /** The commands behind the keys M and F. */
    measure() { if (!measure.disabled) measure.click(); },
    fill() { if (!fill.disabled) fill.click(); },
  };
}
