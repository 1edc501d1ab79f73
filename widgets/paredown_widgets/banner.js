/** What went wrong in a callback: said in the explorer, because a notebook shows the output of a background thread nowhere. */
import { button, h, show, text } from "./dom.js";

/** @param {import("./link.js").Context} ctx */
export function createBanner(ctx) {
  const what = h("b");
  const remedy = h("span");
  const el = h("div", { class: "pd-banner", role: "alert", hidden: true }, h("span", { class: "words" }, what, remedy), button("Dismiss", { class: "icon quiet", icon: "close", press: () => ctx.emit({ type: "dismiss_error" }) }));
  return {
    el,
    needs: ["error"],
    update() {
      const error = ctx.get("error");
      text(what, error?.text);
      text(remedy, error?.remedy);
      show(el, error?.text);
    },
  };
}
