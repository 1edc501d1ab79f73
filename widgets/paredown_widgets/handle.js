/**
 * One of the three handles of a scheme: bits, sparsity or rank of the selection. Its two buttons step through what the layers are offered
 * while the other handles stay; its list has every value of the study, and says what would not stay.
 */
import { attr, h, keyed, text } from "./dom.js";
import { gestureId } from "./link.js";

/** The order of the parts in a position such as "4|2:4|16". */
const PARTS = ["bits", "sparsity", "rank"];
const LESS = { bits: "Fewer bits", sparsity: "Denser", rank: "Lower rank" };
const MORE = { bits: "More bits", sparsity: "Sparser", rank: "Higher rank" };
const KEYS = { bits: ["\u2212", "+"], sparsity: ["", "S"], rank: ["", "R"] };
const STEPS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 };

/**
 * @param {import("./link.js").Context} ctx
 * @param {string} id  one of PARTS
 * @param {(message: object) => void} edit  sends a change of the selection
 */
export function createHandle(ctx, id, edit) {
  const part = PARTS.indexOf(id);
  const ends = { "-1": { name: LESS[id], refused: "" }, 1: { name: MORE[id], refused: "" } };
  const step = (by, gesture = gestureId()) => edit({ type: "step", handle: id, by, gesture });
  const end = (by, sign) => h("button", { type: "button", "aria-label": ends[by].name, on: { click: () => press(by) } }, sign);
  const less = end(-1, "\u2212");
  const more = end(1, "+");
  const caption = h("span", { class: "cap", "aria-hidden": "true" });
  const shown = h("output");
  const list = h("select", { on: { change: () => choose(list.value) } });
  const el = h("span", { class: "pd-handle", role: "group", "data-handle": id }, caption, h("span", { class: "stepper" }, less, h("span", { class: "value" }, shown, list), more));

  list.addEventListener("keydown", (event) => {
    const by = STEPS[event.key];
    if (!by || event.altKey) return; // Alt and an arrow open the list
    event.preventDefault();
    event.stopPropagation();
    press(by);
  });

  function press(by) {
    if (!ends[by].refused) step(by);
    else ctx.say(ends[by].refused);
  }
  function choose(rung) {
    const found = own()?.rungs.find((one) => one.id === rung);
    if (found) edit({ type: id, [id]: found.value });
  }

  const offer = () => ctx.get("handles") ?? {};
  const own = () => offer().handles?.find((one) => one.id === id);
  /** What a layer is offered: {at: positions, needs: why not}. */
  const kindOf = (layer) => offer().kinds?.[offer().kind?.[layer] ?? 0];
  const places = new Map(); // of each kind, by its own object: the set of its positions
  const placesOf = (kind) => places.get(kind) ?? places.set(kind, new Set(kind.at)).get(kind);
  const put = (at, rung) => at.split("|").with(part, rung).join("|");

  /** Where the layers stand and what they are offered there, the last layer's last; one for all layers that are alike. */
  function standing(layers) {
    const cells = ctx.get("plan")?.cells ?? {};
    const stands = new Map();
    for (const layer of layers) {
      const [at, kind] = [cells[layer]?.at, kindOf(layer)];
      const like = `${offer().kind?.[layer] ?? 0} ${at}`;
      const stand = stands.get(like);
      stands.delete(like);
      if (at && kind) stands.set(like, stand ?? { at, rung: at.split("|")[part], kind, here: placesOf(kind) });
    }
    return [...stands.values()];
  }

  /** Why no layer can go on in a direction; empty where one can. */
  function refusal(stands, rungs, by) {
    const order = rungs.map((rung) => rung.id);
    const beyond = (stand) => (by > 0 ? order.slice(order.indexOf(stand.rung) + 1) : order.slice(0, Math.max(0, order.indexOf(stand.rung))).reverse());
    if (stands.some((stand) => beyond(stand).some((rung) => stand.here.has(put(stand.at, rung))))) return "";
    const last = stands.at(-1);
    const next = beyond(last)[0];
    const label = (rung) => rungs.find((one) => one.id === rung)?.label ?? rung;
    return next ? `${label(next)}: ${last.kind.needs[put(last.at, next)] ?? ""}` : `${label(last.rung)} is the ${by > 0 ? "most" : "least"} of this study`;
  }

  /** What choosing a value would mean: nothing to say, what would not stay, or why it can't be chosen at all. */
  function outlook(stands, rung) {
    if (stands.some((stand) => stand.here.has(put(stand.at, rung)))) return { text: "", off: false };
    const others = (at, stand) => at.split("|").flatMap((value, i) => (i !== part && value !== stand.at.split("|")[i] ? [PARTS[i]] : []));
    const reached = stands.flatMap((stand) => stand.kind.at.filter((at) => at.split("|")[part] === rung).map((at) => others(at, stand)));
    const fewest = reached.sort((left, right) => left.length - right.length)[0];
    return fewest ? { text: `changes ${fewest.join(" and ")}`, off: false } : { text: "not for this layer", off: true };
  }

  return {
    el,
    step,
    /** Whether the study leaves a choice here. */
    get offered() { return (own()?.rungs.length ?? 0) > 1; },
    /** @param {string[]} layers the selected layers @param {boolean} captioned */
    update(layers, captioned) {
      for (const kind of places.keys()) if (!offer().kinds?.includes(kind)) places.delete(kind);
      const name = own()?.label ?? id;
      const rungs = own()?.rungs ?? [];
      const stands = standing(layers);
      const values = new Set(stands.map((stand) => stand.rung));
      const now = values.size === 1 ? [...values][0] : "";
      const chosen = rungs.find((one) => one.id === now);
      text(caption, captioned ? name : "");
      attr(el, "aria-label", name);
      attr(list, "aria-label", name);
      const word = chosen?.label ?? (now || (values.size ? "mixed" : "–"));
      text(shown, captioned ? chosen?.value ?? word : word);
      shown.classList.toggle("off", now === "none" || !layers.length);
      const options = [{ id: "", label: values.size ? "mixed" : "–" }, ...rungs];
      keyed(list, options, (option) => option.id, (option) => h("option", { value: option.id, hidden: option.id === "" }), (node, option) => {
        const { text: said, off } = option.id && stands.length ? outlook(stands, option.id) : { text: "", off: false };
        text(node, said ? `${option.label}, ${said}` : option.label);
        attr(node, "disabled", off);
      });
      if (list.value !== now) list.value = options.some((option) => option.id === now) ? now : "";
      attr(list, "disabled", !layers.length);
      attr(list, "title", stands.length ? `${name}: ${word}` : null);
      for (const [by, node] of [[-1, less], [1, more]]) {
        ends[by].refused = stands.length ? refusal(stands, rungs, by) : "";
        const key = KEYS[id][by > 0 ? 1 : 0];
        attr(node, "disabled", !layers.length);
        attr(node, "aria-disabled", ends[by].refused ? "true" : null);
        attr(node, "title", ends[by].refused || (key ? `${ends[by].name} (${key})` : ends[by].name));
      }
    },
  };
}
