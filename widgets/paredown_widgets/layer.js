/**
 * One layer's page: why it is sensitive, its spectrum beside those of two others, the schemes that it may get as a table that sets them, and
 * histograms of its weights and inputs. It follows the selection; the arrows walk through the layers.
 */
import { createChart } from "./chart.js";
import { attr, button, emptyNote, h, icon, keyed, mark, rich, show, star, text } from "./dom.js";
import { createHandle } from "./handle.js";
import { createSpectrum } from "./spectrum.js";

const FAMILIES = ["familyA", "familyB", "familyC", "familyD"];
/** After this long without an answer Python's layer counts again, ms. */
const ANSWER = 1500;

/** A panel with a chart, or the words on why there is none. */
function createLayerChart(ctx, { name, title, trait, pick }) {
  const sub = h("span", { class: "sub" });
  const legend = h("span", { class: "pd-legend" });
  const chart = createChart({ name, plotly: ctx.plotly, say: ctx.say, pick: pick ?? (() => {}), hover: () => {} });
  const note = emptyNote();
  const el = h("section", { class: `pd-panel pd-${name}`, "aria-label": title }, h("header", {}, h("h2", { text: title }), sub, h("span", { class: "grow" }), legend), chart.el, note.el);
  return {
    el, chart, legend, sub,
    update() {
      const state = ctx.get("layer")?.[trait];
      const ready = Boolean(state?.figure?.data?.length) && !state.empty;
      note.update(ready ? "" : state?.empty || "This appears here once the layer has been priced.");
      show(chart.el, ready);
      show(legend, ready);
      text(sub, ready ? state.sub : "");
      attr(sub, "title", state?.title || null);
      return ready ? chart.update(state.figure, state.label) : undefined;
    },
  };
}

/** The schemes of the layer: one row each, a click or Enter sets it. */
function createSchemeTable(ctx, set) {
  const common = h("span", { class: "sub" });
  const head = h("tr");
  const body = h("tbody");
  const table = h("table", { class: "pd-tbl" }, h("thead", {}, head), body);
  const scroll = h("div", { class: "scroll" }, table);
  const frame = h("div", { class: "pd-scrolled" }, scroll);
  const note = emptyNote();
  const el = h("section", { class: "pd-panel pd-schemes", "aria-label": "Schemes" }, h("header", {}, h("h2", { text: "Schemes" }), common), frame, note.el);
  let rows = [];
  let drawnFor = null;

  const cellsOf = (row, state) => [row.bits, row.size, row.loss, ...(state.alone ? [row.alone] : []), row.error];

  body.addEventListener("click", (event) => {
    const line = event.target.closest("tr");
    const row = rows.find((one) => one.scheme === line?.dataset.scheme);
    if (!row || row.now) return;
    if (row.refused) ctx.say(row.refused); else set(row.scheme);
  });
  body.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    const all = [...body.querySelectorAll("button")];
    const next = all[all.indexOf(event.target) + by];
    if (next) { for (const each of all) attr(each, "tabindex", each === next ? 0 : -1); next.focus(); }
    event.preventDefault();
    event.stopPropagation();
  });

  return {
    el,
    update() {
      const page = ctx.get("layer");
      const state = page?.table ?? {};
      rows = state.rows ?? [];
      note.update(rows.length ? "" : state.empty || "What each scheme would cost appears here once the layer has been priced.");
      show(frame, rows.length);
      text(common, state.sub);
      if (!rows.length) return;
      const heads = [{ id: "scheme", label: "Scheme" }, { id: "bits", label: "Bits/weight" }, { id: "size", label: "kB" }, { id: "loss", label: state.loss, mark: "predicted" },
        ...(state.alone ? [{ id: "alone", label: state.alone, mark: "measured" }] : []), { id: "error", label: "Output error" }, { id: "runtime", label: "Runtime" }];
      keyed(head, heads, (one) => one.id, (one) => h("th", { scope: "col" }, one.mark ? mark(one.mark) : null, h("span")), (node, one) => text(node.lastChild, one.label));
      const old = body.getRootNode().activeElement?.closest?.("tr")?.dataset.scheme;
      keyed(body, rows, (row) => row.scheme,
        (row) => h("tr", { "data-scheme": row.scheme }, h("th", { scope: "row" }, h("button", { type: "button" }, h("span", { class: "name" })), h("span", { class: "here", title: "in the plan" }, star(false), h("span", { class: "sr", text: "in the plan" })))),
        (line, row) => {
          const words = [...cellsOf(row, state), row.runtime];
          while (line.children.length < words.length + 1) line.append(h("td"));
          while (line.children.length > words.length + 1) line.lastChild.remove();
          const [name, here] = line.firstChild.children;
          text(name.firstChild, row.name);
          attr(name, "title", row.title);
          attr(name, "aria-pressed", row.now ? "true" : "false");
          attr(name, "aria-disabled", row.refused ? "true" : null);
          attr(name, "tabindex", (old ? row.scheme === old : row.now) ? 0 : -1);
          show(here, row.now);
          words.forEach((value, i) => {
            const cell = line.children[i + 1];
            const last = i === words.length - 1;
            attr(cell, "class", last ? "runtime" : heads[i + 1].id === "loss" ? "pred" : heads[i + 1].id === "alone" ? "meas" : null);
            rich(cell, value);
            if (last) { attr(cell, "title", row.reason); attr(cell, "data-loads", row.loads ? "yes" : "no"); }
          });
          attr(line, "aria-current", row.now ? "true" : null);
          attr(line, "title", row.refused || null);
        });
      if (!body.querySelector('button[tabindex="0"]')) attr(body.querySelector("button"), "tabindex", 0);
      // A new page shows its own row.
      if (drawnFor !== page.layer) { drawnFor = page.layer; const own = body.querySelector("[aria-current]"); if (own) scroll.scrollTop = Math.max(0, own.offsetTop - scroll.clientHeight / 2); }
    },
  };
}

/** @param {import("./link.js").Context & {plotly: () => Promise<any>}} ctx */
export function createLayer(ctx) {
  const { link } = ctx;
  const page = () => ctx.get("layer") ?? {};
  const title = h("h2", { tabindex: -1 });
  const before = button("Previous layer", { class: "icon quiet", icon: "left", press: () => walk(-1) });
  const after = button("Next layer", { class: "icon quiet", icon: "right", press: () => walk(1) });
  const module = h("span", { class: "sub module" });
  const chips = h("span", { class: "chips" });
  const lock = h("button", { type: "button", class: "chip lock", on: { click: () => page().layer && ctx.emit({ type: "lock", layers: [page().layer], locked: !page().locked }) } }, icon("lock", 9), h("span"));
  const edited = h("span", { class: "chip warn", text: "edited since measured" });
  const tools = h("span", { class: "tools" });
  const lead = h("b");
  const reason = h("span");
  const why = h("p", { class: "why" }, lead, " ", reason);
  const head = h("section", { class: "pd-panel pd-layerhead", "aria-label": "Layer" }, h("div", { class: "line" }, before, title, after, module, chips, lock, edited, h("span", { class: "grow" }), tools), why);

  const set = (scheme) => change({ type: "scheme", scheme });
  const spectrum = createSpectrum(ctx, { trait: "layer_spectrum", name: "layer-spectrum" });
  const table = createSchemeTable(ctx, set);
  const losses = createLayerChart(ctx, { name: "layer-schemes", title: "Loss by scheme", trait: "schemes", pick: ({ data }) => { if (data) set(data); } });
  const weights = createLayerChart(ctx, { name: "layer-weights", title: "Weights", trait: "weights" });
  const inputs = createLayerChart(ctx, { name: "layer-inputs", title: "Input activations", trait: "inputs" });
  const charts = [losses, weights, inputs];
  const empty = emptyNote();
  const el = h("div", { class: "pd-view pd-layer", role: "tabpanel", "aria-label": "Layer" }, head, spectrum.el, table.el, ...charts.map((one) => one.el));
  const swatch = h("i", { class: "swatch", "aria-hidden": "true" });
  inputs.sub.before(swatch);
  let handles = null; // made when the page is first opened
  let ahead = null; // where the arrows are, one step ahead of Python
  let timer;

  /** Send an edit of this layer; a locked one stays as it is. */
  function change(message) {
    const { layer, locked } = page();
    if (!layer) return;
    if (locked) ctx.say("Locked: press L to unlock");
    else ctx.emit({ ...message, layers: [layer] });
  }

  /** To the layer before or behind in the order of the model. */
  function walk(by) {
    const all = Object.keys(ctx.get("plan")?.cells ?? {});
    const at = all.indexOf(ahead ?? page().layer);
    const next = all[at + by];
    if (at < 0 || !next) return;
    ahead = next;
    clearTimeout(timer);
    timer = setTimeout(() => { ahead = null; }, ANSWER);
    link.select([next]);
    ctx.say(ctx.cells?.get(next)?.label ?? next);
  }

  el.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by || event.altKey || event.ctrlKey || event.metaKey || event.target.closest(".pd-chart, select, input, [role=radiogroup]")) return;
    event.preventDefault();
    event.stopPropagation();
    walk(by);
  });

  function drawHead(state) {
    const all = Object.keys(ctx.get("plan")?.cells ?? {});
    const at = all.indexOf(state.layer);
    const label = (layer) => ctx.cells?.get(layer)?.label ?? layer;
    attr(before, "disabled", at <= 0);
    attr(after, "disabled", at < 0 || at >= all.length - 1);
    attr(before, "title", at > 0 ? `${label(all[at - 1])} (←)` : "Previous layer");
    attr(after, "title", at >= 0 && at < all.length - 1 ? `${label(all[at + 1])} (→)` : "Next layer");
    text(title, state.label || "Layer");
    text(module, state.layer);
    attr(module, "title", state.layer || null);
    attr(head, "data-layer", state.layer || null);
    keyed(chips, state.chips ?? [], (chip) => chip, (chip) => h("span", { class: "chip", text: chip, title: chip }), () => {});
    text(lock.lastChild, state.locked ? "locked" : "lock");
    attr(lock, "aria-pressed", state.locked ? "true" : "false");
    attr(lock, "aria-label", state.locked ? "Unlock this layer" : "Lock this layer");
    attr(lock, "title", `${state.locked ? "Unlock" : "Lock"} (L)`);
    show(lock, state.layer);
    show(edited, state.edited);
    text(lead, state.why?.lead);
    rich(reason, state.why?.text ?? state.empty ?? "");
    if (!handles) return;
    const captioned = handles.filter((one) => one.offered).length > 1;
    for (const one of handles) { show(one.el, one.el.dataset.handle === "bits" || one.offered); one.update(state.layer ? [state.layer] : [], captioned); }
  }

  function drawLegends(state) {
    const families = state.schemes?.legend ?? [];
    keyed(losses.legend, families, (label) => label, () => h("span", {}), (node, label, i) => {
      const kind = FAMILIES[Math.min(i, FAMILIES.length - 1)];
      if (node.dataset.kind !== kind) { node.dataset.kind = kind; node.replaceChildren(mark(kind), h("span")); }
      text(node.lastChild, label);
    });
    show(swatch, state.inputs?.outliers);
  }

  return {
    el, spectrum,
    charts: charts.map((one) => one.chart),
    needs: ["layer", "plan", "handles"],
    /** The page is on the screen now. @param {string} [name] of this layer */
    opened(name) {
      if (!handles) {
        handles = ["bits", "sparsity", "rank"].map((id) => createHandle(ctx, id, change));
        tools.append(...handles.map((one) => one.el));
        drawHead(page());
      }
      ctx.emit({ type: "opened", id: "layer", ...(name ? { layer: name } : {}) });
    },
    /** The keyboard goes on where the page begins. */
    focus() { title.focus({ preventScroll: true }); },
    update() {
      const state = page();
      if (state.layer === ahead) ahead = null;
      empty.update(state.layer ? "" : state.empty ?? "");
      drawHead(state);
      table.update();
      drawLegends(state);
      return Promise.all(charts.map((one) => one.update()));
    },
    redraw() { for (const one of charts) one.chart.redraw(); },
    close() { clearTimeout(timer); for (const one of charts) one.chart.close(); },
  };
}
