/** Keys and the pointer across panels: bits, lock, undo, fill, measure; and the hovered layer, wherever it is drawn. */

/**
 * @param {import("./link.js").Context} ctx
 * @param {{root: HTMLElement, header: any, plan: any, summary: any}} parts
 * @returns {() => void} stops listening
 */
export function createKeys(ctx, { root, header, plan, summary }) {
  const { link, emit } = ctx;

  /** What a key does; undefined leaves it to the browser. */
  function command(event) {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key === "z") return () => emit({ type: event.shiftKey ? "redo" : "undo" });
      return key === "y" ? () => emit({ type: "redo" }) : undefined;
    }
    if (event.altKey) return undefined;
    if (/^[1-9]$/.test(key)) return () => plan.toolbar.setBits(Number(key));
    if (event.repeat && "lfm".includes(key)) return undefined;
    return {
      "+": () => plan.toolbar.step(1), "=": () => plan.toolbar.step(1), "-": () => plan.toolbar.step(-1),
      l: () => plan.toolbar.toggleLock(), f: () => summary.fill(), m: () => summary.measure(), escape: () => { if (link.selection.length) link.select([]); },
    }[key];
  }

  root.addEventListener("keydown", (event) => {
    event.stopPropagation();
    const target = /** @type {HTMLElement} */ (event.target);
    if (target.matches("input, select, textarea")) return;
    const act = command(event);
    if (!act) return;
    event.preventDefault();
    act();
  });
  // The other two key events would reach the notebook's own listeners too.
  for (const name of ["keyup", "keypress"]) root.addEventListener(name, (event) => event.stopPropagation());

  root.addEventListener("pointerover", (event) => { link.hover = /** @type {HTMLElement} */ (event.target).closest("[data-layer]")?.getAttribute("data-layer") ?? null; });
  root.addEventListener("pointerleave", () => { link.hover = null; });

  const outside = (event) => header.outside(event);
  document.addEventListener("pointerdown", outside, true);
  return () => document.removeEventListener("pointerdown", outside, true);
}
