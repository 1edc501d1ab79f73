/** The selection toolbar: always in place, so that nothing moves when a selection appears. Also the commands behind the keys. */
import { attr, button, h, keyed, show, text } from "./dom.js";
import { createHandle } from "./handle.js";

/** @param {import("./link.js").Context} ctx */
export function createToolbar(ctx) {
  const { link } = ctx;
  const count = h("b");
  const of = h("span");
  const handles = ["bits", "sparsity", "rank"].map((id) => createHandle(ctx, id, edit));
  const [bits] = handles;
  const row = h("div", { class: "pd-handles" });
  const scheme = h("select", { class: "field scheme", "aria-label": "Scheme of the selection", on: { change: setScheme } });
  const lock = button("Lock", { class: "icon quiet", icon: "lock", title: "Lock (L)", press: toggleLock });
  const reset = button("Back to measured", { class: "icon quiet", icon: "reset", press: () => edit({ type: "reset" }) });
  const line = h("div", { class: "line" }, h("span", { class: "n" }, count, of), bits.el, scheme, h("span", { class: "grow" }), lock, reset);
  const el = h("div", { class: "pd-tools", role: "toolbar", "aria-label": "Edit the selection" }, row, line);

  const cells = () => ctx.get("plan")?.cells ?? {};
  const free = () => link.selection.filter((layer) => !cells()[layer]?.locked);

  /** Send an edit of the selected layers; locked ones stay as they are. */
  function edit(message) {
    const layers = free();
    if (layers.length) ctx.emit({ ...message, layers });
    else if (link.selection.length) ctx.say("Locked: press L to unlock");
  }
  function setScheme() { if (scheme.value) edit({ type: "scheme", scheme: scheme.value }); }
  function allLocked() { return link.selection.length > 0 && link.selection.every((layer) => cells()[layer]?.locked); }
  function toggleLock() { if (link.selection.length) ctx.emit({ type: "lock", layers: [...link.selection], locked: !allLocked() }); }

  /** The one value that all selected layers share, or undefined. */
  const shared = (name) => {
    const values = new Set(link.selection.map((layer) => cells()[layer]?.[name]));
    return values.size === 1 ? [...values][0] : undefined;
  };

  /** The menu of full schemes, by sparsity and rank where there is a choice of them. */
  function drawSchemes(offer) {
    const groups = new Map();
    for (const one of offer.schemes ?? []) groups.set(one.group, [...(groups.get(one.group) ?? []), one]);
    const kinds = link.selection.map((layer) => offer.kinds?.[offer.kind?.[layer] ?? 0]);
    const any = new Set(kinds.flatMap((kind) => kind?.schemes ?? []));
    const options = (parent, list) => keyed(parent, list, (one) => one.id, (one) => h("option", { value: one.id, hidden: one.id === "" }), (node, one) => {
      text(node, one.label);
      attr(node, "disabled", one.id && kinds.length && !any.has(one.id));
    });
    const head = { id: "", label: link.selection.length && shared("scheme") === undefined ? "several schemes" : "Scheme" };
    if (groups.size < 2) options(scheme, [head, ...(offer.schemes ?? [])]);
    else keyed(scheme, [head, ...groups.keys()], (one) => one.id ?? `group ${one}`, (one) => (one === head ? h("option", { value: "", hidden: true }) : h("optgroup", { label: one })), (node, one) => {
      if (one === head) text(node, head.label);
      else options(node, groups.get(one));
    });
    const now = shared("scheme") ?? "";
    if (scheme.value !== now) scheme.value = (offer.schemes ?? []).some((one) => one.id === now) ? now : "";
    attr(scheme, "title", scheme.value ? scheme.selectedOptions[0].textContent : null);
  }

  return {
    el,
    /** One step of bits. */
    step: bits.step,
    toggleLock,
    /** Whether the study leaves a choice of sparsity or rank. */
    get rich() { return handles.some((one) => one !== bits && one.offered); },
    /** @param {number} wanted */
    setBits(wanted) {
      const own = ctx.get("handles")?.handles?.find((one) => one.id === "bits");
      if (own?.rungs.some((rung) => rung.value === wanted)) edit({ type: "bits", bits: wanted });
    },
    /** Sparsity or rank of the selection to its next value, in a circle. @param {string} handle */
    cycle(handle) { if (handles.find((one) => one.el.dataset.handle === handle)?.offered) edit({ type: "cycle", handle }); },
    update() {
      const chosen = link.selection;
      const total = ctx.cells?.size ?? 0;
      text(count, chosen.length ? `${chosen.length} selected` : "Select");
      text(of, !chosen.length ? "layers" : chosen.length === 1 ? ctx.cells?.get(chosen[0])?.label ?? "" : `of ${total}`);
      attr(of, "title", chosen.length === 1 ? ctx.cells?.get(chosen[0])?.layer : null);
      // A study of bits alone has one line; with sparsity or rank the handles have a line of their own.
      const rich = this.rich;
      if (rich !== row.contains(bits.el)) rich ? row.append(...handles.map((one) => one.el)) : scheme.before(bits.el);
      show(row, rich);
      const free = chosen.filter((layer) => !cells()[layer]?.locked);
      for (const handle of handles) { show(handle.el, handle === bits || handle.offered); handle.update(free.length ? free : chosen, rich); }
      drawSchemes(ctx.get("handles") ?? {});
      for (const control of [scheme, lock, reset]) attr(control, "disabled", !chosen.length);
      attr(lock, "aria-pressed", allLocked() ? "true" : "false");
      attr(lock, "aria-label", allLocked() ? "Unlock" : "Lock");
    },
  };
}
