/** The budget: a value, and a logarithmic rail with the uniform plans, this plan's star and the handle. The verdict stands at its right. */
import { attr, h, keyed, show, star, text } from "./dom.js";

const UNIT_BYTES = { B: 1, kB: 1e3, MB: 1e6, GB: 1e9 };
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
  const unit = h("span", { class: "unit" });
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
  const el = h("div", { class: "pd-budget", role: "group", "aria-label": "Budget" }, h("div", { class: "lead" }, h("h2", { text: "Budget" }), h("div", { class: "with-unit" }, field, unit)), track, outcome);

  let held = null; // the value under the hand, in bytes, until Python has answered to it
  let dragging = false;
  let lastSent = 0;
  let timer;

  const state = () => ctx.get("budget") ?? {};
  const usable = (b) => b.smallest > 0 && b.largest > b.smallest;
  const perUnit = () => UNIT_BYTES[state().unit] ?? 1e6;
  const clamp = (value) => Math.min(state().largest, Math.max(state().smallest, value));
  /** Where a size stands on the rail, 0 to 1. */
  const at = (b, value) => Math.min(1, Math.max(0, STUB + ((1 - STUB - TAIL) * Math.log(value / b.smallest)) / Math.log(b.largest / b.smallest)));
  const percent = (share) => `${Math.round(share * 1e4) / 100}%`;
  const words = (bytes) => (bytes / perUnit()).toFixed(2);
  const difference = (bytes) => { const value = Math.abs(bytes) / perUnit(); return `${value.toFixed(value < 9.995 ? 2 : 1)}\u00a0${state().unit ?? "MB"}`; };

  function send(now) {
    clearTimeout(timer);
    const wait = lastSent + SEND_EVERY - performance.now();
    if (wait > 0 && !now) { timer = setTimeout(() => send(true), wait); return; }
    lastSent = performance.now();
    ctx.emit({ type: "budget", bytes: Math.round(held) });
  }

  /** Move to a value: what is drawn follows at once, Python a moment later. */
  function move(bytes, last = false) {
    held = clamp(bytes);
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
    const step = perUnit() * 10 ** (Math.floor(Math.log10(b.smallest / perUnit())) - 1);
    const now = held ?? b.bytes ?? b.plan_bytes ?? b.largest;
    const by = { ArrowRight: step, ArrowUp: step, ArrowLeft: -step, ArrowDown: -step, PageUp: 10 * step, PageDown: -10 * step }[event.key];
    const to = by ? Math.round((now + by) / step) * step : event.key === "Home" ? b.smallest : event.key === "End" ? b.largest : null;
    if (to === null) return;
    event.preventDefault();
    event.stopPropagation();
    move(to);
  });

  function typed() {
    const value = Number.parseFloat(field.value.replace(",", ".")) * perUnit();
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
  function preview(b, bytes) {
    if (!b.plan_bytes) return [b.verdict, b.kind];
    const over = b.plan_bytes > bytes;
    return [`${difference(bytes - b.plan_bytes)} ${over ? "over" : "under"}`, over ? "over" : "under"];
  }

  function draw() {
    const b = state();
    const ready = usable(b);
    const bytes = held ?? b.bytes;
    const [said, kind] = held === null ? [b.verdict, b.kind] : preview(b, held);
    attr(el, "data-kind", kind);
    text(unit, b.unit ?? "MB");
    if (el.getRootNode().activeElement !== field) field.value = bytes ? (held === null ? b.text : words(bytes)) : "–";
    for (const control of [field, thumb]) attr(control, "disabled", !ready);
    text(verdict, said || "–");
    text(smallest, b.smallest_text ? `smallest ${b.smallest_text}` : "");
    for (const part of [none, fill, thumb]) show(part, ready);
    show(plan, ready && b.plan_bytes);
    show(excess, ready && b.plan_bytes && bytes && b.plan_bytes > bytes);
    if (!ready) { ticks.replaceChildren(); return; }
    none.style.width = percent(STUB);
    const here = bytes ? at(b, bytes) : 1;
    const own = b.plan_bytes ? at(b, b.plan_bytes) : STUB;
    fill.style.left = percent(STUB);
    fill.style.width = percent(Math.max(0, Math.min(here, own) - STUB));
    excess.style.left = percent(here);
    excess.style.width = percent(Math.max(0, own - here));
    plan.style.left = percent(own);
    // The size stands left of the star, unless the rail ends there or the handle is in the way.
    plan.classList.toggle("flip", own < 0.12 || (bytes && own > here && (own - here) * track.clientWidth < 76 && own < 0.9));
    text(planSize, b.plan_text + (b.plan_bytes > b.largest ? " →" : ""));
    thumb.style.left = percent(here);
    attr(thumb, "aria-valuemin", words(b.smallest));
    attr(thumb, "aria-valuemax", words(b.largest));
    attr(thumb, "aria-valuenow", bytes ? words(bytes) : null);
    attr(thumb, "aria-valuetext", bytes ? `${words(bytes)} ${b.unit ?? "MB"}, ${said}` : "no budget");
    keyed(ticks, b.ticks ?? [], (tick) => tick.label, () => h("div", { class: "tick" }, h("span", {}, h("b"), h("em"))), (node, tick) => {
      node.style.left = percent(at(b, tick.bytes));
      text(node.querySelector("b"), tick.label);
      text(node.querySelector("em"), tick.text);
    });
    thin();
  }

  /** Labels that would touch their neighbour lose their size, then their name. */
  function thin() {
    const width = track.clientWidth;
    if (!width) return;
    const nodes = [...ticks.children];
    const centre = (node) => (width * Number.parseFloat(node.style.left)) / 100;
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
      if (held !== null && !dragging && (late || Math.abs((b.bytes ?? 0) - Math.round(held)) < 1.5)) held = null;
      draw();
    },
    close() { clearTimeout(timer); observer.disconnect(); },
  };
}
