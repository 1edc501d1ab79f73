/**
 * What differs between the hosts (Jupyter through anywidget, Panel's anywidget component, a report file), hidden behind three functions.
 */

/** How many messages Panel's event queue keeps: enough for every gesture between two round trips. */
const EVENT_QUEUE = 64;

/**
 * A function that sends messages to Python. Jupyter has custom messages; Panel has only synced values, where a second message would
 * overwrite the first, so the last ones travel together and Python skips those it has seen.
 * @param {any} model @returns {(message: object) => void}
 */
export function createEmit(model) {
  if (typeof model.send === "function") return (message) => model.send(message);
  const queue = [];
  let n = 0;
  return (message) => {
    queue.push({ ...message, n: ++n });
    if (queue.length > EVENT_QUEUE) queue.shift();
    model.set("event", { n, items: [...queue] });
    model.save_changes();
  };
}

/**
 * A function that reads a trait. Panel sends objects as JSON text, which is parsed once.
 * @param {any} model @returns {(name: string) => any}
 */
export function createGet(model) {
  const parsed = new Map(); // trait to [text, value]
  return (name) => {
    const value = model.get(name);
    if (typeof value !== "string" || !(value.startsWith("{") || value === "null")) return value;
    if (parsed.get(name)?.[0] !== value) parsed.set(name, [value, JSON.parse(value)]);
    return parsed.get(name)[1];
  };
}

/**
 * plotly.js: already on the page (Panel, a report) or unpacked once from the bundle widget that Python keeps one of per kernel.
 * @param {any} model @returns {Promise<any>}
 */
export function loadPlotly(model) {
  const page = /** @type {any} */ (globalThis);
  if (page.Plotly) return Promise.resolve(page.Plotly);
  page.paredownPlotly ??= unpackPlotly(model).catch((error) => { page.paredownPlotly = undefined; throw error; });
  return page.paredownPlotly;
}

async function unpackPlotly(model) {
  const reference = model.get("bundle");
  if (!reference || !model.widget_manager) throw new Error("plotly.js is not on this page: run the cell again, or reload the page");
  const bundle = await model.widget_manager.get_model(reference.replace("IPY_MODEL_", ""));
  const stream = new Blob([bundle.get("code_gz")]).stream().pipeThrough(new DecompressionStream("gzip"));
  const address = URL.createObjectURL(new Blob([await new Response(stream).text()], { type: "text/javascript" }));
  try { await import(address); } finally { URL.revokeObjectURL(address); }
  return /** @type {any} */ (globalThis).Plotly;
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
 * @param {any} model @param {HTMLElement} host @param {(theme: string) => void} changed
 * @returns {() => void} stops watching
 */
export function watchTheme(model, host, changed) {
  let timer;
  const check = () => {
    const asked = model.get("theme");
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
  model.on("change:theme", check);
  soon();
  return () => { clearTimeout(timer); observer.disconnect(); media.removeEventListener("change", soon); model.off?.("change:theme", check); };
}
