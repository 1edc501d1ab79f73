/** The selection toolbar: always in place, so that nothing moves when a selection appears. Also the commands behind the keys. */
import { attr, button, h, keyed, text } from "./dom.js";
import { gestureId } from "./link.js";

/** @param {import("./link.js").Context} ctx */
export function createToolbar(ctx) {
  const { link } = ctx;
  const count = h("b");
  const of = h("span");
  const fewer = h("button", { type: "button", "aria-label": "Fewer bits", title: "Fewer bits (−)", on: { click: () => step(-1) } }, "\u2212");
  const bits = h("output");
  const more = h("button", { type: "button", "aria-label": "More bits", title: "More bits (+)", on: { click: () => step(1) } }, "+");
  const scheme = h("select", { class: "field scheme", "aria-label": "Scheme of the selection", on: { change: setScheme } });
  const lock = button("Lock", { class: "icon quiet", icon: "lock", title: "Lock (L)", press: toggleLock });
  const reset = button("Back to measured", { class: "icon quiet", icon: "reset", press: () => edit({ type: "reset" }) });
  const el = h("div", { class: "pd-tools", role: "toolbar", "aria-label": "Edit the selection" }, h("span", { class: "n" }, count, of),
    h("span", { class: "stepper", role: "group", "aria-label": "Bits" }, fewer, bits, more), scheme, h("span", { class: "grow" }), lock, reset);

  const cells = () => ctx.get("plan")?.cells ?? {};
  const free = () => link.selection.filter((layer) => !cells()[layer]?.locked);

  /** Send an edit of the selected layers; locked ones stay as they are. */
  function edit(message) {
    const layers = free();
    if (layers.length) ctx.emit({ ...message, layers });
    else if (link.selection.length) ctx.say("Locked: press L to unlock");
  }
  function step(by, gesture = gestureId()) { edit({ type: "step", by, gesture }); }
  function setScheme() { if (scheme.value) edit({ type: "scheme", scheme: scheme.value }); }
  function allLocked() { return link.selection.length > 0 && link.selection.every((layer) => cells()[layer]?.locked); }
  function toggleLock() { if (link.selection.length) ctx.emit({ type: "lock", layers: [...link.selection], locked: !allLocked() }); }

  /** The one value that all selected layers share, or undefined. */
  const shared = (name) => {
    const values = new Set(link.selection.map((layer) => cells()[layer]?.[name]));
    return values.size === 1 ? [...values][0] : undefined;
  };

  return {
    el,
    step,
    toggleLock,
    /** @param {number} wanted */
    setBits(wanted) {
      if ((ctx.get("plan")?.bits ?? []).includes(wanted)) edit({ type: "bits", bits: wanted });
    },
    update() {
      const plan = ctx.get("plan") ?? {};
      const chosen = link.selection;
      const total = ctx.cells?.size ?? 0;
      text(count, chosen.length ? `${chosen.length} selected` : "Select");
      text(of, !chosen.length ? "layers" : chosen.length === 1 ? ctx.cells?.get(chosen[0])?.label ?? "" : `of ${total}`);
      attr(of, "title", chosen.length === 1 ? ctx.cells?.get(chosen[0])?.layer : null);
      const value = shared("bits");
      text(bits, !chosen.length ? "–" : value ? `${value} bit` : shared("text") ?? "mixed");
      const options = [{ id: "", label: "Scheme" }, ...(plan.schemes ?? [])];
      keyed(scheme, options, (option) => option.id, (option) => h("option", { value: option.id }), (node, option) => text(node, option.label));
      const now = shared("scheme") ?? "";
      if (scheme.value !== now) scheme.value = options.some((option) => option.id === now) ? now : "";
      for (const control of [fewer, more, scheme, lock, reset]) attr(control, "disabled", !chosen.length);
      attr(lock, "aria-pressed", allLocked() ? "true" : "false");
      attr(lock, "aria-label", allLocked() ? "Unlock" : "Lock");
    },
  };
}
