/**
 * A chart: draws a plotly figure and reports which point a person picked.
 *
 * Picking does not use plotly's click events. Those need its hover state, which every redraw clears, so most clicks are lost while a
 * chart streams. Here a click is the nearest pickable point within reach of the pointer when it goes up, and nothing is redrawn
 * while it is down.
 */
import { createBrush } from "./brush.js";
import { chartTable } from "./charttable.js";
import { attr, h } from "./dom.js";
import { frame, paintTraces, tokensOf } from "./figure.js";
import { adoptPlotlyStyle } from "./host.js";

/** How near a click must be to its point, px. */
const REACH = 14;
/** A pointer that moved further than this between down and up was dragged, px. */
const STILL = 5;
/** On its way to its place a chart may be lower than its margins, px; plotly would put its texts at minus infinity. */
const SMALLEST = 70;
const PLOTLY_CONFIG = { displayModeBar: false, responsive: false, showTips: false };

/**
 * @typedef {object} Pick
 * @property {any} trace  the trace of the figure
 * @property {number} point
 * @property {any} data  customdata of the point; its first entry when that is a list
 * @property {boolean} shift
 * @property {boolean} ctrl
 */

/**
 * The place of the plot within its element and what its horizontal axis says there, for the brush; null before anything was drawn.
 * @param {any} full  plotly's layout
 */
function horizontal(full) {
  const [x, y] = [full?.xaxis, full?.yaxis];
  return x && y ? { left: x._offset, width: x._length, top: y._offset, height: y._length, value: (px) => x.p2d(px), px: (value) => x.d2p(value) } : null;
}

/**
 * The next cell of a heat map from here, and no further than its edges.
 * @param {any} target @param {any[]} all @param {[number, number]} by
 */
function nextCell(target, all, by) {
  const [row, column] = [target.point[0] + by[0], target.point[1] + by[1]];
  return all.find((one) => one.uid === target.uid && one.point[0] === row && one.point[1] === column) ?? target;
}

const samePoint = (left, right) => left.uid === right.uid && String(left.point) === String(right.point);

/**
 * @param {{plotly: () => Promise<any>, brush?: any, pick: (pick: Pick) => void, hover?: (layer: string|null) => void, say?: (sentence: string) => void, name: string}} options
 */
export function createChart(options) {
  const plot = h("div", { class: "pd-plot" });
  const ring = h("div", { class: "pd-pick", hidden: true });
  const el = h("div", { class: "pd-chart", tabindex: 0, role: "group", "aria-roledescription": "chart", "data-chart": options.name }, plot, ring);
  let Plotly = null;
  let figure = null;
  let size = [0, 0];
  let pressed = null; // where the pointer went down
  let drawing = null; // the promise of the drawing in progress
  let dirty = false;
  let cursor = null; // the point that the keyboard is on: {uid, point}
  let closed = false;

  /** Every point that can be picked, with its place on the screen relative to the chart, from left to right. */
  function targets() {
    const full = plot._fullLayout;
    if (!full || !plot.calcdata) return [];
    const found = [];
    plot._fullData.forEach((trace, index) => {
      const source = figure.data[trace.index ?? index];
      if (trace.visible !== true || !source?.meta?.clickable) return;
      const x = full[`xaxis${(trace.xaxis ?? "x").slice(1)}`];
      const y = full[`yaxis${(trace.yaxis ?? "y").slice(1)}`];
      if (trace.type === "heatmap") { // every cell, by row and column; the arrows move among them in both directions
        trace.z.forEach((line, row) => line.forEach((_, column) => found.push({ trace: source, uid: source.uid ?? String(index), point: [row, column], x: x._offset + x.c2p(column), y: y._offset + y.c2p(row), cell: true })));
        return;
      }
      plot.calcdata[index].forEach((item, point) => {
        const at = [x._offset + x.c2p(item.x), y._offset + y.c2p(item.y)];
        if (at.every(Number.isFinite)) found.push({ trace: source, uid: source.uid ?? String(index), point, x: at[0], y: at[1] });
      });
    });
    return found.some((one) => one.cell) ? found : found.sort((left, right) => left.x - right.x);
  }

  function nearest(event) {
    const box = plot.getBoundingClientRect();
    let best = null;
    for (const target of targets()) {
      const distance = Math.hypot(target.x + box.left - event.clientX, target.y + box.top - event.clientY);
      const reach = target.cell ? Infinity : REACH; // a cell is large: the nearest centre is the cell itself
      if (distance <= reach && (!best || distance < best.distance)) best = { ...target, distance };
    }
    return best;
  }

  function report(target, event) {
    const all = target.trace.customdata;
    const own = target.cell ? all?.[target.point[0]]?.[target.point[1]] : all?.[target.point];
    options.pick({ trace: target.trace, point: target.point, data: Array.isArray(own) && !target.cell ? own[0] : own, shift: event.shiftKey, ctrl: event.ctrlKey || event.metaKey });
  }

  /** Put the ring on the keyboard's point, wherever the last drawing left it. */
  function placeRing() {
    const at = cursor && document.activeElement && el.matches(":focus") ? targets().find((t) => samePoint(t, cursor)) : null;
    ring.hidden = !at;
    if (at) Object.assign(ring.style, { left: `${at.x}px`, top: `${at.y}px` });
  }

  async function paintNow() {
    const tokens = tokensOf(el);
    const [width, height] = size;
    await Plotly.react(plot, paintTraces(figure.data ?? [], tokens), frame(figure.layout ?? {}, tokens, width, height), PLOTLY_CONFIG);
    adoptPlotlyStyle(el);
    el.dataset.draws = String(Number(el.dataset.draws ?? 0) + 1);
    placeRing();
    brush?.place();
  }

  async function draw() {
    if (closed || !figure || Math.min(...size) < SMALLEST) return;
    if (pressed || drawing) { dirty = true; return; }
    dirty = false;
    drawing = (async () => { Plotly ??= await options.plotly(); if (!closed) await paintNow(); })();
    try { await drawing; } catch (error) { attr(el, "data-error", error.message); console.warn("paredown:", error.message); } finally { drawing = null; }
    if (dirty && !pressed) await draw();
  }

  const observer = new ResizeObserver(() => {
    const next = [el.clientWidth, el.clientHeight];
    if (Math.abs(next[0] - size[0]) < 1 && Math.abs(next[1] - size[1]) < 1) return;
    size = next;
    draw();
  });
  observer.observe(el);

  const brush = options.brush ? createBrush(el, { ...options.brush, say: options.say, axis: () => (options.brush.offered() ? horizontal(plot._fullLayout) : null) }) : null;
  let brushed = null; // the event that a drag over the chart began with

  el.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.target.closest(".pd-pop, .pd-brushbar")) return;
    pressed = [event.clientX, event.clientY];
    brushed = event;
    brush?.clear();
  }, true);
  const dragging = (event) => { if (brush && pressed && Math.abs(event.clientX - pressed[0]) >= STILL) brush.drag(brushed, event); };
  addEventListener("pointermove", dragging, true); // plotly covers the page while a pointer is down
  const release = (event) => {
    if (!pressed) return;
    const [x, y] = pressed;
    pressed = null;
    if (event.type === "pointerup" && Math.hypot(event.clientX - x, event.clientY - y) < STILL) {
      const hit = nearest(event);
      if (hit) { cursor = { uid: hit.uid, point: hit.point }; report(hit, event); }
    }
    else if (event.type === "pointerup") brush?.drop();
    if (dirty) setTimeout(draw, 60);
  };
  addEventListener("pointerup", release, true);
  addEventListener("pointercancel", release, true);
  el.addEventListener("pointermove", (event) => { if (!pressed) el.style.cursor = nearest(event) ? "pointer" : ""; });

  el.addEventListener("keydown", (event) => {
    const all = targets();
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const grid = all[0]?.cell ? { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key] : null;
    const at = cursor ? all.findIndex((t) => samePoint(t, cursor)) : -1;
    if (event.target === el && brush?.key(event, at >= 0 ? all[at].x - plot._fullLayout.xaxis._offset : null)) { event.preventDefault(); event.stopPropagation(); return; }
    if (event.target !== el) return;
    if ((by || grid) && all.length) {
      const next = grid ? (at < 0 ? all[0] : nextCell(all[at], all, /** @type {[number, number]} */ (grid))) : all[at < 0 ? (by > 0 ? 0 : all.length - 1) : (at + by + all.length) % all.length];
      cursor = { uid: next.uid, point: next.point };
      const index = figure.data.indexOf(next.trace);
      Plotly.Fx.hover(plot, [{ curveNumber: index, pointNumber: next.point }]);
      const words = [...plot.querySelectorAll(".hoverlayer text")].map((node) => [...node.children].map((line) => line.textContent).join(", ") || node.textContent);
      options.say?.(words.join(", "));
    } else if ((event.key === "Enter" || event.key === " ") && at >= 0) report(all[at], event);
    else return;
    placeRing();
    event.preventDefault();
    event.stopPropagation();
  });
  el.addEventListener("focus", placeRing);
  el.addEventListener("blur", placeRing);

  let wired = false;
  function wireHover() {
    if (wired || !plot.on || !options.hover) return;
    wired = true;
    plot.on("plotly_hover", (event) => options.hover(figure.data[event.points[0]?.curveNumber]?.meta?.layer ?? null));
    plot.on("plotly_unhover", () => options.hover(null));
  }

  return {
    el,
    /** The element that plotly draws into. */
    plot,
    /** @param {any} next a plotly figure {data, layout} @param {string} label one sentence for screen readers */
    async update(next, label) {
      attr(el, "aria-label", label);
      if (next) figure = next;
      await draw();
      wireHover();
    },
    /** Draw again, because the colours changed. */
    redraw: draw,
    /** The region that stands, in values of the horizontal axis. */
    region: (/** @type {[number, number]|null} */ region) => brush?.stand(region),
    /** The chart as a data address. @param {"png"|"svg"} format */
    async image(format) {
      if (drawing) await drawing;
      return Plotly.toImage(plot, { format, width: size[0], height: size[1], scale: format === "png" ? 3 : 1 });
    },
    /** Its data as a table: what was drawn, trace by trace. */
    table: () => chartTable(plot, figure),
    /** A PNG of what is on the screen, as base64. @returns {Promise<string>} */
    async png() {
      if (drawing) await drawing;
      if (!plot._fullLayout) throw new Error("nothing has been drawn yet");
      const address = await Plotly.toImage(plot, { format: "png", width: size[0], height: size[1], scale: 2 });
      return address.split(",")[1];
    },
    close() {
      closed = true;
      observer.disconnect();
      removeEventListener("pointermove", dragging, true);
      removeEventListener("pointerup", release, true);
      removeEventListener("pointercancel", release, true);
      if (Plotly) Plotly.purge(plot);
    },
  };
}
