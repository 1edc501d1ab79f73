/**
 * What the panels share while the pointer and the keyboard are at work: the hovered layer, the selection and the filter.
 *
 * Python holds the selection. It is also kept here, one step ahead, so that keys typed within one round trip act on the layer that is
 * lit and not on the one before it; Python's value takes over as soon as it has answered or the round trip has taken too long.
 */

/** After this long without an answer Python's selection counts again, in milliseconds. */
const TRUST = 1500;

/** What only Python can judge: comparisons, states and alternatives. */
const PHRASE = /[<>=≤≥≠;!]|\b(?:or|not|locked|unlocked|edited|kept|selected)\b/i;

/**
 * @typedef {object} Context
 * @property {(name: string) => any} get  the state of a trait
 * @property {(message: object) => void} emit
 * @property {any} link
 * @property {(sentence: string) => void} say  announce politely to screen readers
 */

/**
 * @param {(name: string) => any} get
 * @param {(message: object) => void} emit
 */
export function createLink(get, emit) {
  const listeners = { hover: new Set(), selection: new Set(), filter: new Set() };
  const tell = (what) => listeners[what].forEach((listener) => listener());
  let hover = null;
  let filter = "";
  let test = () => true;
  let verdict = null; // Python's last answer, and the same as a set
  let found = null;
  let ahead = null; // {layers, waiting: messages without an answer, seen: Python's selection at the last of them}
  let timer;

  const fromPython = () => get("plan")?.selection ?? [];
  const letGo = () => { clearTimeout(timer); ahead = null; };

  return {
    /** @param {"hover"|"selection"|"filter"} what @param {() => void} listener */
    on(what, listener) { listeners[what].add(listener); },

    /** @returns {string|null} the layer under the pointer */
    get hover() { return hover; },
    set hover(layer) { if (layer !== hover) { hover = layer; tell("hover"); } },

    /** @returns {string[]} */
    get selection() { return ahead ? ahead.layers : fromPython(); },

    /** @param {string[]} layers @param {"replace"|"toggle"|"extend"} mode */
    select(layers, mode = "replace") {
      const now = this.selection;
      const next = mode === "replace" ? layers
        : mode === "extend" ? [...new Set([...now, ...layers])]
        : [...now.filter((layer) => !layers.includes(layer)), ...layers.filter((layer) => !now.includes(layer))];
      ahead = { layers: next, waiting: (ahead?.waiting ?? 0) + 1, seen: fromPython().join("\n") };
      clearTimeout(timer);
      timer = setTimeout(() => { letGo(); tell("selection"); }, TRUST);
      emit({ type: "select", layers, mode });
      tell("selection");
    },

    /**
     * Python sent a plan: let go of the local selection when that was the answer. Python's may be larger (a click on one layer of a fused
     * group selects the group), so an answer is a selection that holds ours, or the last of as many changes as messages were sent.
     */
    settle() {
      if (!ahead) return;
      const selection = fromPython();
      const now = selection.join("\n");
      if (now !== ahead.seen) { ahead.waiting -= 1; ahead.seen = now; }
      const holds = ahead.layers.length > 0 && ahead.layers.every((layer) => selection.includes(layer));
      if (ahead.waiting <= 0 || holds || (!ahead.layers.length && !selection.length)) letGo();
    },

    get filter() { return filter; },
    set filter(value) {
      if (value === filter) return;
      filter = value;
      test = layerTest(value);
      emit({ type: "filter", text: value });
      tell("filter");
    },

    /** @param {{layer: string, block?: any, column?: any, label?: string}} cell */
    matches(cell) {
      const own = get("plan")?.filter; // Python's verdict, once it has seen the same text; until then words are tried here, and of a phrase its last verdict stands
      if (!filter.trim()) return true;
      if (own?.text === filter && own.matches !== verdict) { verdict = own.matches; found = verdict && new Set(verdict); }
      if (own?.text !== filter && !PHRASE.test(filter)) return test(cell);
      return !found || found.has(cell.layer);
    },
  };
}

/**
 * "block 3-5 fc*": a range of blocks, then words of which one must match the role (with *) or be part of the name.
 * @param {string} query @returns {(cell: {layer: string, block?: any, column?: any, label?: string}) => boolean}
 */
export function layerTest(query) {
  const range = query.match(/blocks?\s*(\d+)(?:\s*[-–]\s*(\d+))?/i);
  const words = query.replace(range?.[0] ?? "", "").toLowerCase().split(/[\s,]+/).filter((word) => word && !["of", "in", "and", "the", "all", "layers"].includes(word));
  const globs = words.map((word) => new RegExp(`^${word.replace(/[.+^${}()|[\]\\?]/g, "\\$&").replaceAll("*", ".*")}$`));
  const [low, high] = range ? [Number(range[1]), Number(range[2] ?? range[1])] : [0, 0];
  return (cell) => {
    if (range) {
      const number = String(cell.block ?? "").match(/\d+$/);
      if (!number || Number(number[0]) < low || Number(number[0]) > high) return false;
    }
    if (!words.length) return true;
    const column = String(cell.column ?? "").toLowerCase();
    const name = cell.layer.toLowerCase();
    return words.some((word, i) => globs[i].test(column) || name.includes(word) || (cell.label ?? "").toLowerCase().includes(word));
  };
}

let gestures = 0;
/** An id for one gesture: Python makes one undo step of everything that carries it. */
export function gestureId() {
  gestures += 1;
  return `${Date.now().toString(36)}-${gestures}`;
}
