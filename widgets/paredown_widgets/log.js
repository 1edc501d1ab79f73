/** The log: the run's own lines. It follows the end while the end is in sight, and stays where a reader has scrolled to. */
import { attr, emptyNote, h, keyed, show, text } from "./dom.js";

/** @param {import("./link.js").Context} ctx */
export function createLog(ctx) {
  const count = h("span", { class: "sub" });
  const list = h("div", { class: "lines", role: "log", tabindex: 0, "aria-label": "Log of the run", "aria-live": "off" });
  const note = emptyNote();
  const el = h("section", { class: "pd-panel", "aria-label": "Log" }, h("header", {}, h("h2", { text: "Log" }), count), list, note.el);
  return {
    el,
    needs: ["log"],
    update() {
      const lines = ctx.get("log")?.lines ?? [];
      note.update(lines.length ? "" : "What the run does appears here, line by line.");
      show(list, lines.length);
      text(count, lines.length ? `${lines.length} lines` : "");
      const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 8;
      keyed(list, lines, (_, i) => String(i), () => h("div", {}, h("time"), h("b"), h("span")), (node, line) => {
        const [time, level, words] = node.children;
        text(time, line.time);
        // A warning says so in words; otherwise the stage is more telling than "info".
        text(level, line.level === "warning" || line.level === "error" ? line.level : line.stage || line.level);
        text(words, line.text);
        attr(node, "data-level", line.level);
      });
      if (atEnd) list.scrollTop = list.scrollHeight;
    },
    /** The tab was opened: show the end. */
    opened() { list.scrollTop = list.scrollHeight; },
  };
}
