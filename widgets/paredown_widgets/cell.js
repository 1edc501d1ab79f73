/** One cell of the plan: built once, then its text, badge, lock and colour are changed in place. */
import { attr, h, icon, show, text } from "./dom.js";

/**
 * @typedef {object} CellState
 * @property {string} text
 * @property {string} badge
 * @property {boolean} locked
 * @property {boolean} edited
 * @property {number|null} color  step of the ramp, 0..7
 * @property {string} [scheme]
 */

/** @param {{layer: string, label: string}} place @param {{prefix?: string, role?: string}} options */
export function createCell(place, options = {}) {
  const edit = h("i", { class: "edit", hidden: true });
  const value = h("span", { class: "v" });
  const badge = h("span", { class: "badge", hidden: true });
  const lock = icon("lock", 9, "lock");
  const el = h("button", { type: "button", class: "pd-cell", role: options.role ?? "gridcell", tabindex: -1, "data-layer": place.layer }, edit,
    options.prefix ? h("small", { text: options.prefix }) : null, value, lock, badge);
  return {
    el,
    /** @param {CellState|undefined} cell */
    update(cell) {
      text(value, cell?.text ?? "–");
      text(badge, cell?.badge);
      show(badge, cell?.badge);
      show(edit, cell?.edited);
      attr(lock, "hidden", !cell?.locked);
      attr(el, "data-step", cell?.color ?? null);
      const words = [cell?.bits ? `${cell.bits} bit` : cell?.text || "not decided", cell?.badge, cell?.locked ? "locked" : "", cell?.edited ? "edited" : ""];
      attr(el, "aria-label", `${place.label}: ${words.filter(Boolean).join(", ")}`);
    },
  };
}
