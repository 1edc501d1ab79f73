/** The two menus of "This plan": whole plans to load or to save by a name, and the steps that were taken. */
import { attr, button, h, icon, keyed, show, text } from "./dom.js";
import { createMenu } from "./menu.js";

/** @param {import("./link.js").Context} ctx */
export function createPlansMenu(ctx) {
  const menu = createMenu("Plans", { class: "quiet small", label: "Load a whole plan", title: "Presets, and the plans that you saved" });
  const field = h("input", { class: "field", type: "text", maxlength: 60, placeholder: "Name of this plan", "aria-label": "Name to save this plan by", autocomplete: "off", spellcheck: "false" });
  const form = h("form", { class: "save" }, field, button("Save", { press: save }));
  menu.pop.append(form);

  function save(event) {
    event?.preventDefault();
    if (!field.value.trim()) { field.focus(); return; }
    ctx.emit({ type: "save_plan", name: field.value });
    field.value = "";
    menu.done();
  }
  form.addEventListener("submit", save);
  menu.list.addEventListener("click", (event) => {
    const item = event.target.closest("[role^=menuitem]");
    if (!item || item.getAttribute("aria-disabled") === "true") return;
    if (item.dataset.forget !== undefined) { ctx.emit({ type: "forget_plan", name: item.dataset.forget }); ctx.say(`Removed ${item.dataset.forget}`); return; }
    ctx.emit({ type: "preset", id: item.dataset.plan });
    menu.done();
  });

  const createLine = (one) => {
    const load = menu.item({ class: "item line", "data-plan": one.plan }, h("b"), h("span"));
    const forget = one.saved ? h("button", { type: "button", role: "menuitem", class: "forget", tabindex: -1, "data-forget": one.plan, "aria-label": `Remove ${one.plan}`, title: "Remove" }, icon("close", 11)) : null;
    return h("div", { class: "pair", role: "none" }, load, forget);
  };
  const updateLine = (node, one) => {
    const load = node.firstChild;
    attr(load, "aria-disabled", one.refused ? "true" : "false");
    attr(load, "aria-current", one.now ? "true" : null);
    text(load.firstChild, one.label);
    text(load.lastChild, one.refused || one.note);
  };

  return {
    el: menu.el, close: menu.close,
    update() {
      const state = ctx.get("presets") ?? {};
      const groups = (state.groups ?? []).map((group) => ({ label: group.label, items: group.items.map((item) => ({ ...item, plan: item.id })) }));
      const saved = (state.saved ?? []).map((one) => ({ ...one, plan: one.name, label: one.name, saved: true }));
      if (saved.length) groups.push({ label: "Saved", items: saved });
      keyed(menu.list, groups, (group) => group.label, (group) => h("div", { role: "group", "aria-label": group.label }, h("div", { class: "cap", role: "none" }), h("div", { role: "none" })), (node, group) => {
        text(node.firstChild, group.label);
        keyed(node.lastChild, group.items, (item) => item.plan, createLine, updateLine);
      });
      attr(menu.opener, "disabled", !groups.length);
      show(form, !ctx.get("offline"));
    },
  };
}

/** @param {import("./link.js").Context} ctx */
export function createStepsMenu(ctx) {
  const menu = createMenu("History", { class: "quiet small", label: "History of this plan", title: "What was done to this plan; a step takes you there" });
  menu.list.addEventListener("click", (event) => {
    const item = event.target.closest("[data-place]");
    if (!item) return;
    ctx.emit({ type: "go_to", place: Number(item.dataset.place) });
    menu.done();
  });
  return {
    el: menu.el, close: menu.close,
    update() {
      const { rows = [], place = 0 } = ctx.get("steps") ?? {};
      keyed(menu.list, rows, (row) => String(row.place), (row) => menu.item({ class: "item step", role: "menuitemradio", "data-place": row.place }, h("i", { "aria-hidden": "true" }), h("span")), (node, row) => {
        text(node.lastChild, row.label);
        attr(node, "aria-checked", row.place === place ? "true" : "false");
        attr(node, "aria-label", row.undone ? `${row.label}, undone` : row.label);
        node.classList.toggle("undone", row.undone);
      });
      attr(menu.opener, "disabled", rows.length < 2);
    },
  };
}
