/**
 * The plan as a table that is edited: a row a layer, sorted by any column. Only the rows in sight exist, so that 500 layers cost what 20 do.
 *
 * The focus moves as in a grid: up and down to another layer, which is selected, left and right among its cells. Enter opens the list of a
 * value, space locks; all keys of the plan (digits, +, -, S, R, L) work on what is selected.
 */
import { attr, h, icon, keyed, show, text } from "./dom.js";

const ROW_HEIGHT = 24;
/** Rows beyond the edges that are kept ready. */
const SPARE_ROWS = 6;
const WIDTHS = { layer: "minmax(0, 1fr)", bits: "42px", sparsity: "64px", rank: "46px", lock: "40px", size: "46px", loss: "64px" };
const HANDLE_COLUMNS = ["bits", "sparsity", "rank"];

/** @param {import("./link.js").Context} ctx */
export function createPlanTable(ctx) {
  const { link } = ctx;
  const head = h("div", { class: "row head", role: "row", "aria-rowindex": 1 });
  const rows = h("div", { class: "rows", role: "presentation" });
  const body = h("div", { class: "body", role: "rowgroup" }, rows);
  const el = h("div", { class: "pd-table", role: "grid", "aria-label": "Plan, a row a layer", "aria-multiselectable": "true", hidden: true }, h("div", { class: "heads", role: "rowgroup" }, head), body);
  let order = { id: "layer", down: false };
  let lines = []; // the layers in the order and under the filter that hold now
  let focus = { layer: "", column: "layer" };
  let anchor = null;
  let waiting = false;

  const cells = () => ctx.get("plan")?.cells ?? {};
  const rungs = (id) => ctx.get("handles")?.handles?.find((one) => one.id === id)?.rungs ?? [];
  const placeOf = (cell, id) => cell?.at?.split("|")[HANDLE_COLUMNS.indexOf(id)];
  const losses = () => new Map((ctx.get("sensitivity")?.rows ?? []).map((row) => [row.layer, row]));
  const wording = (id, cell) => { const rung = rungs(id).find((one) => one.id === placeOf(cell, id)); return id === "bits" ? cell?.text : rung?.id === "none" ? "–" : String(rung?.value ?? "–"); };

  /** The columns that this study has: sparsity and rank where there is a choice of them. */
  function columns() {
    const sensitivity = ctx.get("sensitivity");
    return [
      { id: "layer", label: "Layer", key: (layer, i) => i },
      ...HANDLE_COLUMNS.filter((id) => id === "bits" || rungs(id).length > 1).map((id) => ({ id, label: { bits: "Bits", sparsity: "Sparsity", rank: "Rank" }[id], key: (layer) => rungs(id).findIndex((rung) => rung.id === placeOf(cells()[layer], id)) })),
      { id: "lock", label: "Lock", key: (layer) => (cells()[layer]?.locked ? 0 : 1) },
      { id: "size", label: "kB", key: (layer) => cells()[layer]?.bytes ?? -1 },
      { id: "loss", label: sensitivity?.unit ?? "", title: `${sensitivity?.what ?? "Loss"}, ${sensitivity?.unit ?? ""}`, key: (layer, i, known) => known.get(layer)?.value ?? -Infinity },
    ];
  }

  function arrange() {
    const known = losses();
    const column = columns().find((one) => one.id === order.id) ?? columns()[0];
    const all = [...(ctx.cells?.values() ?? [])].filter((cell) => link.matches(cell)).map((cell, i) => ({ layer: cell.layer, key: column.key(cell.layer, i, known), i }));
    const name = (one) => ctx.cells.get(one.layer).label;
    lines = all.sort((left, right) => (order.down ? -1 : 1) * (left.key - right.key) || (order.id === "layer" ? left.i - right.i : name(left).localeCompare(name(right), undefined, { numeric: true }))).map((one) => one.layer);
    if (!lines.includes(focus.layer)) focus = { ...focus, layer: link.selection.find((layer) => lines.includes(layer)) ?? lines[0] ?? "" };
  }

  function sortBy(id) {
    order = { id, down: order.id === id ? !order.down : id === "loss" || id === "size" };
    update();
    body.scrollTop = 0;
  }

  function createRow(layer) {
    const row = h("div", { class: "row", role: "row", "data-layer": layer });
    for (const column of columns()) row.append(h("span", { class: `c ${column.id}`, role: column.id === "layer" ? "rowheader" : "gridcell", tabindex: -1, "data-column": column.id }));
    return row;
  }

  function updateRow(row, layer, known, chosen) {
    const cell = cells()[layer] ?? {};
    const label = ctx.cells.get(layer)?.label ?? layer;
    attr(row, "aria-rowindex", lines.indexOf(layer) + 2);
    attr(row, "aria-selected", chosen.has(layer) ? "true" : "false");
    row.style.top = `${lines.indexOf(layer) * ROW_HEIGHT}px`;
    row.classList.toggle("hover", layer === link.hover);
    row.classList.toggle("edited", Boolean(cell.edited));
    for (const place of row.children) {
      const id = place.dataset.column;
      attr(place, "tabindex", layer === focus.layer && id === focus.column ? 0 : -1);
      if (place.querySelector("select")) continue; // being edited
      if (id === "layer") { text(place, label); attr(place, "title", layer); }
      else if (id === "lock") {
        if (!place.firstChild) place.append(icon("lock", 10));
        attr(place.firstChild, "hidden", !cell.locked);
        attr(place, "aria-label", cell.locked ? `${label} is locked` : `${label} is not locked`);
      } else if (id === "size") text(place, cell.bytes === undefined ? "–" : thousand(cell.bytes));
      else if (id === "loss") text(place, known.get(layer)?.text ?? "–");
      else { text(place, wording(id, cell)); attr(place, "aria-haspopup", "listbox"); attr(place, "aria-readonly", cell.locked ? "true" : null); attr(place, "data-step", id === "bits" ? bitStep(cell) : null); }
    }
  }
  const thousand = (bytes) => { const value = bytes / 1e3; return value >= 100 ? Math.round(value).toLocaleString("en") : value.toPrecision(3); };
  const bitStep = (cell) => (ctx.get("plan")?.color_by === "bits" ? cell.color : null);

  function draw() {
    waiting = false;
    if (el.hidden) return;
    const first = Math.max(0, Math.floor(body.scrollTop / ROW_HEIGHT) - SPARE_ROWS);
    const seen = lines.slice(first, first + Math.ceil(body.clientHeight / ROW_HEIGHT) + 2 * SPARE_ROWS);
    if (focus.layer && !seen.includes(focus.layer) && rows.contains(el.getRootNode().activeElement)) seen.push(focus.layer); // what has the focus stays
    const [known, chosen] = [losses(), new Set(link.selection)];
    rows.style.height = `${lines.length * ROW_HEIGHT}px`;
    attr(el, "aria-rowcount", lines.length + 1);
    keyed(rows, seen, (layer) => layer, createRow, (row, layer) => updateRow(row, layer, known, chosen));
  }
  const soon = () => { if (!waiting) { waiting = true; requestAnimationFrame(draw); } };

  function update() {
    if (el.hidden) return;
    const shown = columns();
    attr(el, "aria-colcount", shown.length);
    el.dataset.columns = shown.map((column) => column.id).join(" ");
    if (rows.firstChild && [...rows.firstChild.children].map((one) => one.dataset.column).join(" ") !== el.dataset.columns) rows.replaceChildren();
    el.style.setProperty("--columns", shown.map((column) => WIDTHS[column.id]).join(" "));
    keyed(head, shown, (column) => column.id, (column) => h("span", { role: "columnheader", class: `c ${column.id}` }, h("button", { type: "button", on: { click: () => sortBy(column.id) } })), (node, column) => {
      text(node.firstChild, column.label);
      attr(node.firstChild, "title", column.title ?? `Sort by ${column.label.toLowerCase()}`);
      attr(node, "aria-sort", order.id === column.id ? (order.down ? "descending" : "ascending") : "none");
    });
    arrange();
    draw();
  }

  /** Bring a cell into sight and give it the focus. */
  function go(layer, column = focus.column) {
    focus = { layer, column };
    const top = lines.indexOf(layer) * ROW_HEIGHT;
    if (top < body.scrollTop) body.scrollTop = top;
    else if (top + ROW_HEIGHT > body.scrollTop + body.clientHeight) body.scrollTop = top + ROW_HEIGHT - body.clientHeight;
    draw();
    rows.querySelector(`[data-layer="${CSS.escape(layer)}"] > [data-column="${column}"]`)?.focus({ preventScroll: true });
  }

  /** The layers that an edit in a row means: all that are selected, when that row is. */
  const meant = (layer) => (link.selection.includes(layer) ? link.selection : [layer]).filter((one) => !cells()[one]?.locked);

  /** Put the list of a value in place of it. */
  function edit(layer, id) {
    if (cells()[layer]?.locked) { ctx.say("Locked: press L to unlock"); return; }
    const place = rows.querySelector(`[data-layer="${CSS.escape(layer)}"] > [data-column="${id}"]`);
    const kind = ctx.get("handles")?.kinds?.[ctx.get("handles").kind?.[layer] ?? 0];
    const reached = new Set((kind?.at ?? []).map((at) => at.split("|")[HANDLE_COLUMNS.indexOf(id)]));
    const list = h("select", { class: "field", "aria-label": `${id} of ${ctx.cells.get(layer)?.label}` }, ...rungs(id).map((rung) => h("option", { value: rung.id, text: rung.label, disabled: !reached.has(rung.id) })));
    list.value = placeOf(cells()[layer], id);
    let open = true;
    const close = (refocus) => { if (!open) return; open = false; list.remove(); draw(); if (refocus) go(layer, id); }; // removing it blurs it, which closes it again
    list.addEventListener("change", () => {
      const rung = rungs(id).find((one) => one.id === list.value);
      if (rung) ctx.emit({ type: id, layers: meant(layer), [id]: rung.value });
      close(true);
    });
    list.addEventListener("blur", () => close(false));
    list.addEventListener("keydown", (event) => { if (event.key === "Escape") { event.preventDefault(); close(true); } event.stopPropagation(); });
    place.replaceChildren(list);
    list.focus();
    try { list.showPicker?.(); } catch { /* only after a press of the person's own: the list is there all the same */ }
  }

  const lock = (layer) => { const layers = link.selection.includes(layer) ? [...link.selection] : [layer]; ctx.emit({ type: "lock", layers, locked: !cells()[layer]?.locked }); };

  function choose(layer, event) {
    if (event.shiftKey && anchor && lines.includes(anchor)) {
      const [from, to] = [lines.indexOf(anchor), lines.indexOf(layer)].sort((left, right) => left - right);
      link.select(lines.slice(from, to + 1), "replace");
    } else {
      anchor = layer;
      link.select([layer], event.ctrlKey || event.metaKey ? "toggle" : "replace");
    }
  }

  rows.addEventListener("click", (event) => {
    const place = event.target.closest("[data-column]");
    if (!place || event.target.closest("select")) return;
    const [layer, id] = [place.parentElement.dataset.layer, place.dataset.column];
    const plain = !event.shiftKey && !event.ctrlKey && !event.metaKey;
    if (!(plain && link.selection.includes(layer) && id !== "layer")) choose(layer, event); // a value of one of several selected is set for all of them
    go(layer, id);
    if (plain && HANDLE_COLUMNS.includes(id)) edit(layer, id);
    if (plain && id === "lock") lock(layer);
  });
  rows.addEventListener("dblclick", (event) => { if (!event.target.closest(".c.layer")) event.stopPropagation(); });
  rows.addEventListener("keydown", (event) => {
    const place = event.target.closest("[data-column]");
    if (!place || event.altKey) return;
    const [layer, id] = [place.parentElement.dataset.layer, place.dataset.column];
    const at = lines.indexOf(layer);
    const page = Math.max(1, Math.floor(body.clientHeight / ROW_HEIGHT) - 1);
    const down = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }[event.key];
    const across = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const ends = event.ctrlKey || event.metaKey ? { Home: 0, End: lines.length - 1 }[event.key] : undefined;
    if (down || ends !== undefined) {
      const next = lines[Math.max(0, Math.min(lines.length - 1, ends ?? at + down))];
      if (event.shiftKey) anchor ??= layer;
      choose(next, event.shiftKey ? event : {});
      go(next, id);
    } else if (across || event.key === "Home" || event.key === "End") {
      const ids = columns().map((column) => column.id);
      go(layer, event.key === "Home" ? ids[0] : event.key === "End" ? ids.at(-1) : ids[Math.max(0, Math.min(ids.length - 1, ids.indexOf(id) + across))]);
    } else if ((event.key === "Enter" || event.key === "F2") && HANDLE_COLUMNS.includes(id)) edit(layer, id);
    else if (event.key === "Enter" && id === "layer") ctx.open(layer);
    else if (event.key === " " && id === "lock") lock(layer);
    else if (event.key === " ") choose(layer, event);
    else if (event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey)) link.select([...lines], "replace");
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  body.addEventListener("scroll", soon, { passive: true });
  const observer = new ResizeObserver(soon);
  observer.observe(body);
  link.on("selection", soon);
  link.on("hover", soon);
  link.on("filter", () => { if (!el.hidden) { arrange(); soon(); } });

  return {
    el, update,
    /** @param {boolean} open */
    open(open) { show(el, open); if (open) update(); },
    close() { observer.disconnect(); },
  };
}
