/**
 * A region along a chart's horizontal axis, by dragging over it or with Shift and the arrows; what to do with it is offered beside it.
 * The chart says where values are; nothing here knows what they mean.
 */
import { button, h, show, text } from "./dom.js";

/** Share of the plot's width that one press of Shift and an arrow adds. */
const BRUSH_STEP = 0.04;

/**
 * @param {HTMLElement} chart  the chart's element, which has the focus
 * @param {{axis: () => {left: number, width: number, top: number, height: number, value: (px: number) => number, px: (value: number) => number} | null,
 *   words: (low: number, high: number) => string, verb: string, done: (low: number, high: number) => void, say?: (sentence: string) => void}} options
 */
export function createBrush(chart, options) {
  const standing = h("div", { class: "pd-region standing", hidden: true, "aria-hidden": "true" });
  const area = h("div", { class: "pd-region", hidden: true, "aria-hidden": "true" });
  const apply = button("Measure these first", { class: "primary small", press: commit });
  apply.removeAttribute("aria-label"); // its words name it
  const cancel = button("Cancel", { class: "quiet icon", icon: "close", press: () => clear(true) });
  const bar = h("div", { class: "pd-brushbar", hidden: true }, apply, cancel);
  chart.append(standing, area, bar);
  let ends = null; // [from, to] in px from the plot's left edge, as they were drawn
  let wanted = null; // the region that stands: [low, high] in values

  const sorted = () => [Math.min(...ends), Math.max(...ends)];
  const values = () => { const axis = options.axis(); const [low, high] = sorted(); return [axis.value(low), axis.value(high)]; };

  function box(node, axis, low, high) {
    Object.assign(node.style, { left: `${axis.left + low}px`, width: `${Math.max(1, high - low)}px`, top: `${axis.top}px`, height: `${axis.height}px` });
  }
  function place() {
    const axis = options.axis();
    show(standing, axis && wanted);
    if (axis && wanted) {
      const [low, high] = wanted.map((value) => Math.min(axis.width, Math.max(0, axis.px(value))));
      box(standing, axis, low, high);
    }
    show(area, axis && ends);
    if (!axis || !ends) { show(bar, false); return; }
    const [low, high] = sorted();
    box(area, axis, low, high);
    text(apply.lastChild, options.verb.replace("{}", options.words(...values())));
  }
  function offer() {
    show(bar, ends);
    if (!ends) return;
    const axis = options.axis();
    const middle = axis.left + (ends[0] + ends[1]) / 2;
    bar.style.left = `${Math.max(4, Math.min(chart.clientWidth - bar.offsetWidth - 4, middle - bar.offsetWidth / 2))}px`;
    bar.style.top = `${axis.top + 22}px`; // below the words that stand at the chart's upper edge
  }
  function clear(refocus = false) {
    ends = null;
    place();
    if (refocus) chart.focus();
  }
  function commit() {
    if (!ends) return;
    const [low, high] = values();
    clear(true);
    options.done(low, high);
  }
  const within = (axis, event) => Math.min(axis.width, Math.max(0, event.clientX - chart.getBoundingClientRect().left - axis.left));

  return {
    /** Whether this key is the brush's; it has acted then. @param {KeyboardEvent} event @param {number|null} from px of the point under the cursor */
    key(event, from) {
      const axis = options.axis();
      if (!axis) return false;
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.shiftKey && by) {
        ends ??= [from ?? axis.width / 2, from ?? axis.width / 2];
        ends = [ends[0], Math.min(axis.width, Math.max(0, ends[1] + by * BRUSH_STEP * axis.width))];
        place();
        offer();
        options.say?.(options.words(...values()));
      } else if (ends && event.key === "Escape") clear();
      else if (ends && event.key === "Enter") commit();
      else return false;
      return true;
    },
    /** A drag that began at one event and is at another now. */
    drag(start, now) {
      const axis = options.axis();
      if (!axis) return;
      ends = [within(axis, start), within(axis, now)];
      show(bar, false);
      place();
    },
    drop() { place(); offer(); },
    clear,
    /** The region that stands by now, and after every drawing where it is. @param {[number, number]|null} region */
    stand(region) { wanted = region; place(); },
    place() { place(); if (!bar.hidden) offer(); },
  };
}
