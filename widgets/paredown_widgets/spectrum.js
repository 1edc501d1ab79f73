/** The spectrum: the eigenvalues of one or two selected layers, or of all of them, laid out as the plan. */
import { createChart } from "./chart.js";
import { attr, emptyNote, h, keyed, mark, rich, segments, show, text } from "./dom.js";

const SERIES = ["a", "b", "c"];
const SPECTRUM_MODES = [{ id: "selected", label: "Selected" }, { id: "all", label: "All layers" }];

/** @param {import("./link.js").Context & {plotly: () => Promise<any>}} ctx */
export function createSpectrum(ctx) {
  const sub = h("span", { class: "sub" });
  const mode = segments("Layers shown", (id) => ctx.emit({ type: "spectrum_mode", id }));
  const legend = h("div", { class: "pd-legend" });
  const chart = createChart({
    name: "spectrum", plotly: ctx.plotly, say: ctx.say,
    pick: ({ trace, data, ctrl }) => {
      const layer = data ?? trace.meta.layer;
      if (layer) ctx.link.select([layer], ctrl ? "toggle" : "replace");
    },
    hover: (layer) => { ctx.link.hover = layer; },
  });
  const note = emptyNote();
  const el = h("section", { class: "pd-panel pd-spec", "aria-label": "Spectrum" }, h("header", {}, h("h2", { text: "Spectrum" }), sub, h("span", { class: "grow" }), mode.el), legend, chart.el, note.el);
  return {
    el, chart,
    needs: ["spectrum"],
    update() {
      const state = ctx.get("spectrum") ?? {};
      const ready = Boolean(state.figure?.data?.length) && !state.empty;
      note.update(ready ? "" : state.empty || "The spectrum appears here once the curvature has been estimated.");
      show(chart.el, ready);
      show(legend, ready && state.legend?.length);
      text(sub, ready ? state.title : "");
      attr(sub, "title", state.title);
      mode.update(ready ? SPECTRUM_MODES : [], state.mode ?? "selected");
      keyed(legend, state.legend ?? [], (_, i) => `${i} ${state.mode}`, () => h("span", {}, h("b"), h("span")), (line, entry, i) => {
        const first = line.firstChild;
        if (state.mode === "selected" && SERIES[i] && first.tagName === "B") line.prepend(mark(SERIES[i]));
        const [label, words] = [...line.children].slice(-2);
        text(label, entry.label);
        show(label, entry.label);
        rich(words, entry.text);
      });
      return ready ? chart.update(state.figure, state.label) : undefined;
    },
    redraw: () => chart.redraw(),
    close: () => chart.close(),
  };
}
