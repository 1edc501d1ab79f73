/** Keys and the pointer across panels: bits, lock, undo, fill, measure; and the hovered layer, wherever it is drawn. */

/**
 * @param {import("./link.js").Context} ctx
 * @param {{root: HTMLElement, plan: any, summary: any}} parts
 * @returns {() => void} stops listening
 */
export function createKeys(ctx, { root, plan, summary }) {
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
    if (event.repeat && "lfmsr".includes(key)) return undefined;
    return {
      "+": () => plan.toolbar.step(1), "=": () => plan.toolbar.step(1), "-": () => plan.toolbar.step(-1),
      s: () => plan.toolbar.cycle("sparsity"), r: () => plan.toolbar.cycle("rank"), l: () => plan.toolbar.toggleLock(), f: () => summary.fill(), m: () => summary.measure(), escape: () => { if (link.selection.length) link.select([]); },
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
  // JupyterLab looks for its shortcuts at the document, before any listener in here; this attribute makes it leave the keys alone. Its
  // shortcuts with Ctrl that are not ours (save, palette) stay.
  const guard = (event) => {
    const foreign = (event.ctrlKey || event.metaKey) && !["z", "y", "a"].includes(event.key.toLowerCase()) && event.key.length === 1;
    root.toggleAttribute("data-lm-suppress-shortcuts", !foreign);
  };
  window.addEventListener("keydown", guard, true);

  // The other two key events would reach the notebook's own listeners too.
  for (const name of ["keyup", "keypress"]) root.addEventListener(name, (event) => event.stopPropagation());

  // Told by what the pointer enters, anywhere on the page: leave events are not sent when the element under the pointer was removed,
  // which happens in a notebook all the time.
  const point = (event) => {
    const first = /** @type {Element} */ (event.composedPath()[0]);
    const target = first instanceof Element && root.contains(first) ? first : null;
    link.hover = target?.closest("[data-layer]")?.getAttribute("data-layer") ?? null;
    plan.point(target, event.buttons > 0);
  };
  document.addEventListener("pointerover", point, true);
  root.addEventListener("pointerover", point, true); // within a shadow root (Panel) a move from one element to the next does not reach the document

  return () => {
    window.removeEventListener("keydown", guard, true);
    document.removeEventListener("pointerover", point, true);
  };
}
