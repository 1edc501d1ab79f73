/** A button with a list below it: arrows move, Escape closes and gives the focus back, and so does pressing elsewhere. */
import { attr, button, h, show } from "./dom.js";

/**
 * @param {string} name  what the button says
 * @param {{label?: string, class?: string, icon?: string, title?: string, opened?: () => void}} options
 */
export function createMenu(name, options = {}) {
  const list = h("div", { class: "list", role: "menu", "aria-label": options.label ?? name });
  const pop = h("div", { class: "pd-menu", hidden: true }, list);
  const opener = button(name, { class: options.class, icon: options.icon, title: options.title, press: () => toggle(pop.hidden) });
  attr(opener, "aria-haspopup", "menu");
  attr(opener, "aria-expanded", "false");
  const el = h("span", { class: "pd-pop" }, opener, pop);

  const items = () => [...list.querySelectorAll("[role^=menuitem]")];
  const outside = (event) => { if (!event.composedPath().includes(el)) toggle(false); };

  /** Where it fits: below or above the button, at its right or left edge, within the explorer. */
  function place() {
    const [own, host] = [opener.getBoundingClientRect(), el.closest(".pd").getBoundingClientRect()];
    const [below, above] = [Math.min(host.bottom, innerHeight) - own.bottom - 12, own.top - Math.max(host.top, 0) - 12];
    pop.style.maxHeight = "";
    const up = below < pop.offsetHeight && above > below;
    Object.assign(pop.style, { maxHeight: `${Math.max(120, up ? above : below)}px`, top: up ? "auto" : "", bottom: up ? "calc(100% + 5px)" : "", left: "", right: "" });
    if (pop.getBoundingClientRect().left < host.left + 4) Object.assign(pop.style, { left: `${Math.max(host.left + 8 - own.left, Math.min(0, host.right - 8 - own.left - pop.offsetWidth))}px`, right: "auto" });
  }

  function toggle(open, focus = true) {
    if (open === !pop.hidden) return;
    if (open) options.opened?.();
    show(pop, open);
    attr(opener, "aria-expanded", open ? "true" : "false");
    document[open ? "addEventListener" : "removeEventListener"]("pointerdown", outside, true);
    if (!open) return;
    place();
    if (focus) (list.querySelector("[aria-checked=true]") ?? list.querySelector("[role^=menuitem]:not([aria-disabled=true])") ?? pop.querySelector("input"))?.focus();
  }

  pop.addEventListener("keydown", (event) => {
    const all = items();
    const at = all.indexOf(event.target);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (event.key === "Escape") { toggle(false); opener.focus(); }
    else if (to !== undefined && at >= 0) all[(to + all.length) % all.length].focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  return {
    el, list, opener, pop, toggle,
    /** An entry: its words, a quieter line or note, and what pressing it does. */
    item: (/** @type {Record<string, any>} */ props, ...children) => h("button", { type: "button", role: "menuitem", class: "item", tabindex: -1, ...props }, ...children),
    /** Close it, with the focus back on the button. */
    done() { toggle(false); opener.focus(); },
    close() { document.removeEventListener("pointerdown", outside, true); },
  };
}
