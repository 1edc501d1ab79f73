/**
 * The budget: a value in a unit of choice, and a logarithmic rail with the uniform plans, this plan's star and the handle. The verdict
 * stands at its right. Amounts are in the unit; Python knows what they mean.
 */
import { attr, h, keyed, show, star, text } from "./dom.js";

/** Shares of the rail left of the smallest plan (hatched: no plan is that small) and right of the largest. */
const STUB = 0.06;
const TAIL = 0.015;
/** At most one message in this time while the handle is dragged, ms: 20 a second. */
const SEND_EVERY = 50;
/** After this long without an answer to the hand, Python's value counts again, ms. */
const ANSWER_WITHIN = 1500;

/** @param {import("./link.js").Context} ctx */
export function createBudget(ctx) {
  const field = h("input", { class: "field", "aria-label": "Budget", inputmode: "decimal", autocomplete: "off", spellcheck: "false" });
  const unit = h("select", { class: "field unit", "aria-label": "Unit of the budget", on: { change: () => { held = null; ctx.emit({ type: "budget_unit", id: unit.value }); } } });
  const none = h("div", { class: "none", title: "Smaller than any plan" });
  const fill = h("div", { class: "fill" });
  const excess = h("div", { class: "excess" });
  const ticks = h("div", { class: "ticks" });
  const planSize = h("span");
  const plan = h("div", { class: "plan" }, star(false), planSize);
  const thumb = h("button", { type: "button", class: "thumb", role: "slider", "aria-label": "Budget" });
  const track = h("div", { class: "pd-track" }, h("div", { class: "rail" }), none, fill, excess, ticks, plan, thumb);
  const verdict = h("b");
  const smallest = h("span");
  const outcome = h("div", { class: "verdict" }, verdict, smallest);
  const el = h("div", { class: "pd-budget", role: "group", "aria-label": "Budget" }, h("div", { class: "lead" }, h("h2", { text: "Budget" }), field, unit), track, outcome);

  let held = null; // the value under the hand, until Python has answered to it
  let dragging = false;
  let lastSent = 0;
  let timer;

  const state = () => ctx.get("budget") ?? {};
  const usable = (b) => b.smallest > 0 && b.largest > b.smallest;
  const clamp = (value) => Math.min(state().largest, Math.max(state().smallest, value));
  /** Where a size stands on the rail, 0 to 1. */
  const at = (b, value) => Math.min(1, Math.max(0, STUB + ((1 - STUB - TAIL) * Math.log(value / b.smallest)) / Math.log(b.largest / b.smallest)));
  const percent = (share) => `${Math.round(share * 1e4) / 100}%`;
  const words = (amount) => amount.toFixed(state().digits ?? 2);
  const difference = (amount) => { const value = Math.abs(amount); return `${value.toFixed(value < 9.995 ? state().digits ?? 2 : 1)}\u00a0${state().unit ?? "MB"}`; };

  function send(now) {
    clearTimeout(timer);
    const wait = lastSent + SEND_EVERY - performance.now();
    if (wait > 0 && !now) { timer = setTimeout(() => send(true), wait); return; }
    lastSent = performance.now();
    ctx.emit({ type: "budget", amount: Number(held.toPrecision(9)), unit: state().unit ?? "MB" });
  }

  /** Move to a value: what is drawn follows at once, Python a moment later. */
  function move(amount, last = false) {
    held = clamp(amount);
    draw();
    send(last);
  }

  function fromPointer(event) {
    const box = track.getBoundingClientRect();
    const b = state();
    const share = ((event.clientX - box.left) / box.width - STUB) / (1 - STUB - TAIL);
    return b.smallest * (b.largest / b.smallest) ** share;
  }

  track.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !usable(state())) return;
    dragging = true;
    track.setPointerCapture(event.pointerId);
    thumb.focus({ preventScroll: true });
    event.preventDefault();
    move(fromPointer(event));
  });
  track.addEventListener("pointermove", (event) => { if (dragging) move(fromPointer(event)); });
  const drop = (event) => { if (dragging) { dragging = false; if (event.type === "pointerup") move(fromPointer(event), true); } };
  track.addEventListener("pointerup", drop);
  track.addEventListener("pointercancel", drop);

  thumb.addEventListener("keydown", (event) => {
    const b = state();
    if (!usable(b)) return;
    const step = 10 ** (Math.floor(Math.log10(b.smallest)) - 1);
    const now = held ?? b.amount ?? b.plan ?? b.largest;
    const by = { ArrowRight: step, ArrowUp: step, ArrowLeft: -step, ArrowDown: -step, PageUp: 10 * step, PageDown: -10 * step }[event.key];
    const to = by ? Math.round((now + by) / step) * step : event.key === "Home" ? b.smallest : event.key === "End" ? b.largest : null;
    if (to === null) return;
    event.preventDefault();
    event.stopPropagation();
    move(to);
  });

  function typed() {
    const value = Number.parseFloat(field.value.replace(",", "."));
    if (Number.isFinite(value) && value > 0 && field.value !== state().text) {
      // A typed value is sent as it is: an impossible one is Python's to explain.
      held = value;
      draw();
      send(true);
    }
    field.value = held === null ? state().text ?? "" : words(held);
  }
  field.addEventListener("change", typed);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter") typed();
    if (event.key === "Escape") { field.value = state().text ?? ""; field.blur(); }
  });

  /** What to say about a value that Python has not judged yet. */
  function preview(b, amount) {
    if (!b.plan) return [b.verdict, b.kind];
    const over = b.plan > amount;
    return [`${difference(amount - b.plan)} ${over ? "over" : "under"}`, over ? "over" : "under"];
  }

  function draw() {
    const b = state();
    const ready = usable(b);
    const amount = held ?? b.amount;
    const [said, kind] = held === null ? [b.verdict, b.kind] : preview(b, held);
    attr(el, "data-kind", kind);
    keyed(unit, b.units?.length ? b.units : [{ id: b.unit ?? "MB", label: b.unit ?? "MB" }], (one) => one.id, (one) => h("option", { value: one.id }), (node, one) => text(node, one.label));
    if (unit.value !== b.unit) unit.value = b.unit ?? "MB";
    if (el.getRootNode().activeElement !== field) field.value = amount ? (held === null ? b.text : words(amount)) : "–";
    for (const control of [field, unit, thumb]) attr(control, "disabled", !ready);
    text(verdict, said || "–");
    text(smallest, b.smallest_text ? `smallest ${b.smallest_text}` : "");
    for (const part of [none, fill, thumb]) show(part, ready);
    show(plan, ready && b.plan);
    show(excess, ready && b.plan && amount && b.plan > amount * (1 + 1e-9));
    if (!ready) { ticks.replaceChildren(); return; }
    none.style.width = percent(STUB);
    const here = amount ? at(b, amount) : 1;
    const own = b.plan ? at(b, b.plan) : STUB;
    fill.style.left = percent(STUB);
    fill.style.width = percent(Math.max(0, Math.min(here, own) - STUB));
    excess.style.left = percent(here);
    excess.style.width = percent(Math.max(0, own - here));
    plan.style.left = percent(own);
    // The size stands left of the star, unless the rail ends there or the handle is in the way.
    plan.classList.toggle("flip", own < 0.12 || (amount && own > here && (own - here) * track.clientWidth < 76 && own < 0.9));
    text(planSize, b.plan_text + (b.plan > b.largest * (1 + 1e-9) ? " →" : ""));
    thumb.style.left = percent(here);
    attr(thumb, "aria-valuemin", words(b.smallest));
    attr(thumb, "aria-valuemax", words(b.largest));
    attr(thumb, "aria-valuenow", amount ? words(amount) : null);
    attr(thumb, "aria-valuetext", amount ? `${words(amount)} ${b.unit ?? "MB"}, ${said}` : "no budget");
    keyed(ticks, b.ticks ?? [], (tick) => tick.label, () => h("div", { class: "tick" }, h("span", {}, h("b"), h("em"))), (node, tick) => {
      node.style.left = percent(at(b, tick.amount));
      text(node.querySelector("b"), tick.label);
      text(node.querySelector("em"), tick.text);
    });
    thin();
  }

  /** Labels that would touch their neighbour lose their size, then their name. */
  function thin() {
    const width = track.clientWidth;
    if (!width) return;
    const centre = (node) => (width * Number.parseFloat(node.style.left)) / 100;
    const nodes = [...ticks.children].sort((left, right) => centre(left) - centre(right)); // fewer bits may be slower
    let end = -Infinity;
    for (const node of nodes) {
      const label = node.firstChild;
      label.className = "";
      const full = label.offsetWidth;
      label.className = "brief";
      const brief = label.offsetWidth;
      const shift = Math.min(0, width - centre(node) - full / 2);
      const next = nodes[nodes.indexOf(node) + 1];
      const room = next ? centre(next) - centre(node) : Infinity;
      const fits = (size) => centre(node) + shift - size / 2 > end + 8 && centre(node) + size / 2 + 4 < centre(node) + room;
      label.className = fits(full) ? "" : fits(brief) ? "brief" : "mute";
      label.style.marginLeft = label.className === "" ? `${shift}px` : "0";
      if (label.className !== "mute") end = centre(node) + (label.className ? brief : full + 2 * shift) / 2;
    }
  }
  const observer = new ResizeObserver(thin);
  observer.observe(track);

  return {
    el,
    needs: ["budget"],
    update() {
      const b = state();
      // Python has caught up with the hand, or says something else when nothing is held any more.
      const late = performance.now() - lastSent > ANSWER_WITHIN;
      if (held !== null && !dragging && (late || Math.abs((b.amount ?? 0) - held) < 1e-6 * held)) held = null;
      draw();
    },
    close() { clearTimeout(timer); observer.disconnect(); },
  };
}
