/**
 * From a theme-free figure to one that plotly.js draws: tokens become the colours of the current theme, and everything that all
 * charts share (font, ground, axes) is supplied here, so that figures say only what is theirs.
 */

/**
 * The design tokens of an element as they are now. Each is looked up once: the browser works a variable out again for every question.
 * @param {Element} el
 */
export function tokensOf(el) {
  const style = getComputedStyle(el);
  const known = new Map();
  return (/** @type {string} */ name) => { if (!known.has(name)) known.set(name, style.getPropertyValue(`--pd-${name}`).trim()); return known.get(name); };
}

/**
 * The value of a design token.
 * @param {(name: string) => string} tokens @param {string} name "measured", or "measured@0.35" for the colour with that opacity
 */
function tokenColour(tokens, name) {
  const [token, alpha] = name.split("@");
  const value = tokens(token) || "#888888";
  if (alpha === undefined || !/^#[0-9a-f]{6}$/i.test(value)) return value;
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16));
  return `rgba(${red}, ${green}, ${blue}, ${alpha})`;
}

/** A copy of `value` in which every "token:NAME" is a colour. Typed arrays and base64 arrays are passed through. */
function paint(value, tokens) {
  if (typeof value === "string") return value.startsWith("token:") ? tokenColour(tokens, value.slice(6)) : value;
  if (Array.isArray(value)) {
    if (typeof value[0] === "number" && typeof value.at(-1) !== "string") return value.slice(); // a colour scale is pairs of number and colour
    return value.map((item) => paint(item, tokens));
  }
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, paint(item, tokens)]));
}

/**
 * The traces to draw. plotly.js builds CSS selectors from a trace's uid, so one that holds a layer's name (dots) would break its clean-up.
 * @param {any[]} traces @param {(name: string) => string} tokens
 */
export function paintTraces(traces, tokens) {
  const safe = (uid) => `u${String(uid).replace(/[^A-Za-z0-9-]/g, (sign) => `_${sign.codePointAt(0).toString(16)}_`)}`;
  return traces.map((trace) => ({ ...paint(trace, tokens), ...(trace.uid === undefined ? {} : { uid: safe(trace.uid) }) }));
}

/** What every axis has unless the figure says otherwise. Only the x axis has a line and ticks: the y grid is guide enough. */
function baseAxis(isX) {
  return {
    color: "token:ink3", gridcolor: "token:line", linecolor: "token:line-strong", tickcolor: "token:line-strong", zeroline: false, showline: isX,
    ticks: isX ? "outside" : "", ticklen: 4, tickfont: { size: 10.5 }, automargin: false, fixedrange: true,
  };
}

/**
 * The layout to draw: the figure's own over the shared one, sized to the element.
 * @param {any} own @param {(name: string) => string} tokens @param {number} width @param {number} height
 */
export function frame(own, tokens, width, height) {
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest", dragmode: false,
    ...own, width, height, autosize: false,
    font: { family: tokens("font") || "sans-serif", size: 11, color: "token:ink2", ...own.font },
    margin: { l: 44, r: 10, t: 6, b: 36, pad: 0, ...own.margin },
    hoverlabel: { bgcolor: "token:surface", bordercolor: "token:line-strong", align: "left", font: { size: 11, color: "token:ink" }, ...own.hoverlabel },
  };
  const axes = new Set(["xaxis", "yaxis", ...Object.keys(own).filter((key) => /^[xy]axis\d*$/.test(key))]);
  for (const name of axes) {
    const axis = own[name] ?? {};
    const title = typeof axis.title === "string" ? { text: axis.title } : axis.title ?? { text: "" };
    layout[name] = { ...baseAxis(name.startsWith("x")), ...axis, title: { standoff: 6, ...title, font: { size: 11, ...title.font } } };
    if (axis.tickfont) layout[name].tickfont = { size: 10.5, ...axis.tickfont };
  }
  return paint(layout, tokens);
}
