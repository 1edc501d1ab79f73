/** Plans side by side in numbers: what each takes and does, bold where one is better than all others. Plans are added and removed here. */
import { attr, button, emptyNote, h, icon, keyed, mark, rich, show, text } from "./dom.js";

/** The sign of a plan wherever plans stand side by side: a letter on a colour of its own. @param {string} letter */
export function letterBadge(letter) {
  return h("b", { class: "pd-letter", "data-letter": letter, text: letter });
}

/** @param {import("./link.js").Context} ctx */
export function createCompare(ctx) {
  const sub = h("span", { class: "sub" });
  const menu = addMenu(ctx);
  const names = h("tr");
  const states = h("tr", { class: "states" });
  const body = h("tbody");
  const table = h("table", { class: "pd-tbl" }, h("thead", {}, names, states), body);
  const frame = h("div", { class: "fit", tabindex: 0, role: "region", "aria-label": "Metrics of the plans, table" }, table);
  const foot = h("p", { class: "sub note" });
  const notices = h("ul", { class: "notices" });
  const note = emptyNote();
  const el = h("section", { class: "pd-panel pd-metrics", "aria-label": "Metrics" }, h("header", {}, h("h2", { text: "Metrics" }), sub, h("span", { class: "grow" }), menu.el), frame, notices, foot, note.el);

  const column = (plan) => {
    const head = h("th", { scope: "col" }, h("span", { class: "who" }, letterBadge(plan.letter), h("span", { class: "name" })));
    const close = button("Remove", { class: "quiet icon", icon: "close", press: () => ctx.emit({ type: "compare_remove", digest: head.dataset.digest }) });
    head.firstChild.append(close);
    return head;
  };
  const state = (plan) => {
    const cell = h("td", {}, h("span", { class: "is" }), h("span", { class: "chip" }));
    cell.append(button("Measure", { class: "small", press: () => ctx.emit({ type: "compare_measure", digest: cell.dataset.digest }) }));
    return cell;
  };

  return {
    el,
    needs: ["compare"],
    update() {
      const view = ctx.get("compare") ?? {};
      const plans = view.plans ?? [];
      note.update(plans.length ? "" : view.empty || "Reading the plans …");
      show(frame, plans.length);
      text(sub, view.sub);
      attr(el, "data-many", plans.length > 3 ? "" : null);
      menu.update(view.add ?? [], plans);
      const blank = { letter: "", title: "" };
      keyed(names, [blank, { ...blank, letter: "Original" }, ...plans], (plan) => plan.letter,
        (plan) => (plan.digest ? column(plan) : plan.letter ? h("th", { scope: "col", text: plan.letter }) : h("th", {}, h("span", { class: "sr", text: "Quantity" }))),
        (head, plan) => {
          if (!plan.digest) return;
          const [, name, close] = head.firstChild.children;
          attr(head, "data-digest", plan.digest);
          text(name, plan.name);
          attr(name, "title", plan.title);
          attr(close, "aria-label", `Remove ${plan.letter}, ${plan.name}`);
          attr(close, "title", `Remove ${plan.letter}`);
          show(close, plan.removable);
        });
      keyed(states, [blank, { ...blank, letter: "Original" }, ...plans], (plan) => plan.letter, (plan) => (plan.digest ? state(plan) : h("td")),
        (cell, plan) => {
          if (!plan.digest) return;
          const [is, chip, measure] = cell.children;
          attr(cell, "data-digest", plan.digest);
          const quiet = plan.chip === "predicted" ? "predicted" : plan.measured ? "measured" : "";
          if (is.dataset.is !== quiet) { is.dataset.is = quiet; is.replaceChildren(...(quiet ? [mark(quiet), quiet] : [])); }
          show(is, quiet && !plan.measure);
          text(chip, plan.chip);
          attr(chip, "title", plan.said || null);
          attr(chip, "class", `chip ${plan.kind}`);
          show(chip, plan.chip && plan.chip !== "predicted");
          text(measure.lastChild, plan.measure);
          attr(measure, "aria-label", `${plan.measure} ${plan.letter}, ${plan.name}`);
          attr(measure, "title", plan.why || "Measure this plan on the held-out data");
          show(measure, plan.measure);
        });
      keyed(body, view.rows ?? [], (row) => row.id,
        (row) => h("tr", {}, h("th", { scope: "row", text: row.label, title: row.title || row.label }), h("td", { class: "sub" })),
        (line, row) => {
          rich(line.children[1], row.original);
          while (line.children.length > row.cells.length + 2) line.lastChild.remove();
          while (line.children.length < row.cells.length + 2) line.append(h("td"));
          row.cells.forEach((cell, i) => {
            const place = line.children[i + 2];
            rich(place, cell.text);
            attr(place, "class", cell.best ? "best" : { predicted: "pred", none: "sub", same: "sub" }[cell.kind] ?? "");
            attr(place, "title", [cell.best && row.label !== "Size" ? "Better than every other plan" : "", cell.kind === "predicted" ? "Predicted" : "", cell.title].filter(Boolean).join(". ") || null);
          });
        });
      keyed(notices, view.notices ?? [], (words) => words, (words) => h("li", { text: words }), () => {});
      show(notices, (view.notices ?? []).length);
      text(foot, plans.length === 1 ? (ctx.get("offline") ? "" : "Add a plan to hold against this one: Shift click on a point of the front, or Add plan.") : view.foot);
      show(foot, plans.length);
    },
  };
}

/** The button Add plan with its menu, in groups; a field above narrows it. */
function addMenu(ctx) {
  const field = h("input", { class: "field", type: "text", placeholder: "Find a plan", "aria-label": "Find a plan" });
  const list = h("div", { role: "menu", "aria-label": "Plans", class: "list" });
  const none = h("p", { class: "sub none", hidden: true, text: "No plan of that name." });
  const pop = h("div", { class: "pd-plans", hidden: true }, field, list, none);
  const opener = button("Add plan", { class: "quiet", press: () => toggle(pop.hidden) });
  opener.prepend(icon("plus"));
  attr(opener, "aria-haspopup", "menu");
  const el = h("div", { class: "pd-add" }, opener, pop);
  const items = () => [...list.querySelectorAll("[data-digest]")].filter((item) => !item.hidden);

  function toggle(open) {
    show(pop, open);
    attr(opener, "aria-expanded", open ? "true" : "false");
    if (open) { field.value = ""; narrow(); field.focus(); }
  }
  function narrow() {
    const words = field.value.trim().toLowerCase();
    for (const group of list.children) {
      for (const item of group.querySelectorAll("[data-digest]")) show(item, item.textContent.toLowerCase().includes(words) || item.dataset.digest.startsWith(words));
      show(group, group.querySelector("[data-digest]:not([hidden])"));
    }
    show(none, !items().length);
  }
  field.addEventListener("input", narrow);
  list.addEventListener("click", (event) => {
    const digest = event.target.closest("[data-digest]")?.dataset.digest;
    if (!digest) return;
    toggle(false);
    opener.focus();
    ctx.emit({ type: "compare_add", digest });
  });
  pop.addEventListener("keydown", (event) => {
    const all = items();
    const at = all.indexOf(document.activeElement?.shadowRoot?.activeElement ?? event.target);
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by && all.length) (at < 0 && by < 0 ? all.at(-1) : at + by < 0 ? field : all[Math.min(at + by, all.length - 1)]).focus();
    else if (event.key === "Enter" && event.target === field) all[0]?.click();
    else if (event.key === "Escape") { toggle(false); opener.focus(); }
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  el.addEventListener("focusout", (event) => { if (!pop.hidden && !el.contains(event.relatedTarget)) toggle(false); });

  return {
    el,
    update(groups, plans) {
      const held = el.contains(/** @type {any} */ (el.getRootNode()).activeElement);
      keyed(list, groups, (group) => group.label,
        (group) => h("div", { role: "group", "aria-label": group.label }, h("span", { class: "of", "aria-hidden": "true", text: group.label }), h("div", { role: "presentation" })),
        (node, group) => keyed(node.lastChild, group.items, (item) => item.digest + item.name,
          (item) => h("button", { type: "button", role: "menuitem", class: "item", "data-digest": item.digest, tabindex: -1 }, h("b"), h("span")),
          (line, item) => {
            text(line.firstChild, item.name);
            text(line.lastChild, item.note);
            attr(line.lastChild, "class", item.measured ? "" : "pred");
          }));
      if (!pop.hidden) narrow();
      attr(opener, "disabled", !groups.length);
      attr(opener, "title", groups.length ? null : plans.length > 3 ? "Four plans at most: remove one first" : "No other plan is known yet");
      if (held && !groups.length) el.closest("section").querySelector(".pd-metrics thead .btn:not([hidden])")?.focus();
    },
  };
}
