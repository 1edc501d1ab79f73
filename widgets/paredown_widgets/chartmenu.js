/** The menu of a chart: as a picture, as code, and its data as a table that a screen reader can read and a program can take. */
import { attr, button, h, text } from "./dom.js";
import { createMenu } from "./menu.js";

/** How long "Copied" stands in the menu, ms. */
const COPIED_FOR = 1200;

/** Hand a file to the browser. @param {string} name @param {string} address */
function download(name, address) {
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

/** @param {string[][]} lines */
const asCsv = (lines) => lines.map((line) => line.map((cell) => (/[",\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell)).join(",")).join("\r\n");

/**
 * @param {import("./link.js").Context} ctx
 * @param {{name: string, title: string, figure: () => string, chart?: any, table: () => {columns: string[], rows: string[][]}}} options  `figure`: what explorer.figure calls it
 */
export function createChartMenu(ctx, options) {
  const menu = createMenu("Take the chart away", { class: "icon quiet", icon: "more", label: options.title, title: `${options.title}: picture, code, table` });
  const entry = (label, note, act) => menu.item({ on: { click: act } }, h("b", { text: label }), h("span", { text: note }));
  const picture = (format) => async () => { menu.done(); download(`${options.name}.${format}`, await options.chart.image(format)); };
  const code = entry("Copy as plotly figure", "Python with the data in it", () => {
    ctx.emit({ type: "copy_figure", name: options.figure() });
    text(code.firstChild, "Copied");
    setTimeout(() => { text(code.firstChild, "Copy as plotly figure"); menu.toggle(false); }, COPIED_FOR);
  });
  const table = entry("Show as table", "the same data in rows", () => { menu.toggle(false); openTable(options, menu.opener); });
  if (options.chart) menu.list.append(entry("Save as PNG", "as on the screen, three times as fine", picture("png")), entry("Save as SVG", "as on the screen", picture("svg")));
  menu.list.append(code, table);
  if (ctx.get("offline")) code.remove(); // Python writes it
  return { el: menu.el, close: menu.close };
}

/** A sheet over the explorer with a chart's data; Escape closes it. */
function openTable(options, opener) {
  const { columns, rows } = options.table();
  const close = () => { sheet.remove(); opener.focus(); };
  const head = h("header", {}, h("h2", { text: options.title }), h("span", { class: "sub", text: `${rows.length} rows` }), h("span", { class: "grow" }),
    button("Save as CSV", { class: "small", press: () => download(`${options.name}.csv`, URL.createObjectURL(new Blob([asCsv([columns, ...rows])], { type: "text/csv" }))) }),
    button("Close", { class: "quiet icon", icon: "close", press: close }));
  const cells = (line, tag) => line.map((cell, i) => h(tag && i === 0 ? "th" : tag ? "td" : "th", { scope: tag ? (i === 0 ? "row" : null) : "col", text: cell }));
  const body = h("table", { class: "pd-tbl" }, h("caption", { class: "sr", text: options.title }), h("thead", {}, h("tr", {}, ...cells(columns, ""))), h("tbody", {}, ...rows.map((row) => h("tr", {}, ...cells(row, "td")))));
  const scroll = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `${options.title}, table` }, body);
  const sheet = h("div", { class: "pd-sheet", role: "dialog", "aria-label": `${options.title} as a table` }, head, scroll);
  sheet.addEventListener("keydown", (event) => { if (event.key === "Escape") { close(); event.preventDefault(); } event.stopPropagation(); });
  opener.closest(".pd").append(sheet);
  attr(sheet, "data-rows", rows.length);
  scroll.focus();
}
