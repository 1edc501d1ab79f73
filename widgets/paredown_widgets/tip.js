/** The what-if table: what the layer under the pointer would cost under other schemes. It docks beside the grid and never covers neighbours. */
import { h, keyed, rich, show, text } from "./dom.js";

/** The pointer rests this long before the table appears, ms. */
const REST = 250;

/** @param {import("./link.js").Context} ctx @param {HTMLElement} panel */
export function createTip(ctx, panel) {
  const name = h("b");
  const state = h("span");
  const module = h("div", { class: "sub module" });
  const head = h("tr");
  const body = h("tbody");
  const table = h("table", {}, h("thead", {}, head), body);
  const note = h("div", { class: "sub" });
  const el = h("div", { class: "pd-tip", role: "tooltip", hidden: true }, h("div", {}, name, state), module, table, note);
  let timer;
  let filled = null; // the cell that is told about

  function fill(cell) {
    filled = cell;
    const now = ctx.get("plan")?.cells?.[cell.layer];
    const what = ctx.get("what_if");
    const rows = what?.rows?.[cell.layer] ?? [];
    text(name, cell.label);
    text(state, [now?.said ? `, ${now.said}` : "", now?.locked ? ", locked" : "", cell.shape ? `, ${cell.shape}` : ""].join(""));
    text(module, cell.layer);
    keyed(head, rows.length ? what.columns : [], (label) => label, () => h("th"), (node, label) => rich(node, label));
    const groups = new Set(rows.map((row) => row.group));
    const lines = rows.flatMap((row, i) => (groups.size > 1 && row.group !== rows[i - 1]?.group ? [{ head: row.group }, row] : [row]));
    keyed(body, lines, (line) => line.head ?? line.scheme, (line) => h("tr", { class: line.head ? "group" : null }), (node, line) => {
      node.classList.toggle("now", !line.head && line.scheme === now?.scheme);
      keyed(node, line.head ? [line.head] : line.cells, (_, i) => String(i), () => h("td", { colspan: line.head ? 3 : null }), (cell, value, i) => { cell.className = i && i === line.cells.length - 1 ? "pred" : ""; rich(cell, value); });
    });
    show(table, rows.length);
    rich(note, what?.note?.[cell.layer] ?? "");
    show(note, note.textContent);
  }

  function place(anchor) {
    const host = el.parentElement.getBoundingClientRect();
    const at = anchor.getBoundingClientRect();
    const beside = panel.getBoundingClientRect().right - host.left - 6;
    const fits = beside + el.offsetWidth < host.width;
    el.style.left = `${fits ? beside : Math.max(4, Math.min(at.left - host.left, host.width - el.offsetWidth - 8))}px`;
    el.style.top = `${fits ? Math.min(at.top - host.top - 4, host.height - el.offsetHeight - 8) : at.bottom - host.top + 7}px`;
  }

  return {
    el,
    /** @param {any} cell @param {HTMLElement} anchor */
    soon(cell, anchor) {
      clearTimeout(timer);
      timer = setTimeout(() => {
        if (!anchor.isConnected || !cell) return;
        if (!el.isConnected) panel.closest(".pd").append(el);
        fill(cell);
        show(el, true);
        place(anchor);
      }, REST);
    },
    /** The plan changed while the table is open. */
    refresh() { if (filled && el.isConnected && !el.hidden) fill(filled); },
    hide() { clearTimeout(timer); show(el, false); },
  };
}
