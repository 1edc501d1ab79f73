/** The Pareto front: the trade of size or latency against what is lost. The largest chart of the explorer. */
import { createChart } from "./chart.js";
import { createChartMenu } from "./chartmenu.js";
import { letterBadge } from "./compare.js";
import { emptyNote, h, keyed, mark, segments, show, star, text } from "./dom.js";
import { createRegionChip } from "./queue.js";

/** The ground with the user's plan on it: they come apart, since an edit changes the second alone. */
function withPlan(figure, own) {
  if (!own?.data) return figure;
  return { data: [...figure.data, ...own.data], layout: { ...figure.layout, shapes: own.shapes, annotations: own.annotations } };
}

/** @param {import("./link.js").Context & {plotly: () => Promise<any>}} ctx */
export function createFront(ctx) {
  const count = h("span", { class: "sub" });
  const x = segments("Horizontal axis", (id) => ctx.emit({ type: "x", id }));
  const y = segments("Vertical axis", (id) => ctx.emit({ type: "y", id }));
  const refined = h("span", { hidden: true }, mark("refined"), "refined");
  const letters = h("span", { class: "letters" });
  const compared = h("span", { hidden: true }, letters, "compared");
  const legend = h("div", { class: "pd-legend" }, h("span", {}, mark("front"), "predicted"), h("span", {}, mark("measured"), "measured, front"), h("span", {}, mark("uniform"), "uniform"), refined,
    h("span", { class: "own" }, star(true), star(false), h("span", { text: "this plan" })), compared);
  const chart = createChart({
    name: "front", plotly: ctx.plotly, say: ctx.say,
    brush: {
      offered: () => (ctx.get("front")?.x ?? "bytes") === "bytes" && !ctx.get("offline"), // sizes go first, whatever they take
      verb: "Measure {} first",
      words: (low, high) => `${low.toPrecision(3)} to ${high.toPrecision(3)}\u00a0MB`,
      done: (low, high) => ctx.emit({ type: "prioritise", low: Math.round(low * 1e6), high: Math.round(high * 1e6) }),
    },
    pick: ({ data, shift }) => { if (data) ctx.emit({ type: "load_plan", digest: data, shift }); },
  });
  const region = createRegionChip(ctx);
  legend.append(h("span", { class: "grow" }), region.el);
  const names = { kl: "front", metric: "accuracy", loss: "loss" };
  const menu = createChartMenu(ctx, { name: "front", title: "Pareto front", chart, table: chart.table, figure: () => { const { x: across, y: up } = ctx.get("front") ?? {}; return across === "seconds" ? "latency" : names[up] ?? "front"; } });
  const note = emptyNote();
  const el = h("section", { class: "pd-panel pd-pareto", "aria-label": "Pareto front" }, h("header", {}, h("h2", { text: "Pareto front" }), count, h("span", { class: "grow" }), x.el, y.el, menu.el), legend, chart.el, note.el);
  return {
    el, chart,
    needs: ["front", "front_plan", "queue"],
    update() {
      const state = ctx.get("front") ?? {};
      const own = ctx.get("front_plan");
      const ready = Boolean(state.figure?.data?.length) && !state.empty;
      note.update(ready ? "" : state.empty || "The front appears here, plan by plan, while the study runs.");
      show(chart.el, ready);
      show(legend, ready);
      show(menu.el, ready);
      region.update();
      const wanted = (state.x ?? "bytes") === "bytes" ? ctx.get("queue")?.priority : null;
      chart.region(wanted ? [wanted.low / 1e6, wanted.high / 1e6] : null);
      text(count, ready ? state.count : "");
      show(refined, state.refined);
      keyed(letters, [...(own?.compared ?? "")], (letter) => letter, letterBadge, () => {});
      show(compared, own?.compared);
      x.update(ready ? state.x_options ?? [] : [], state.x);
      y.update(ready ? state.y_options ?? [] : [], state.y);
      return ready ? chart.update(withPlan(state.figure, own), own?.label ?? state.label) : undefined;
    },
    redraw: () => chart.redraw(),
    close: () => { menu.close(); chart.close(); },
  };
}
