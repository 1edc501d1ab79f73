/** The sensitivity of every layer: a bar with its interval at the plan's bits, by block or largest first; the numbers stand beside. */
import { createChartMenu } from "./chartmenu.js";
import { attr, emptyNote, h, keyed, segments, show, text } from "./dom.js";

const SENSITIVITY_ORDERS = [{ id: "model", label: "Model order" }, { id: "largest", label: "Largest" }];
/** Above this many rows, blocks are closed in model order and only the largest are listed in the other. */
const MANY = 100;
const LARGEST_SHOWN = 40;

/** @param {import("./link.js").Context} ctx */
export function createSensitivity(ctx) {
  const { link } = ctx;
  const order = segments("Order", (id) => ctx.emit({ type: "order", id }));
  const kind = h("select", { class: "field flat", "aria-label": "What the bars show", on: { change: () => ctx.emit({ type: "sensitivity", id: kind.value }) } });
  const unit = h("span");
  const what = h("p", { class: "sub what" }, kind, unit);
  const ticks = h("div", { class: "t" });
  const axis = h("div", { class: "pd-saxis", "aria-hidden": "true" }, ticks, h("em", { text: "bits" }), h("em"));
  const groups = h("div", { class: "groups" });
  const scroll = h("div", { class: "scroll" }, groups);
  const note = emptyNote();
  const rowsOf = () => ctx.get("sensitivity")?.rows ?? [];
  const menu = createChartMenu(ctx, {
    name: "sensitivity", title: "Sensitivity", figure: () => "sensitivity",
    table: () => ({ columns: ["Layer", "Bits", "Sparsity, rank", `${ctx.get("sensitivity").what}, ${ctx.get("sensitivity").unit}`, "One standard error below", "above"],
      rows: rowsOf().map((row) => [ctx.cells?.get(row.layer)?.label ?? row.label, row.bits, row.marks ?? "", row.text, ...[row.low, row.high].map((end) => String(Number((end * displayFactor(rowsOf())).toPrecision(3))))]) }),
  });
  const el = h("section", { class: "pd-panel pd-sens", "aria-label": "Sensitivity" }, h("header", {}, h("h2", { text: "Sensitivity" }), h("span", { class: "grow" }), order.el, menu.el), what, axis, scroll, note.el);
  const opened = new Set();
  let bars = new Map();
  let active = null;

  function createRow(row) {
    const track = h("span", { class: "t" }, h("i"), h("u"));
    return h("button", { type: "button", class: "pd-srow", tabindex: -1, "data-layer": row.layer ?? null, "data-opens": row.opens ?? null }, h("span", { class: "l" }), track, h("span", { class: "b" }), h("span", { class: "v" }));
  }

  function updateRow(node, row, scale) {
    const [label, track, bits, value] = node.children;
    const [bar, interval] = track.children;
    const cut = row.high > scale.max * 1.0001;
    const under = row.low < scale.min * 1.0001;
    const part = (number) => Math.round(1e4 * Math.min(1, Math.max(0, (number - scale.min) / (scale.max - scale.min)))) / 100;
    const stretch = (node, from, to) => { node.style.left = `${part(from)}%`; node.style.width = `${Math.max(0, part(to) - part(from))}%`; };
    text(label, row.label);
    text(bits, [row.bits, row.marks].filter(Boolean).join(" "));
    text(value, row.text);
    track.classList.toggle("cut", cut);
    track.classList.toggle("under", under);
    track.classList.toggle("signed", scale.min < 0);
    for (const [name, value] of Object.entries(scale.grid)) track.style.setProperty(name, value);
    stretch(bar, Math.min(0, row.value), Math.max(0, row.value));
    stretch(interval, row.low, row.high);
    show(interval, !cut && !under && row.high > row.low);
    attr(node, "aria-label", `${row.full ?? row.label}: ${row.text} ${scale.unit}, ${row.bits} bit${row.marks ? `, ${row.marks}` : ""}`);
    attr(node, "aria-expanded", row.opens === undefined ? null : opened.has(row.opens) ? "true" : "false");
    if (row.layer) bars.set(row.layer, node);
  }

  /** The rows in groups: [{id, name, rows}]. */
  function arrange(state) {
    const names = new Map((ctx.get("grid")?.blocks ?? []).map((block) => [String(block.id), block.label]));
    const rows = state.rows.map((row) => ({ ...row, full: ctx.cells?.get(row.layer)?.label ?? row.label }));
    if (state.order === "largest") {
      if (rows.length <= MANY) return [{ id: "all", name: "", rows }];
      const rest = rows.slice(LARGEST_SHOWN);
      return [{ id: "largest", name: "", rows: [...rows.slice(0, LARGEST_SHOWN), sumRow(`${rest.length} smaller`, rest)] }];
    }
    const byBlock = new Map();
    for (const row of rows) {
      const id = String(row.block ?? "");
      if (!byBlock.has(id)) byBlock.set(id, { id, name: names.get(id) ?? "", rows: [] });
      byBlock.get(id).rows.push(row);
    }
    const out = [...byBlock.values()].sort((left, right) => Number(!left.id) - Number(!right.id)); // what is in no block comes last, as in the plan
    if (rows.length <= MANY) return out;
    const folded = out.flatMap((group) => {
      if (!group.id) return [group];
      const head = { ...sumRow(group.name, group.rows), opens: group.id };
      return [{ id: `fold ${group.id}`, name: "", folded: true, rows: opened.has(group.id) ? [head, ...group.rows.map((row) => ({ ...row, label: `    ${row.label}` }))] : [head] }];
    });
    return folded;
  }

  /** One row for several layers: values add, variances add (the errors of layers are taken as independent). */
  function sumRow(label, rows) {
    const value = rows.reduce((sum, row) => sum + row.value, 0);
    const deviation = Math.sqrt(rows.reduce((sum, row) => sum + ((row.high - row.low) / 2) ** 2, 0));
    const decimals = (String(rows[0]?.text ?? "").split(".")[1] ?? "").length;
    const factor = displayFactor(rows);
    return { layer: null, label, bits: "", value, low: value - deviation, high: value + deviation, text: (value * factor).toFixed(decimals) };
  }

  function draw() {
    const state = ctx.get("sensitivity") ?? {};
    const ready = Boolean(state.rows?.length) && !state.empty;
    note.update(ready ? "" : state.empty || "Each layer's predicted cost appears here once it has been estimated.");
    for (const part of [what, axis, scroll, menu.el]) show(part, ready);
    order.update(ready ? SENSITIVITY_ORDERS : [], state.order);
    if (!ready) return;
    const kinds = state.kinds ?? [{ id: "", label: state.what }];
    keyed(kind, kinds, (one) => one.id, (one) => h("option", { value: one.id }), (node, one) => text(node, one.label));
    if (kind.value !== state.kind) kind.value = state.kind ?? "";
    attr(kind, "disabled", kinds.length < 2);
    attr(what, "title", state.title);
    text(unit, state.unit);
    const arranged = arrange(state);
    const scale = scaleOf(arranged.flatMap((group) => group.rows), displayFactor(state.rows), state.unit);
    const marks = Math.max(0, ...state.rows.map((row) => (row.marks ?? "").length));
    el.style.setProperty("--bits", `${marks ? Math.round(14 + 5.2 * marks) : 24}px`);
    const longest = Math.max(...arranged.flatMap((group) => group.rows.map((row) => row.label.length)));
    el.style.setProperty("--lab", `${Math.min(112, Math.max(28, Math.round(longest * 5.6) + (arranged.some((group) => group.folded) ? 12 : 0)))}px`);
    el.classList.toggle("sorted", state.order === "largest" || arranged.some((group) => group.folded));
    keyed(ticks, scale.ticks, (tick) => tick.text, () => h("span"), (node, tick) => { text(node, tick.text); node.style.left = `${tick.at}%`; });
    groups.style.setProperty("--lines", String(arranged.reduce((sum, group) => sum + group.rows.length, 0)));
    groups.style.setProperty("--gaps", `${6 * (arranged.length - 1)}px`);
    bars = new Map();
    keyed(groups, arranged, (group) => `${state.order} ${group.id}`, () => h("div", { class: "pd-group" }, h("span", { class: "g" }), h("div")), (node, group) => {
      const [name, list] = node.children;
      text(name, group.name);
      name.classList.toggle("none", !group.name);
      keyed(list, group.rows, (row) => row.layer ?? `sum ${row.opens ?? row.label}`, createRow, (line, row) => updateRow(line, row, scale));
    });
    lightSelection();
    lightHover();
    lightFilter();
  }

  function lightSelection() {
    const chosen = new Set(link.selection);
    for (const [layer, node] of bars) node.classList.toggle("sel", chosen.has(layer));
    tabStop(bars.has(active) ? active : link.selection.find((layer) => bars.has(layer)) ?? bars.keys().next().value);
  }
  function lightHover() { for (const [layer, node] of bars) node.classList.toggle("hover", layer === link.hover); }
  function lightFilter() { for (const [layer, node] of bars) node.classList.toggle("dim", !link.matches(ctx.cells?.get(layer) ?? { layer })); }
  function tabStop(layer) {
    for (const node of groups.querySelectorAll(".pd-srow")) attr(node, "tabindex", node.dataset.layer === layer || (!layer && node.dataset.opens) ? 0 : -1);
  }

  groups.addEventListener("click", (event) => {
    const row = event.target.closest(".pd-srow");
    if (!row) return;
    if (row.dataset.opens !== undefined) {
      if (!opened.delete(row.dataset.opens)) opened.add(row.dataset.opens);
      draw();
    } else if (row.dataset.layer) {
      active = row.dataset.layer;
      link.select([active], event.ctrlKey || event.metaKey ? "toggle" : event.shiftKey ? "extend" : "replace");
    }
  });
  groups.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    const all = [...groups.querySelectorAll(".pd-srow")];
    const next = all[all.indexOf(event.target) + by];
    if (next) { active = next.dataset.layer; attr(event.target, "tabindex", -1); attr(next, "tabindex", 0); next.focus(); }
    event.preventDefault();
    event.stopPropagation();
  });
  link.on("selection", lightSelection);
  link.on("hover", lightHover);
  link.on("filter", lightFilter);
  return { el, needs: ["sensitivity", "grid"], update: draw, close: menu.close };
}

/** What turns a row's value into the number that it prints ("10⁻³ nats": 1000), read off the rows themselves. */
function displayFactor(rows) {
  const row = rows.reduce((best, one) => (Math.abs(one.value) > Math.abs(best?.value ?? 0) ? one : best), null);
  const ratio = row ? Number.parseFloat(row.text.replace("\u2212", "-")) / row.value : 1;
  return Number.isFinite(ratio) && ratio > 0 ? 10 ** Math.round(Math.log10(ratio)) : 1;
}

/**
 * The axis: it ends a little above the largest bar, unless one would flatten all the others; that one is broken instead. It begins at zero,
 * or as far below as a bar or its error reaches, but no further below than it goes above.
 */
function scaleOf(rows, factor, unit) {
  const tops = rows.map((row) => Math.max(row.high, 0)).sort((left, right) => right - left);
  const lowest = Math.min(0, ...rows.map((row) => row.low));
  if (!(tops[0] > 0) && !(lowest < 0)) return { min: 0, max: 1, ticks: [], unit, grid: {} }; // nothing is changed: there is no scale to show
  const max = Math.max(1e-12, tops.length > 3 && tops[0] > 2.5 * tops[2] && tops[2] > 0 ? 1.35 * tops[2] : 1.02 * tops[0], tops[0] > 0 ? 0 : -0.1 * lowest);
  const min = Math.max(1.02 * lowest, -max);
  const span = (max - min) * factor;
  const power = 10 ** Math.floor(Math.log10(span));
  const step = [0.1, 0.2, 0.5, 1, 2, 4, 5].map((one) => one * power).find((one) => span / one <= 4) ?? power * 5;
  const ticks = [];
  for (let k = Math.ceil((min * factor) / step); k * step <= max * factor * 1.0001; k++) ticks.push({ at: (100 * (k * step - min * factor)) / span, text: String(Number((k * step).toPrecision(3))).replace("-", "\u2212") });
  const size = step / span;
  const first = (ticks[0]?.at ?? 0) / 100;
  return { min, max, ticks, unit, grid: { "--tick": `${100 * size}%`, "--first": `${size < 1 ? (100 * first) / (1 - size) : 0}%`, "--zero": `${(-100 * min) / (max - min)}%` } };
}
