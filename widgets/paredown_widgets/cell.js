/** One cell of the plan: built once, then its text, badge, lock and colour are changed in place. */
import { attr, h, icon, show, text } from "./dom.js";

/**
 * @typedef {object} CellState
 * @property {string} text
 * @property {string} badge  another kind of number than the study's first
 * @property {string} [value]  what the cell is coloured by, in words
 * @property {string} sparsity  such as 2:4
 * @property {string} rank  such as r16
 * @property {string} said  all of it in words
 * @property {boolean} locked
 * @property {boolean} edited
 * @property {number|null} color  step of the ramp, 0..7
 * @property {string} [scheme]
 */

/** @param {{layer: string, label: string}} place @param {{prefix?: string, role?: string, quantity?: () => string}} options */
export function createCell(place, options = {}) {
  const amount = h("span", { class: "amount", hidden: true });
  const edit = h("i", { class: "edit", hidden: true });
  const value = h("span", { class: "v" });
  const badge = h("span", { class: "badge", hidden: true });
  const sparsity = h("span", { class: "sparsity", hidden: true });
  const rank = h("span", { class: "rank", hidden: true });
  const lock = icon("lock", 9, "lock");
  let drawn = null; // the state and the quantity on the screen: what did not change is the same object
  const el = h("button", { type: "button", class: "pd-cell", role: options.role ?? "gridcell", tabindex: -1, "data-layer": place.layer }, edit,
    options.prefix ? h("small", { text: options.prefix }) : null, value, amount, lock, rank, h("span", { class: "marks" }, badge, sparsity));
  return {
    el,
    /** @param {CellState|undefined} cell */
    update(cell) {
      const quantity = options.quantity?.() ?? "value";
      if (cell && drawn?.[0] === cell && drawn[1] === quantity) return;
      drawn = [cell, quantity];
      text(value, cell?.text ?? "–");
      for (const [node, words] of [[badge, cell?.badge], [sparsity, cell?.sparsity], [rank, cell?.rank], [amount, cell?.value]]) { text(node, words); show(node, words); }
      show(edit, cell?.edited);
      attr(lock, "hidden", !cell?.locked);
      attr(el, "data-step", cell?.color ?? null);
      const words = [cell?.said || "not decided", cell?.value ? `${quantity} ${cell.value}` : "", cell?.locked ? "locked" : "", cell?.edited ? "edited" : ""];
      attr(el, "aria-label", `${place.label}: ${words.filter(Boolean).join(", ")}`);
    },
  };
}
