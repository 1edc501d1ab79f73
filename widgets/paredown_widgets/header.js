/** Line 1: which model on which data, the yardsticks that never scroll away, copy as Python, export. */
import { attr, button, h, icon, keyed, show, text } from "./dom.js";
import { createMenu } from "./menu.js";

/** "85.8 % ± 1.6, n 500" -> ["85.8 %", " ± 1.6, n 500"]: the number with its unit is what is read, the rest explains it. */
function splitFact(value) {
  const found = String(value ?? "–").match(/^([\d.,\u2212-]+(?:[ \u00a0\u202f][^\s±,]+)?)(.*)$/s);
  return found ? [found[1], found[2]] : [value ?? "–", ""];
}

/** @param {import("./link.js").Context} ctx */
export function createHeader(ctx) {
  const model = h("b");
  const task = h("span", { class: "sub" });
  const notice = h("span", { class: "chip warn", hidden: true });
  const facts = h("div", { class: "pd-facts" });
  const copy = button("Copy as Python", { class: "quiet", icon: "code", press: () => ctx.emit({ type: "copy_python" }) });
  const menu = exportMenu(ctx);
  const el = h("div", { class: "pd-head" }, h("div", { class: "pd-id" }, model, task, notice), facts, h("div", { class: "pd-actions" }, copy, menu.el));

  let copied = ctx.get("clipboard")?.n ?? 0;
  async function copyText() {
    const { n = 0, text: code = "", what = "python" } = ctx.get("clipboard") ?? {};
    if (n <= copied) return;
    copied = n;
    if (what !== "python") { ctx.say((await toClipboard(code)) ? "Copied" : "Copying was refused"); return; } // a chart's menu shows it itself
    const label = copy.querySelector("span");
    text(label, (await toClipboard(code)) ? "Copied" : "Copying was refused");
    copy.firstChild.replaceWith(icon("check"));
    ctx.say(label.textContent);
    setTimeout(() => { text(label, "Copy as Python"); copy.firstChild.replaceWith(icon("code")); }, 1600);
  }

  return {
    el,
    needs: ["head", "export", "clipboard"],
    update() {
      const head = ctx.get("head") ?? {};
      text(model, head.model ?? "Paredown");
      text(task, head.task);
      text(notice, head.notice);
      attr(notice, "title", head.notice);
      show(notice, head.notice);
      const rows = [["Baseline", head.baseline], ["Original", head.original], ["Study", head.study], ["Split", head.split]].filter(([, value]) => value);
      keyed(facts, rows, ([name]) => name,
        ([name]) => h("div", { class: name === "Study" || name === "Split" ? "opt" : "" }, h("span", { class: "of", text: name }), h("b"), h("small")),
        (row, [, value]) => {
          const [main, rest] = splitFact(value);
          text(row.querySelector("b"), main);
          text(row.querySelector("small"), rest);
        });
      menu.update();
      copyText();
    },
    close: menu.close,
  };
}

/** Write to the clipboard; where the page may not (http, some frames), through a selected text field. */
export async function toClipboard(code) {
  try { await navigator.clipboard.writeText(code); return true; } catch { /* the older way below */ }
  const field = h("textarea", { style: "position:fixed;opacity:0", "aria-hidden": "true" });
  field.value = code;
  const before = /** @type {HTMLElement|null} */ (document.activeElement);
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  before?.focus();
  return done;
}

/** The button Export with its menu: what a format or a program that is not there refuses is listed with the reason and cannot be pressed. */
function exportMenu(ctx) {
  const menu = createMenu("Export", { icon: "down", label: "Export this plan", opened: () => ctx.emit({ type: "exports_opened" }) });
  menu.pop.classList.add("wide");
  const status = h("p", { class: "status", role: "status" });
  menu.pop.append(status);
  menu.list.addEventListener("click", (event) => {
    const item = event.target.closest("[data-target]");
    if (item && item.getAttribute("aria-disabled") !== "true") ctx.emit({ type: "export", target: item.dataset.target });
  });

  let before = "";
  return {
    el: menu.el, close: menu.close,
    update() {
      const state = ctx.get("export") ?? {};
      const targets = state.targets ?? [];
      keyed(menu.list, targets, (target) => target.id,
        (target) => menu.item({ "data-target": target.id }, h("b"), h("span")),
        (item, target) => {
          attr(item, "aria-disabled", target.refused ? "true" : "false");
          text(item.firstChild, target.label);
          text(item.lastChild, target.refused || target.note);
        });
      text(status, state.status || (targets.length ? "" : "There is no plan to export yet."));
      attr(status, "data-kind", state.kind);
      show(status, status.textContent);
      if (state.status && state.status !== before) menu.toggle(true, false);
      before = state.status;
    },
  };
}
