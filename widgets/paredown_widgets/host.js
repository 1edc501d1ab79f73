/**
 * What differs between the hosts (Jupyter through anywidget, Panel's anywidget component, a report file), hidden behind three functions.
 */
import { patched } from "./difference.js";
import { runPlotly } from "./unpack.js";

/** How many messages Panel's event queue keeps: enough for every gesture between two round trips. */
const EVENT_QUEUE = 64;

/**
 * A function that sends messages to Python. Jupyter has custom messages; Panel has only synced values, where a second message would
 * overwrite the first, so those that Python has not yet `heard` travel together.
 * @param {any} model @returns {(message: object) => void}
 */
export function createEmit(model) {
  if (typeof model.send === "function") return (message) => model.send(message);
  let queue = [];
  let n = 0;
  return (message) => {
    const heard = model.get("heard") ?? 0;
    queue = [...queue.filter((one) => one.n > heard), { ...message, n: ++n }].slice(-EVENT_QUEUE);
    model.set("event", { n, items: queue });
    model.save_changes();
  };
}

/**
 * The traits as they are now. A host sends them whole once; after that a `patch` says what changed (difference.js), and `held` is the number of
 * the push that the traits stand at. A view that missed a push asks for the whole.
 * @param {any} model @param {(message: object) => void} emit
 */
export function createState(model, emit) {
  const values = new Map(); // by trait: read once until it changes, since Panel collects all traits to answer for one
  const heard = new Map(); // by trait: who listens
  const undo = [];
  let asked = false;

  /** Panel sends objects as JSON text. */
  function read(name) {
    const value = model.get(name);
    return typeof value === "string" && (value.startsWith("{") || value === "null") ? JSON.parse(value) : value;
  }
  function watch(name) {
    if (!heard.has(name)) {
      const listeners = new Set();
      const heed = () => { values.delete(name); for (const listener of listeners) listener(); };
      heard.set(name, listeners);
      model.on(`change:${name}`, heed);
      undo.push(() => model.off?.(`change:${name}`, heed));
    }
    return heard.get(name);
  }
  function get(name) {
    watch(name);
    if (!values.has(name)) values.set(name, read(name));
    return values.get(name);
  }
  /** Jupyter saves what its model holds, and has one for all views; Panel would send back what is set there. */
  function put(name, value) {
    if (typeof model.send === "function") { model.set(name, value); return; }
    values.set(name, value);
    for (const listener of heard.get(name) ?? []) listener();
  }
  function take() {
    const [patch, held] = [read("patch"), get("held") ?? 0];
    if (!patch?.traits || patch.seq <= held) return;
    if (patch.after !== null && patch.after !== held) {
      if (!asked) emit({ type: "whole" });
      asked = true;
      return;
    }
    asked = false;
    const changed = Object.entries(patch.traits).map(([name, change]) => [name, patched(get(name), change)]);
    for (const [name, value] of [...changed, ["held", patch.seq]]) put(name, value);
  }
  watch("held");
  watch("patch").add(take);
  take();
  return {
    get,
    /** @param {string} name @param {() => void} listener @returns {() => void} ends it */
    on(name, listener) { watch(name).add(listener); return () => watch(name).delete(listener); },
    close() { for (const end of undo) end(); },
  };
}

/**
 * plotly.js: already on the page (Panel, a report) or unpacked from the bundle widget that Python keeps one of per kernel.
 * @param {any} model @returns {Promise<any>}
 */
export async function loadPlotly(model) {
  const page = /** @type {any} */ (globalThis);
  if (page.Plotly) return page.Plotly;
  if (page.paredownPlotly) return page.paredownPlotly;
  const reference = model.get("bundle");
  if (!reference || !model.widget_manager) throw new Error("plotly.js is not on this page: run the cell again, or reload the page");
  const bundle = await model.widget_manager.get_model(reference.replace("IPY_MODEL_", ""));
  return runPlotly(bundle.get("code_gz"));
}

/**
 * plotly.js writes its style sheet into the document's head, which a shadow root (Panel) does not see: copy the rules.
 * @param {HTMLElement} node
 */
export function adoptPlotlyStyle(node) {
  const root = node.getRootNode();
  if (!(root instanceof ShadowRoot)) return;
  const rules = [...document.querySelectorAll("style[id^='plotly.js-style']")]
    .flatMap((style) => [.../** @type {HTMLStyleElement} */ (style).sheet.cssRules].map((rule) => rule.cssText)).join("\n");
  let style = root.querySelector("style.pd-plotly-style");
  if (!style) { style = document.createElement("style"); style.className = "pd-plotly-style"; root.append(style); }
  if (style.textContent !== rules) style.textContent = rules;
}

/** Is the text that the host would write here light or dark? @param {HTMLElement} place @returns {"light"|"dark"} */
function hostTheme(place) {
  const colour = getComputedStyle(place.isConnected ? place : document.body).color;
  const [red, green, blue] = (colour.match(/[\d.]+/g) ?? [0, 0, 0]).map(Number);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 140 ? "dark" : "light";
}

/**
 * Keep `data-theme` of the host element right: the trait `theme` when it names one, else what the page around looks like.
 * @param {any} state @param {HTMLElement} host @param {(theme: string) => void} changed
 * @returns {() => void} stops watching
 */
export function watchTheme(state, host, changed) {
  let timer;
  const check = () => {
    const asked = state.get("theme");
    const theme = asked === "light" || asked === "dark" ? asked : hostTheme(host.parentElement ?? host);
    if (host.dataset.theme === theme) return;
    host.dataset.theme = theme;
    changed(theme);
  };
  // A host switches its style sheets after (JupyterLab) or before (Panel) it marks the page, so look twice.
  const soon = () => { check(); clearTimeout(timer); timer = setTimeout(check, 300); };
  const observer = new MutationObserver(soon);
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-vscode-theme-kind", "class", "style"] });
  observer.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "data-bs-theme", "class", "style"] });
  const media = matchMedia("(prefers-color-scheme: dark)");
  media.addEventListener("change", soon);
  const unbind = state.on("theme", check);
  soon();
  return () => { clearTimeout(timer); observer.disconnect(); media.removeEventListener("change", soon); unbind(); };
}
