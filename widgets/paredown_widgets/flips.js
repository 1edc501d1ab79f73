/** Flipped answers: which sentences, pictures or clips the plans answer otherwise than the original, with what they were asked. */
import { attr, button, emptyNote, h, icon, keyed, segments, show, text } from "./dom.js";
import { letterBadge } from "./compare.js";
import { toClipboard } from "./header.js";

/** @param {import("./link.js").Context} ctx */
export function createFlips(ctx) {
  const count = h("span", { class: "sub" });
  const kinds = segments("Which answers", (id) => ctx.emit({ type: "flips", id }));
  const copy = button("Copy as DataFrame", { class: "quiet", icon: "code", title: "Copy these rows as Python code that makes a pandas DataFrame", press: () => ctx.emit({ type: "copy_flips" }) });
  const head = h("tr");
  const body = h("tbody");
  const more = button("Show 50 more", { press: () => ctx.emit({ type: "more_flips" }) });
  const left = h("span", { class: "sub" });
  const foot = h("div", { class: "more" }, more, left);
  const scroll = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Flipped answers, table" }, h("table", { class: "pd-tbl" }, h("thead", {}, head), body), foot);
  const frame = h("div", { class: "pd-scrolled" }, scroll);
  const note = emptyNote();
  const el = h("section", { class: "pd-panel pd-flips", "aria-label": "Flipped answers" }, h("header", {}, h("h2", { text: "Flipped answers" }), count, h("span", { class: "grow" }), kinds.el, copy), frame, note.el);
  const player = createPlayer(ctx);

  let copied = ctx.get("flips")?.copied?.n ?? 0;
  async function copyRows(state) {
    const { n = 0, text: code = "" } = state.copied ?? {};
    if (n <= copied) return;
    copied = n;
    text(copy.lastChild, (await toClipboard(code)) ? "Copied" : "Copying was refused");
    ctx.say(copy.lastChild.textContent);
    setTimeout(() => text(copy.lastChild, "Copy as DataFrame"), 1600);
  }

  /** What was asked: a text, a picture, a sound, or the number of the sample. */
  function asked(row) {
    if (row.media === "audio/wav") return player.button(row);
    if (row.media === "image/png") return h("img", { class: "thumb", alt: `${ctx.get("flips")?.head ?? "Sample"} ${row.index}`, src: row.src });
    return h("span", { class: row.goes_on ? "said goes-on" : "said", text: row.text || `Sample ${row.index}`, title: row.text });
  }

  /** What one plan answered. */
  function answered(cell, answer) {
    const [told, words, sure] = cell.children;
    attr(cell, "data-kind", answer.kind);
    text(told, answer.told);
    text(words, answer.answer);
    attr(words, "title", answer.answer);
    text(sure, answer.sure);
  }
  const answer = () => h("td", { class: "answer" }, h("b"), h("span", { class: "words" }), h("span", { class: "pm" }));

  return {
    el,
    needs: ["flips"],
    update() {
      const state = ctx.get("flips") ?? {};
      const rows = state.rows ?? [];
      note.update(rows.length ? "" : state.empty || "Reading the answers …");
      show(frame, rows.length);
      text(count, state.count);
      attr(count, "title", state.count || null);
      kinds.update(state.kinds ?? [], state.kind);
      show(copy, rows.length && !ctx.get("offline"));
      show(foot, state.more);
      text(more.lastChild, `Show ${Math.min(state.page ?? 50, state.more ?? 0)} more`);
      text(left, `${state.more} not shown`);
      attr(el, "data-writes", state.writes ? "" : null);
      attr(el, "data-pictures", rows.length && rows.every((row) => row.media === "image/png") ? "" : null);
      const columns = [{ id: state.head, label: state.head }, ...(state.labelled ? [{ id: "Label", label: state.writes ? "Transcript" : "Label" }] : []), { id: "Original", label: "Original" }, ...(state.plans ?? []).map((plan) => ({ id: plan.letter, plan }))];
      keyed(head, rows.length ? columns : [], (column) => String(column.id),
        (column) => (column.plan ? h("th", { scope: "col", title: column.plan.name }, letterBadge(column.plan.letter)) : h("th", { scope: "col" })), (cell, column) => { if (!column.plan) text(cell, column.label); });
      const shape = `${state.labelled}${(state.plans ?? []).length}`;
      keyed(body, rows, (row) => `${row.id} ${row.media} ${shape}`,
        (row) => h("tr", {}, h("td", { class: "asked" }, asked(row)), state.labelled ? h("td", { class: "label" }) : null, answer(), ...row.plans.map(answer)),
        (line, row) => {
          const cells = [...line.children].slice(1);
          if (state.labelled) { const label = cells.shift(); text(label, row.label); attr(label, "title", row.label); }
          [row.original, ...row.plans].forEach((one, i) => { answered(cells[i], one); attr(cells[i], "data-of", i ? state.plans[i - 1].letter : "Original"); });
        });
      player.arrived(rows);
      copyRows(state);
    },
    close: () => player.close(),
  };
}

/** Plays one sound at a time; a sound is fetched when it is first asked for. */
function createPlayer(ctx) {
  const audio = new Audio();
  let now = null; // the button of what plays, or is to play once it is there
  const mark = (node, playing) => { node.firstChild.replaceWith(icon(playing ? "stop" : "play")); attr(node, "aria-pressed", playing ? "true" : "false"); };
  const stop = () => { audio.pause(); if (now) mark(now, false); now = null; };
  audio.addEventListener("ended", stop);

  function press(node, row) {
    const again = now === node;
    stop();
    if (again) return;
    now = node;
    mark(node, true);
    const known = (ctx.get("flips")?.rows ?? []).find((one) => one.id === row.id)?.src;
    if (known) play(known);
    else ctx.emit({ type: "hear", sample: row.sample });
  }
  async function play(address) {
    audio.src = address;
    try { await audio.play(); } catch (error) { ctx.say(`The clip can't be played: ${error.message}`); stop(); }
  }
  return {
    button(row) {
      const node = h("button", { type: "button", class: "btn small play", "data-sample": row.sample, "aria-label": `Play clip ${row.index}`, "aria-pressed": "false" }, icon("play"), h("span", { text: `Clip ${row.index}` }));
      node.addEventListener("click", () => press(node, row));
      return node;
    },
    arrived(rows) {
      if (!now || !audio.paused) return;
      const row = rows.find((one) => String(one.sample) === now.dataset.sample);
      if (row?.src) play(row.src);
      else if (!row) stop();
    },
    close() { audio.pause(); },
  };
}
