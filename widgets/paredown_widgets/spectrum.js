/** The spectrum: densities of the selected layers, ridges of all of them laid out as the plan, or a table; of the Hessian or another matrix. */
import { createChart } from "./chart.js";
import { createChartMenu } from "./chartmenu.js";
import { attr, button, emptyNote, h, keyed, mark, rich, segments, show, text } from "./dom.js";
import { createSpectrumTable } from "./spectrum_table.js";

const SERIES = ["a", "b", "c"];
const SPECTRUM_MODES = [{ id: "selected", label: "Selected" }, { id: "all", label: "All" }, { id: "table", label: "Table" }];

/**
 * @param {import("./link.js").Context & {plotly: () => Promise<any>}} ctx
 * @param {{trait?: string, name?: string}} place  the state that it shows, and the chart's name; a layer's page has one of its own
 */
export function createSpectrum(ctx, { trait = "spectrum", name = "spectrum" } = {}) {
  const sub = h("span", { class: "sub" });
  const matrix = segments("Matrix", (id) => ctx.emit({ type: "spectrum_matrix", id }));
  const mode = segments("Layers shown", (id) => ctx.emit({ type: "spectrum_mode", id }));
  const estimate = button("Estimate Hessian", { class: "small", press: () => { if (ctx.get(trait)?.estimate?.enabled) ctx.emit({ type: "estimate" }); } });
  const lines = h("div", { class: "lines" });
  const noteText = h("span");
  const remark = h("p", { class: "sub remark" }, noteText);
  const legend = h("div", { class: "pd-curves" }, lines, remark);
  const chart = createChart({
    name, plotly: ctx.plotly, say: ctx.say,
    pick: ({ trace, data, ctrl }) => {
      const layer = data ?? trace.meta.layer;
      if (layer) ctx.link.select([layer], ctrl ? "toggle" : "replace");
    },
    hover: (layer) => { ctx.link.hover = layer; },
  });
  const overview = trait === "spectrum";
  const menu = createChartMenu(ctx, { name, title: "Spectrum", chart, table: chart.table, figure: () => (overview && ctx.get(trait)?.mode === "all" ? "spectra" : "spectrum") });
  menu.el.classList.add("corner");
  chart.el.append(menu.el);
  const table = overview ? createSpectrumTable(ctx) : { el: h("div"), update() {} };
  const note = emptyNote();
  const el = h("section", { class: `pd-panel pd-${overview ? "spec" : name}`, "aria-label": "Spectrum" },
    h("header", {}, h("h2", { text: "Spectrum" }), matrix.el, sub, h("span", { class: "grow" }), estimate, mode.el), legend, chart.el, table.el, note.el);

  function drawLegend(state) {
    keyed(lines, state.legend ?? [], (_, i) => String(i), () => h("p", {}, h("b"), h("span", { class: "figures" }), h("span", { class: "trust" })), (line, entry, i) => {
      if (line.firstChild.tagName === "B" && SERIES[i]) line.prepend(mark(SERIES[i]));
      const [label, figures, trust] = [...line.children].slice(-3);
      text(label, entry.label);
      rich(figures, entry.text);
      attr(figures, "title", entry.text);
      text(trust, entry.trust);
      attr(trust, "data-verdict", entry.verdict || null);
      attr(trust, "title", entry.title || null);
      show(trust, entry.trust);
    });
    rich(noteText, state.note?.text);
    attr(remark, "data-verdict", state.note?.verdict || null);
    attr(remark, "title", [state.note?.text, state.note?.title].filter(Boolean).join("\n") || null);
    show(remark, state.note?.text);
  }

  return {
    el, chart,
    needs: [trait],
    update() {
      const state = ctx.get(trait) ?? {};
      const known = Boolean(state.matrices?.length);
      const listed = state.mode === "table" && Boolean(state.table);
      const ready = Boolean(state.figure?.data?.length) && !state.empty && !listed;
      note.update(ready || listed ? "" : state.empty || "The spectrum appears here once the curvature has been estimated.");
      show(chart.el, ready);
      show(table.el, listed);
      show(legend, (ready || state.legend?.length) && !listed && known);
      text(sub, known && state.matrices.length < 2 ? state.title : "");
      show(sub, sub.textContent);
      matrix.update(known ? state.matrices : [], state.matrix);
      mode.update(known && overview ? SPECTRUM_MODES : [], state.mode ?? "selected");
      text(estimate.lastChild, state.estimate?.label ?? "Estimate Hessian");
      attr(estimate, "aria-label", state.estimate?.label ?? "Estimate Hessian");
      attr(estimate, "title", state.estimate?.title);
      attr(estimate, "aria-disabled", state.estimate?.enabled ? null : "true");
      show(estimate, known);
      drawLegend(state);
      if (listed) table.update(state.table);
      return ready ? chart.update(state.figure, state.label) : undefined;
    },
    redraw: () => chart.redraw(),
    close: () => { menu.close(); chart.close(); },
  };
}
