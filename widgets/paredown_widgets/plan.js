/** The plan: filter and colouring, the grid of layers, the legend, the selection toolbar. The instrument of the explorer. */
import { attr, button, emptyNote, h, icon, keyed, mark, segments, show, text } from "./dom.js";
import { buildGrid, buildOther, neighbour, rectangle } from "./grid.js";
import { gestureId } from "./link.js";
import { createPlanTable } from "./plantable.js";
import { createTip } from "./tip.js";
import { createToolbar } from "./toolbar.js";

/** Drag a cell this far for one step of bits, px. */
const STEP = 14;
/** What the marks of a cell stand for. */
const NAMES = { sparsity: "sparse", rank: "rank" };
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** Grid or table: two signs, one tab stop, arrows move. @param {(id: string) => void} pick */
function createShape(pick) {
  const choices = segments("Plan as", pick);
  choices.el.classList.add("signs");
  return {
    el: choices.el,
    update(now) {
      choices.update([{ id: "grid", label: "" }, { id: "table", label: "" }], now);
      for (const [i, [name, label]] of [["grid", "Grid"], ["rows", "Table"]].entries()) {
        const node = choices.el.children[i];
        if (!node.querySelector("svg")) node.append(icon(name, 13));
        attr(node, "aria-label", label);
        attr(node, "title", label);
      }
    },
  };
}

/** @param {import("./link.js").Context} ctx */
export function createPlan(ctx) {
  const { link } = ctx;
  const filter = h("input", { class: "field filter", type: "text", placeholder: "Filter: block 3-5", "aria-label": "Filter layers", autocomplete: "off", spellcheck: "false" });
  const advice = h("p", { class: "advice", role: "status", hidden: true });
  const hits = h("span", { class: "sub hits", hidden: true });
  const colour = h("select", { class: "field", "aria-label": "Colour by", on: { change: () => ctx.emit({ type: "color_by", id: colour.value }) } });
  const undo = button("Undo", { class: "icon quiet", icon: "undo", press: () => ctx.emit({ type: "undo" }) });
  const redo = button("Redo", { class: "icon quiet", icon: "redo", press: () => ctx.emit({ type: "redo" }) });
  const shape = createShape((id) => { shown = id; drawShape(); });
  const header = h("header", {}, h("h2", { text: "Plan" }), filter, hits, colour, shape.el, h("span", { class: "pair" }, undo, redo));
  const board = h("div", { class: "pd-board" });
  const scale = { name: h("span"), low: h("span"), high: h("span") };
  const ramp = h("i", { "aria-hidden": "true" }, ...[1, 2, 3, 4, 5, 6, 7].map((step) => h("s", { "data-step": step })));
  const kinds = { sparsity: mark("sparse"), rank: mark("rank") };
  const words = { sparsity: h("span", { class: "sign" }), rank: h("span", { class: "sign" }) };
  const legend = h("div", { class: "pd-scale" }, scale.name, scale.low, ramp, scale.high, h("span", { class: "grow" }), kinds.sparsity, words.sparsity, kinds.rank, words.rank, icon("lock", 8), h("span", { text: "locked" }), mark("dot"), h("span", { text: "edited" }));
  const toolbar = createToolbar(ctx);
  const table = createPlanTable(ctx);
  const note = emptyNote();
  const el = h("section", { class: "pd-panel pd-plan", "aria-label": "Plan" }, header, advice, board, table.el, legend, toolbar.el, note.el);
  const tip = createTip(ctx, el);

  let shown = "grid"; // or the table
  let drawn = null; // the grid trait that the board was built from
  let built = null;
  let cells = new Map();
  let active = null; // the cell that is the grid's tab stop
  let anchor = null; // where a rectangle starts
  let drag = null;

  const all = () => [...cells.values()];
  const matching = () => all().filter((cell) => link.matches(cell));
  const cellOf = (event) => event.target.closest?.(".pd-cell[data-layer]");

  /** The colouring's name and unit. */
  function quantity() {
    const { color_options: known, color_by: id, legend: bar } = ctx.get("plan") ?? {};
    return [known?.find((one) => one.id === id)?.label, bar?.unit].filter(Boolean).join(", ");
  }

  /** The quantities under their heads, or in one list where they have none. */
  function drawColours(options, chosen) {
    const draw = (parent, list) => keyed(parent, list, (one) => one.id, (one) => h("option", { value: one.id }), (node, one) => text(node, one.label));
    const heads = [...new Set(options.map((one) => one.group ?? ""))];
    if (heads.length < 2) draw(colour, options);
    else keyed(colour, heads, (head) => `group ${head}`, (head) => h("optgroup", { label: head }), (node, head) => draw(node, options.filter((one) => one.group === head)));
    if (colour.value !== chosen) colour.value = chosen ?? "";
  }

  /** The grid, or the table in its place. */
  function drawShape() {
    const ready = Boolean(cells.size);
    shape.update(shown);
    for (const part of [board, legend]) show(part, ready && shown === "grid");
    table.open(ready && shown === "table");
  }

  function build(grid) {
    drawn = grid;
    built = buildGrid(grid, quantity);
    const other = buildOther(grid, quantity);
    cells = new Map([...built.cells, ...other.cells]);
    // One width of labels for both grids, so that their cells stand in line.
    const longest = Math.max(...(built.turned ? grid.columns : grid.blocks).map((line) => String(line.label).length), 0);
    board.style.setProperty("--label", `${Math.round(Math.min(88, Math.max(46, 6.4 * longest)))}px`);
    board.replaceChildren(built.el, other.el);
    active = cells.has(active) ? active : cells.keys().next().value;
    ctx.cells = cells;
  }

  function drawSelection() {
    const chosen = new Set(link.selection);
    const last = link.selection.at(-1);
    if (cells.has(last) && !el.contains(el.getRootNode().activeElement)) active = last;
    for (const [layer, { view }] of cells) {
      view.el.classList.toggle("sel", chosen.has(layer));
      attr(view.el, view.el.getAttribute("role") === "button" ? "aria-pressed" : "aria-selected", chosen.has(layer) ? "true" : "false");
      attr(view.el, "tabindex", layer === active ? 0 : -1);
    }
    toolbar.update();
  }

  function drawHover() {
    const cell = cells.get(link.hover);
    for (const [layer, { view }] of cells) view.el.classList.toggle("hover", layer === link.hover);
    for (const head of board.querySelectorAll("[data-line]")) {
      const on = cell && String(cell[head.dataset.line] ?? "") === head.dataset.id;
      head.classList.toggle("on", Boolean(on));
    }
  }

  function drawFilter() {
    for (const cell of cells.values()) cell.view.el.classList.toggle("dim", !link.matches(cell));
    const own = ctx.get("plan")?.filter;
    const wrong = own?.text === link.filter ? own.wrong : "";
    text(hits, wrong ? "?" : own?.text === link.filter && own.note ? own.note : String(matching().length));
    attr(hits, "title", wrong || null);
    show(hits, link.filter);
    attr(filter, "aria-invalid", wrong ? "true" : null);
    text(advice, wrong);
    show(advice, wrong);
  }

  /** The legend of sparsity and rank, where the plan has them: by an example, or by its sign where cells are too small for words. */
  function drawMarks(states) {
    for (const [name, word] of Object.entries(NAMES)) {
      const example = Object.values(states).find((cell) => cell[name])?.[name];
      const printed = example && (built?.turned || !board.classList.contains("amounts"));
      show(words[name], printed);
      attr(kinds[name], "hidden", !printed || !built?.turned);
const parts = !example ? [] : built?.turned ? [word] : [example, `\u00a0${word}`];
      if (words[name].textContent !== parts.join("")) words[name].replaceChildren(...(parts.length > 1 ? [h("b", { text: parts[0] }), parts[1]] : parts));
    }
  }

  /** Move the tab stop, and the focus when it is in the grid. */
  function focusCell(layer) {
    active = layer;
    for (const [name, { view }] of cells) attr(view.el, "tabindex", name === active ? 0 : -1);
    cells.get(layer)?.view.el.focus({ preventScroll: false });
  }

  function choose(layer, event) {
    if (event.shiftKey && anchor) link.select(rectangle(built.order, anchor, layer), event.ctrlKey || event.metaKey ? "extend" : "replace");
    else {
      anchor = layer;
      link.select([layer], event.ctrlKey || event.metaKey ? "toggle" : "replace");
    }
    focusCell(layer);
  }

  board.addEventListener("click", (event) => {
    const line = event.target.closest("[data-line]");
    const mode = event.shiftKey || event.ctrlKey || event.metaKey ? "extend" : "replace";
    if (line) link.select(all().filter((cell) => String(cell[line.dataset.line] ?? "") === line.dataset.id).map((cell) => cell.layer), mode);
    else if (cellOf(event) && !drag?.steps) choose(cellOf(event).dataset.layer, event);
    drag = null;
  });

  board.addEventListener("pointerdown", (event) => {
    const cell = cellOf(event);
    drag = null;
    tip.hide();
    if (!cell || event.button !== 0 || event.shiftKey || event.ctrlKey || event.metaKey) return;
    drag = { layer: cell.dataset.layer, y: event.clientY, steps: 0, at: 0, gesture: gestureId() };
    cell.setPointerCapture(event.pointerId);
  });
  board.addEventListener("pointermove", (event) => {
    if (!drag || !event.buttons) return;
    const at = Math.round((drag.y - event.clientY) / STEP);
    if (at === drag.at) return;
    if (!link.selection.includes(drag.layer)) { anchor = drag.layer; link.select([drag.layer]); }
    const by = Math.sign(at - drag.at);
    for (; drag.at !== at; drag.at += by, drag.steps++) toolbar.step(by, drag.gesture);
  });
  board.addEventListener("pointercancel", () => { drag = null; });

  board.addEventListener("keydown", (event) => {
    const layer = cellOf(event)?.dataset.layer;
    const by = ARROWS[event.key];
    if (!layer || event.altKey) return;
    if (by || event.key === "Home" || event.key === "End") {
      const next = by ? step(layer, by) : edge(layer, event.key === "End");
      if (event.shiftKey) { anchor ??= layer; link.select(rectangle(built.order, anchor, next)); } else if (!event.ctrlKey && !event.metaKey) { anchor = next; link.select([next]); }
      focusCell(next);
    } else if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey) ctx.open(layer);
    else if (event.key === "Enter" || event.key === " ") choose(layer, event);
    else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) link.select(matching().map((cell) => cell.layer));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  /** One arrow press: inside the grid, down from it to the other layers, and among those. */
  function step(layer, by) {
    const others = all().filter((cell) => cell.block === null).map((cell) => cell.layer);
    const at = others.indexOf(layer);
    if (at >= 0) {
      if (by[0] < 0) return built.order.at(-1)?.find(Boolean) ?? layer;
      return others[Math.max(0, Math.min(others.length - 1, at + by[1]))];
    }
    const next = neighbour(built.order, layer, by);
    return next === layer && by[0] > 0 && others.length ? others[0] : next;
  }
  function edge(layer, end) {
    const line = (built.order.find((row) => row.includes(layer)) ?? [layer]).filter(Boolean);
    return end ? line.at(-1) : line[0];
  }

  filter.addEventListener("input", () => { link.filter = filter.value; });
  filter.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { const found = matching().map((cell) => cell.layer); if (found.length) { link.select(found); ctx.say(`${found.length} layers selected`); } }
    if (event.key === "Escape") { filter.value = ""; link.filter = ""; }
  });
  link.on("selection", drawSelection);
  link.on("hover", drawHover);
  link.on("filter", drawFilter);

  return {
    el,
    needs: ["grid", "handles", "plan", "sensitivity"],
    close: () => table.close(),
    update() {
      const grid = ctx.get("grid");
      const plan = ctx.get("plan") ?? {};
      const ready = Boolean(grid?.cells?.length || grid?.other?.length);
      note.update(ready ? "" : plan.empty || "The layers appear here once the model is loaded.");
      for (const part of [toolbar.el, shape.el]) show(part, ready);
      for (const field of [filter, colour]) attr(field, "disabled", !ready);
      if (ready && grid !== drawn && JSON.stringify(grid) !== JSON.stringify(drawn)) build(grid);
      link.settle();
      for (const [layer, { view }] of cells) view.update(plan.cells?.[layer]);
      drawColours(plan.color_options ?? [], plan.color_by);
      attr(colour, "title", plan.color_title || null);
      const amounts = Object.values(plan.cells ?? {}).some((cell) => cell.value);
      board.classList.toggle("amounts", amounts);
      attr(undo, "disabled", !plan.can_undo);
      attr(redo, "disabled", !plan.can_redo);
      attr(undo, "title", plan.undo_label ? `Undo ${plan.undo_label} (Ctrl Z)` : "Undo (Ctrl Z)");
      attr(redo, "title", "Redo (Ctrl Shift Z)");
      const bar = plan.legend ?? {};
      text(scale.name, (plan.color_options ?? []).find((option) => option.id === plan.color_by)?.label);
      show(scale.name, !amounts || !toolbar.rich); // the list above names it too
      text(scale.low, bar.low);
      text(scale.high, [bar.high, bar.unit].filter(Boolean).join("\u00a0"));
      drawMarks(plan.cells ?? {});
      if (ready) { drawSelection(); drawHover(); drawFilter(); }
      drawShape();
      el.classList.toggle("rich", toolbar.rich);
      tip.refresh();
    },
    toolbar,
    /** The pointer is over this element now. @param {Element|null} target @param {boolean} pressed */
    point(target, pressed) {
      const cell = target && board.contains(target) ? target.closest(".pd-cell[data-layer]") : null;
      if (cell && !pressed) tip.soon(cells.get(cell.dataset.layer), cell); else tip.hide();
    },
  };
}
