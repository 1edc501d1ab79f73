/**
 * The explorer: one component for JupyterLab, Panel and a report. It composes the panels, draws what changed, and answers Python when
 * that is on the screen.
 *
 * State comes as traits, each one JSON object; Python sends what changed of them (host.js). Messages go back. What the browser knows by
 * itself is only what is being done right now: hover, a drag, the selection one step ahead (link.js), which view is open.
 */
import { createBanner } from "./banner.js";
import { createBudget } from "./budget.js";
import { attr, h, mark, show, text } from "./dom.js";
import { createCompare } from "./compare.js";
import { createCompareLayers } from "./compare_layers.js";
import { createFlips } from "./flips.js";
import { createFront } from "./front.js";
import { createHeader } from "./header.js";
import { createEmit, createState, loadPlotly, watchTheme } from "./host.js";
import { createHistory } from "./history.js";
import { createInteractions } from "./interactions.js";
import { createKeys } from "./keys.js";
import { createLayer } from "./layer.js";
import { createLink } from "./link.js";
import { createLog } from "./log.js";
import { createPlan } from "./plan.js";
import { createQueue } from "./queue.js";
import { createRankings } from "./rankings.js";
import { createRunline } from "./runline.js";
import { createSensitivity } from "./sensitivity.js";
import { snapshot } from "./snapshot.js";
import { createSpectrum } from "./spectrum.js";
import { createSummary } from "./summary.js";

/** A hidden page gets no animation frames; after this long it is drawn without one, ms. */
const FRAME_WITHIN = 250;

/** Run once, after the next frame has been painted or soon after. */
function afterFrame(work) {
  let done = false;
  const once = () => { if (!done) { done = true; clearTimeout(timer); work(); } };
  const timer = setTimeout(once, FRAME_WITHIN);
  requestAnimationFrame(() => setTimeout(once));
}

/** The line at the foot: how to read the marks, and the keys; what the last edit did takes the place of the keys. */
function createFoot(ctx) {
  const key = (name, what) => h("span", { class: "opt" }, h("kbd", { text: name }), what);
  const [sparsity, rank] = [key("S", "sparsity"), key("R", "rank")];
  const keys = h("span", { class: "keys" }, h("span", { class: "opt" }, h("kbd", { text: "2" }), "–", h("kbd", { text: "8" }), "bits"), sparsity, rank, key("L", "lock"), key("F", "fill"), key("M", "measure"), key("Ctrl Z", "undo"));
  const status = h("span", { class: "said", hidden: true });
  const rule = h("span");
  const el = h("div", { class: "pd-status" }, h("span", {}, mark("predicted"), "predicted: hollow, italic"), h("span", {}, mark("measured"), "measured: solid"), rule, h("span", { class: "grow" }), status, keys);
  return {
    el, needs: ["plan", "head", "handles"],
    update() {
      const said = ctx.get("plan")?.status;
      const choices = (id) => ctx.get("handles")?.handles?.find((one) => one.id === id)?.rungs.length ?? 0;
      if (said && said !== status.textContent) ctx.say(said);
      show(sparsity, choices("sparsity") > 1);
      show(rank, choices("rank") > 1);
      text(rule, ctx.get("head")?.rule || "± and bars: one standard error");
      text(status, said);
      attr(status, "title", said);
      show(status, said);
      show(keys, !said);
    },
  };
}

/** The tabs of the views; one tab stop, arrows move. */
function createTabs(views, opened) {
  const el = h("div", { class: "pd-tabs", role: "tablist", "aria-label": "Views" });
  const tabs = Object.entries(views).map(([id, view]) => h("button", { type: "button", role: "tab", "data-view": id, on: { click: () => open(id) } }, view.label));
  el.append(...tabs);
  function open(id) {
    for (const tab of tabs) { attr(tab, "aria-selected", tab.dataset.view === id ? "true" : "false"); attr(tab, "tabindex", tab.dataset.view === id ? 0 : -1); }
    for (const [name, view] of Object.entries(views)) show(view.el, name === id);
    opened(id);
  }
  el.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = tabs[(tabs.indexOf(event.target) + by + tabs.length) % tabs.length];
    next.focus();
    open(next.dataset.view);
    event.preventDefault();
    event.stopPropagation();
  });
  return { el, open };
}

/**
 * anywidget's entry point.
 * @param {{model: any, el: HTMLElement}} view
 * @returns {() => void} takes everything down again
 */
function render({ model, el }) {
  const emit = createEmit(model);
  const state = createState(model, emit);
  const { get } = state;
  const live = h("div", { class: "sr", "aria-live": "polite" });
  const ctx = { get, emit, link: createLink(get, emit), plotly: () => loadPlotly(model), say: (sentence) => text(live, sentence), cells: new Map() };

  const header = createHeader(ctx);
  const plan = createPlan(ctx);
  const summary = createSummary(ctx);
  const front = createFront(ctx);
  const spectrum = createSpectrum(ctx);
  const sensitivity = createSensitivity(ctx);
  const layer = createLayer(ctx);
  const budget = createBudget(ctx);
  const banner = createBanner(ctx);
  const compare = createCompare(ctx);
  const compareLayers = createCompareLayers(ctx);
  const flips = createFlips(ctx);
  ctx.link.on("hover", compareLayers.light);
  const history = createHistory(ctx);
  const queue = createQueue(ctx);
  const rankings = createRankings(ctx);
  const interactions = createInteractions(ctx);
  const log = createLog(ctx);
  const foot = createFoot(ctx);
  const views = {
    overview: { label: "Overview", el: h("div", { class: "pd-view pd-overview", role: "tabpanel", "aria-label": "Overview" }, plan.el, summary.el, front.el, sensitivity.el, spectrum.el) },
    layer: { label: "Layer", el: layer.el },
    compare: { label: "Compare", el: h("div", { class: "pd-view pd-compare", role: "tabpanel", "aria-label": "Compare" }, compare.el, compareLayers.el, flips.el) },
    search: { label: "Search", el: h("div", { class: "pd-view pd-search", role: "tabpanel", "aria-label": "Search" }, history.el, queue.el, rankings.el, interactions.el) },
    log: { label: "Log", el: h("div", { class: "pd-view pd-log", role: "tabpanel", "aria-label": "Log" }, log.el) },
  };
  // A layer's page is opened from wherever the layer stands: twice clicked, or Enter on its cell.
  let wanted;
  ctx.open = (name) => { if (!ctx.link.selection.includes(name)) ctx.link.select([name]); wanted = name; tabs.open("layer"); wanted = undefined; layer.focus(); };
  const tabs = createTabs(views, (id) => { if (id === "log") log.opened(); if (id === "layer") layer.opened(wanted); if (id === "search" || id === "compare") emit({ type: "opened", id }); });
  for (const view of [views.overview, views.search]) {
    view.el.addEventListener("dblclick", (event) => { const name = event.target.closest("[data-layer]")?.dataset.layer; if (name) ctx.open(name); });
  }
  const runline = createRunline(ctx, { openLog: () => tabs.open("log") });
  const root = h("div", { class: "pd", role: "region", "aria-label": "Paredown Explorer" }, header.el, h("div", { class: "pd-bar" }, tabs.el, runline.el), banner.el, budget.el,
    ...Object.values(views).map((view) => view.el), foot.el, live);
  const host = h("div", { class: "pd-host" }, root);
  el.append(host);
  tabs.open("overview");

  const charts = [sensitivity, front, spectrum, layer, layer.spectrum, interactions];
  const panels = [header, runline, banner, budget, plan, summary, compare, compareLayers, flips, history, queue, rankings, log, foot, ...charts];
  const unwatch = watchTheme(state, host, (theme) => { emit({ type: "theme", theme }); front.redraw(); spectrum.redraw(); layer.redraw(); layer.spectrum.redraw(); interactions.redraw(); });
  const unkey = createKeys(ctx, { root, plan, summary });

  // Words and numbers are written as soon as a push is complete, so that the next frame shows them; charts take longer and follow it, unless
  // there are no words to wait for.
  let pending = new Set(panels);
  let written = false;
  let drawing = false;
  let answered = null;
  let closed = false;
  function schedule() {
    if (!written && !closed) queueMicrotask(write);
    written = true;
  }
  function write() {
    written = false;
    if (closed) return;
    const now = [...pending].filter((panel) => !charts.includes(panel));
    for (const panel of now) { pending.delete(panel); panel.update(); }
    if (!drawing) { if (now.length) afterFrame(draw); else queueMicrotask(draw); }
    drawing = true;
  }
  async function draw() {
    drawing = false;
    if (closed) return;
    const seq = get("seq");
    const now = charts.filter((chart) => pending.delete(chart));
    await Promise.all(now.map((chart) => chart.update()));
    if (closed) return;
    if (seq !== answered && seq !== undefined) { answered = seq; emit({ type: "ack", seq }); }
    await picture();
  }

  // The number of the last push that was photographed; Python raises want_png to ask for the next.
  let pictured = 0;
  async function picture() {
    const wanted = get("want_png") ?? 0;
    if (wanted <= pictured || (get("seq") ?? wanted) < wanted) return;
    pictured = wanted;
    const takes = { front: () => front.chart.png(), spectrum: () => spectrum.chart.png(), explorer: () => snapshot(host) };
    for (const [name, take] of Object.entries(takes)) {
      try { emit({ type: "png", name, data: await take(), seq: wanted }); } catch (error) { emit({ type: "png", name, data: "", text: error.message, seq: wanted }); }
    }
  }

  const traits = new Set(panels.flatMap((panel) => panel.needs));
  for (const trait of traits) state.on(trait, () => { for (const panel of panels) if (panel.needs.includes(trait)) pending.add(panel); schedule(); });
  for (const trait of ["seq", "want_png"]) state.on(trait, schedule);
  schedule();

  return () => {
    closed = true;
    for (const undo of [state.close, unwatch, unkey, () => plan.close(), () => header.close(), () => summary.close(), () => sensitivity.close(), () => budget.close(), () => front.close(), () => flips.close(), () => spectrum.close(), () => layer.close(), () => layer.spectrum.close(), () => interactions.close()]) undo();
    host.remove();
  };
}

export default { render };
