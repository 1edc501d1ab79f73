/** Line 2, right: run controls, one bar per stage, progress in words; a failure and its remedy take the place of the words. */
import { attr, button, h, keyed, show, text } from "./dom.js";

/** At most one spoken announcement of progress in this time, ms. */
const SPEAK_EVERY = 5000;

/** @param {import("./link.js").Context} ctx @param {{openLog: () => void}} views */
export function createRunline(ctx, views) {
  const send = (type) => () => ctx.emit({ type });
  const controls = {
    run: button("Run", { class: "primary", icon: "play", press: send("run") }),
    resume: button("Resume", { class: "icon quiet", icon: "play", press: send("resume") }),
    pause: button("Pause after this step", { class: "icon quiet", icon: "pause", press: send("pause") }),
    cancel: button("Cancel", { class: "icon quiet", icon: "stop", press: send("cancel") }),
  };
  const buttons = h("span", { class: "ctl" }, ...Object.values(controls));
  const stages = h("span", { class: "pd-stages", role: "progressbar", "aria-label": "Progress of the run", "aria-valuemin": 0, "aria-valuemax": 100 });
  const label = h("b");
  const parts = { detail: h("span"), left: h("span"), rate: h("span", { class: "opt" }), memory: h("span", { class: "opt" }), remedy: h("span", { class: "remedy" }) };
  const log = h("button", { type: "button", class: "btn quiet", on: { click: views.openLog } }, "Log");
  const words = h("span", { class: "words" }, h("span", { class: "lead" }, label, parts.detail), parts.left, parts.rate, parts.memory, parts.remedy, log);
  const el = h("div", { class: "pd-run", role: "group", "aria-label": "Run" }, buttons, stages, words);

  let spoken = -SPEAK_EVERY;
  let state = "";
  function speak(sentence, changed) {
    const now = performance.now();
    if (!changed && now - spoken < SPEAK_EVERY) return;
    spoken = now;
    ctx.say(sentence);
  }

  return {
    el,
    needs: ["run"],
    update() {
      const run = ctx.get("run") ?? {};
      const failed = run.state === "failed";
      attr(el, "data-state", run.state);
      for (const [name, control] of Object.entries(controls)) show(control, run.can?.includes(name));
      show(buttons, run.can?.length);
      keyed(stages, run.stages ?? [], (stage) => stage.id, () => h("i"), (bar, stage) => {
        attr(bar, "class", stage.state === "todo" ? null : stage.state);
        attr(bar, "title", stage.label);
        bar.style.setProperty("--p", stage.state === "now" ? `${Math.round(1000 * (run.share ?? 0)) / 10}%` : "0%");
      });
      const order = (run.stages ?? []).map((stage) => stage.state);
      const whole = order.length ? (order.filter((one) => one === "done").length + (order.includes("now") ? run.share ?? 0 : 0)) / order.length : 0;
      attr(stages, "aria-valuenow", Math.round(100 * whole));
      attr(stages, "aria-valuetext", [run.label, run.detail, run.left].filter(Boolean).join(", "));
      text(label, failed ? run.message || run.label : run.label);
      attr(label, "title", failed ? run.message : null);
      const said = { detail: failed ? "" : run.detail, left: failed ? "" : run.left, rate: failed ? "" : run.rate, memory: failed ? "" : run.memory, remedy: failed ? run.remedy : run.message };
      for (const [name, node] of Object.entries(parts)) { text(node, said[name]); show(node, said[name]); }
      attr(parts.remedy, "title", said.remedy);
      show(log, failed);
      if (run.state) speak([run.label, run.detail, failed ? `${run.message}. ${run.remedy}` : run.left].filter(Boolean).join(", "), run.state !== state && state !== "");
      state = run.state;
    },
  };
}
