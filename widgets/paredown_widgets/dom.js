/**
 * Small helpers around the DOM: build once, then change text and attributes in place.
 *
 * Nothing here (or anywhere in the explorer) parses HTML: every string from a model, a file or a user becomes a text node.
 */

const SVG = "http://www.w3.org/2000/svg";

/** 16 x 16 line icons: lists of [element, attributes]. */
const ICONS = {
  play: [["path", { d: "M5 3.5v9l7-4.5z", fill: "currentColor" }]],
  pause: [["path", { d: "M5.5 4v8M10.5 4v8", "stroke-width": 2.4 }]],
  stop: [["rect", { x: 4.5, y: 4.5, width: 7, height: 7, rx: 1, fill: "currentColor" }]],
  undo: [["path", { d: "M3 6.5h6.5a3.5 3.5 0 0 1 0 7H6M3 6.5 6 3.5M3 6.5l3 3" }]],
  redo: [["path", { d: "M13 6.5H6.5a3.5 3.5 0 0 0 0 7H10M13 6.5l-3-3M13 6.5l-3 3" }]],
  lock: [
    ["rect", { x: 3, y: 7, width: 10, height: 7, rx: 1.2, fill: "currentColor", stroke: "none" }],
    ["path", { d: "M5 7V5a3 3 0 0 1 6 0v2", "stroke-width": 2 }],
  ],
  down: [["path", { d: "M8 2.5v8M4.8 7.5 8 10.7l3.2-3.2M3 13.5h10" }]],
  code: [["path", { d: "M5.5 4.5 2 8l3.5 3.5M10.5 4.5 14 8l-3.5 3.5" }]],
  check: [["path", { d: "M3 8.5 6.5 12 13 4.5" }]],
  reset: [["path", { d: "M3 8a5 5 0 1 0 1.6-3.7M3 3v2.5h2.5" }]],
  close: [["path", { d: "M4 4l8 8M12 4l-8 8" }]],
  plus: [["path", { d: "M8 3v10M3 8h10" }]],
  more: [["path", { d: "M3.5 8h.01M8 8h.01M12.5 8h.01", "stroke-width": 2.2 }]],
  top: [["path", { d: "M3.5 2.5h9M8 13.5v-8M4.8 8.7 8 5.5l3.2 3.2" }]],
  grid: [["path", { d: "M2.5 2.5h4v4h-4zM9.5 2.5h4v4h-4zM2.5 9.5h4v4h-4zM9.5 9.5h4v4h-4z" }]],
  rows: [["path", { d: "M2.5 4h11M2.5 8h11M2.5 12h11" }]],
  right: [["path", { d: "M6 3.5 10.5 8 6 12.5" }]],
  left: [["path", { d: "M10 3.5 5.5 8l4.5 4.5" }]],
};

/** The marks of the charts, for legends and table heads; each is [width, height, elements]. */
const MARKS = {
  sparse: [9, 5, [["path", { d: "M0 2.5h3.5M5.5 2.5h3.5", stroke: "currentColor", "stroke-width": 2 }]]],
  rank: [7, 7, [["path", { d: "M3.5 .5v6M.5 3.5h6", stroke: "currentColor", "stroke-width": 1.5 }]]],
  predicted: [9, 9, [["circle", { cx: 4.5, cy: 4.5, r: 3.5, fill: "none", stroke: "var(--pd-predicted)", "stroke-width": 1.5 }]]],
  measured: [9, 9, [["circle", { cx: 4.5, cy: 4.5, r: 4, fill: "var(--pd-measured)" }]]],
  front: [18, 9, [
    ["rect", { y: 1, width: 18, height: 7, fill: "var(--pd-band)" }],
    ["path", { d: "M0 4.5h18", stroke: "var(--pd-predicted)", "stroke-width": 1.3 }],
  ]],
  uniform: [11, 11, [["path", { d: "M5.5 1l4.5 4.5-4.5 4.5L1 5.5z", fill: "none", stroke: "var(--pd-uniform)", "stroke-width": 1.5 }]]],
  refined: [10, 10, [["rect", { x: 1, y: 1, width: 8, height: 8, fill: "var(--pd-measured)", stroke: "var(--pd-ink)", "stroke-width": 1.5 }]]],
  a: [18, 9, [["path", { d: "M0 4.5h18", stroke: "var(--pd-a)", "stroke-width": 1.8 }]]],
  b: [18, 9, [["path", { d: "M0 4.5h18", stroke: "var(--pd-b)", "stroke-width": 1.8, "stroke-dasharray": "5 2" }]]],
  c: [18, 9, [["path", { d: "M0 4.5h18", stroke: "var(--pd-c)", "stroke-width": 1.8, "stroke-dasharray": "1.5 2" }]]],
  familyA: [10, 10, [["circle", { cx: 5, cy: 5, r: 3.8, fill: "none", stroke: "var(--pd-a)", "stroke-width": 1.5 }]]],
  familyB: [10, 10, [["rect", { x: 1.5, y: 1.5, width: 7, height: 7, fill: "none", stroke: "var(--pd-b)", "stroke-width": 1.5 }]]],
  familyC: [11, 10, [["path", { d: "M5.5 1.2l4.3 7.6H1.2z", fill: "none", stroke: "var(--pd-c)", "stroke-width": 1.5, "stroke-linejoin": "round" }]]],
  familyD: [11, 11, [["path", { d: "M5.5 1l4.5 4.5-4.5 4.5L1 5.5z", fill: "none", stroke: "var(--pd-ink2)", "stroke-width": 1.5 }]]],
  dot: [5, 5, [["circle", { cx: 2.5, cy: 2.5, r: 2.5, fill: "currentColor" }]]],
};

const STAR = "M8 1.2l2 4.4 4.8.5-3.6 3.2 1 4.7L8 11.6 3.8 14l1-4.7L1.2 6.1 6 5.6z";

/**
 * Build an element.
 * @param {string} tag
 * @param {Record<string, any>} [props] `class`, `text`, `on: {event: listener}`, everything else is an attribute (false and null are left out)
 * @param {...(Node|string|null|undefined)} children
 * @returns {any}
 */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "text") node.textContent = value;
    else attr(node, name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Build an SVG element. */
function svg(tag, attributes, children = []) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

/** @param {string} name @param {number} [size] px @param {string} [className] */
export function icon(name, size = 14, className = "") {
  const shapes = ICONS[name].map(([tag, attributes]) => svg(tag, attributes));
  return svg("svg", { width: size, height: size, viewBox: "0 0 16 16", fill: "none", stroke: "currentColor", "stroke-width": 1.5,
    "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true", class: className }, shapes);
}

/** @param {string} name one of the marks used in charts */
export function mark(name) {
  const [width, height, shapes] = MARKS[name];
  return svg("svg", { width, height, class: "mk", "aria-hidden": "true" }, shapes.map(([tag, attributes]) => svg(tag, attributes)));
}

/** The star of this plan: solid when measured, hollow when predicted. @param {boolean} solid */
export function star(solid) {
  return svg("svg", { width: 13, height: 13, viewBox: "0 0 16 16", "aria-hidden": "true" },
    [svg("path", { d: STAR, fill: solid ? "currentColor" : "var(--pd-surface)", stroke: "currentColor", "stroke-width": 1.5, "stroke-linejoin": "round" })]);
}

/** Set an attribute only when it changes; null, undefined and false remove it. */
export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) { if (node.hasAttribute(name)) node.removeAttribute(name); return; }
  const wanted = value === true ? "" : String(value);
  if (node.getAttribute(name) !== wanted) node.setAttribute(name, wanted);
}

/** Set the text of a node only when it changes, so that a selection or a screen reader is not disturbed. */
export function text(node, value) {
  const wanted = value === null || value === undefined ? "" : String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Show or hide a node. */
export function show(node, visible) {
  if (node.hidden === Boolean(visible)) node.hidden = !visible;
}

/**
 * Text in the explorer's typography: "± 0.4" is quieter than its value, and λmax and λmin get their subscripts. Rebuilt only when it changes.
 * @param {HTMLElement} node @param {string|null|undefined} value
 */
export function rich(node, value) {
  const wanted = value === null || value === undefined ? "" : String(value);
  if (node.pdText === wanted) return;
  node.pdText = wanted;
  const parts = [];
  for (const [i, piece] of wanted.split(/( ?± ?[^\s,;]+)/).entries()) {
    const target = i % 2 ? h("span", { class: "pm" }) : document.createDocumentFragment();
    for (const [j, run] of piece.split(/λ(max|min)/).entries()) {
      if (j % 2) target.append("λ", h("sub", { text: run }));
      else if (run) target.append(run);
    }
    parts.push(target);
  }
  node.replaceChildren(...parts);
}

/**
 * Make the children of `parent` those of `items`, reusing the node of each key, so that focus and scroll stay where they are.
 * @template T
 * @param {HTMLElement} parent
 * @param {T[]} items
 * @param {(item: T, index: number) => string} key
 * @param {(item: T) => any} create
 * @param {(node: any, item: T, index: number) => void} update
 */
export function keyed(parent, items, key, create, update) {
  const old = new Map();
  for (const node of [...parent.children]) old.set(/** @type {any} */ (node).pdKey, node);
  let place = parent.firstElementChild;
  items.forEach((item, index) => {
    const name = key(item, index);
    let node = old.get(name);
    if (node) old.delete(name);
    else { node = create(item); node.pdKey = name; }
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
    update(node, item, index);
  });
  for (const node of old.values()) node.remove();
}

/**
 * A row of exclusive choices: one tab stop, arrows move.
 * @param {string} label
 * @param {(id: string) => void} pick
 */
export function segments(label, pick) {
  const el = h("div", { class: "seg", role: "radiogroup", "aria-label": label });
  el.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) pick(button.dataset.option);
  });
  el.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const buttons = [...el.children];
    const next = buttons[(buttons.indexOf(event.target.closest("button")) + by + buttons.length) % buttons.length];
    next.focus();
    pick(next.dataset.option);
  });
  return {
    el,
    /** @param {{id: string, label: string}[]} options @param {string} current */
    update(options, current) {
      show(el, options.length > 1);
      keyed(el, options, (option) => option.id,
        (option) => h("button", { type: "button", role: "radio", "data-option": option.id }),
        (button, option) => {
          if (option.label) text(button, option.label); // one without words has a sign
          attr(button, "aria-checked", option.id === current ? "true" : "false");
          attr(button, "tabindex", option.id === current ? 0 : -1);
        });
    },
  };
}

/** A button. @param {string} label @param {{class?: string, icon?: string, title?: string, press: () => void}} options */
export function button(label, options) {
  const bare = options.class?.includes("icon");
  return h("button", { type: "button", class: `btn ${options.class ?? ""}`, "aria-label": label, title: options.title ?? (bare ? label : null), on: { click: options.press } },
    options.icon ? icon(options.icon) : null, bare ? null : h("span", { text: label }));
}

/** The message of a panel that has nothing to draw yet. */
export function emptyNote() {
  const line = h("span");
  const el = h("div", { class: "pd-empty", hidden: true }, line);
  return { el, update(/** @type {string} */ message) { text(line, message); show(el, Boolean(message)); } };
}
