/** What waits to be measured: a person's plans first, then the run's own; each can go first, and one's own be taken back. */
import { attr, button, emptyNote, h, keyed, rich, show, text } from "./dom.js";

/** @param {import("./link.js").Context} ctx */
export function createQueue(ctx) {
  const count = h("span", { class: "sub" });
  const body = h("tbody");
  const region = createRegionChip(ctx);
  const head = h("tr", {}, ...["Plan", "Size", "Predicted", "State", ""].map((label) => h("th", { scope: "col" }, label || h("span", { class: "sr", text: "What can be done" }))));
  const scroll = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Plans that wait, table" }, h("table", { class: "pd-tbl" }, h("thead", {}, head), body));
  const frame = h("div", { class: "pd-scrolled" }, scroll);
  const more = h("p", { class: "sub note" });
  const note = emptyNote();
  const el = h("section", { class: "pd-panel pd-queue", "aria-label": "Queue" }, h("header", {}, h("h2", { text: "Queue" }), count, h("span", { class: "grow" }), region.el), frame, more, note.el);

  body.addEventListener("click", (event) => {
    const pressed = event.target.closest("button");
    if (pressed) ctx.emit({ type: pressed.dataset.does === "first" ? "queue_first" : "queue_remove", digest: pressed.closest("tr").dataset.digest });
  });
  const act = (does, label, icon) => { const made = button(label, { class: "quiet icon", icon, press: () => {} }); attr(made, "data-does", does); return made; };

  return {
    el,
    needs: ["queue"],
    update() {
      const state = ctx.get("queue") ?? {};
      const rows = state.rows ?? [];
      note.update(rows.length ? "" : state.empty || "Plans that wait to be measured are listed here.");
      show(frame, rows.length);
      text(count, rows.length ? state.count : "");
      text(more, state.note);
      show(more, state.note);
      region.update();
      keyed(body, rows, (row) => row.digest,
        (row) => h("tr", { "data-digest": row.digest }, h("th", { scope: "row" }), h("td"), h("td", { class: "pred" }), h("td", { class: "state" }), h("td", { class: "acts" }, act("first", "Measure first", "top"), act("remove", "Take back", "close"))),
        (line, row) => {
          const [label, size, predicted, words, acts] = line.children;
          text(label, row.label);
          attr(label, "title", row.title);
          text(size, row.size);
          rich(predicted, row.predicted);
          text(words, row.words);
          attr(line, "data-state", row.state);
          for (const one of acts.children) {
            show(one, row.can.includes(one.dataset.does));
            attr(one, "aria-label", `${one.dataset.does === "first" ? "Measure first" : "Take back"}: ${row.label}, ${row.size}`);
          }
        });
    },
  };
}

/** Which sizes go first, with a button that ends it. @param {import("./link.js").Context} ctx */
export function createRegionChip(ctx) {
  const words = h("span");
  const end = h("button", { type: "button", class: "end", "aria-label": "No sizes first any more", title: "No sizes first any more", on: { click: () => ctx.emit({ type: "prioritise", low: 0, high: 0 }) } }, "×");
  const el = h("span", { class: "chip live", hidden: true }, words, end);
  return {
    el,
    update() {
      const wanted = ctx.get("queue")?.priority;
      text(words, wanted ? `first: ${wanted.text}` : "");
      show(el, wanted);
    },
  };
}
