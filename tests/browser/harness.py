"""The explorer in Chromium with a model page of our own: no Jupyter, no Panel, no network."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from paredown_widgets import plotly_js
from paredown_widgets._assets import css, esm

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--font-render-hinting=none"]

FAKE_MODEL = """() => {
  window.FakeModel = class {
    constructor(state, panel) { this.state = state; this.listeners = {}; this.messages = []; if (!panel) this.send = (m) => { this.messages.push(m); this.answer?.(m); }; }
    get(key) { return this.state[key]; }
    set(key, value) { this.state[key] = value; for (const f of [...(this.listeners["change:" + key] ?? [])]) f(); }
    on(event, f) { (this.listeners[event] ??= []).push(f); }
    off(event, f) { this.listeners[event] = (this.listeners[event] ?? []).filter((g) => g !== f); }
    save_changes() {}
  };
}"""

CLEAR = """([ground, ink]) => {
  window.cleanup?.();
  for (const name of Object.keys(window)) if (!ours.has(name) && !["ours", "paredownPlotly"].includes(name)) delete window[name];
  document.querySelectorAll("style[data-explorer]").forEach((style) => style.remove());
  document.body.replaceChildren(Object.assign(document.createElement("div"), { id: "place" }));
  Object.assign(document.body.style, { background: ground, color: ink });
}"""

MOUNT = """async ([code, style, state, options]) => {
  const place = document.querySelector("#place");
  let target = place;
  if (options.shadow) { target = document.createElement("div"); const root = place.attachShadow({ mode: "open" }); const sheet = document.createElement("style"); sheet.textContent = style; root.append(sheet, target); }
  else { const sheet = document.createElement("style"); sheet.dataset.explorer = ""; sheet.textContent = style; document.head.append(sheet); }
  window.model = new FakeModel(state, options.shadow);
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const widget = (await import(address)).default;
  URL.revokeObjectURL(address);
  window.root = options.shadow ? place.shadowRoot : document;
  window.cleanup = await widget.render({ model, el: target });
}"""


@contextmanager
def launched(executable: str | None = None) -> Iterator[Browser]:
    """Chromium, ours alone."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable or shutil.which("chromium"), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


class View:
    """One page with one explorer at a time; `problems` collects what must never happen."""

    def __init__(self, browser: Browser, width: int = 1280, height: int = 900, scale: float = 1) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
        self.problems: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text) if message.type in {"error", "warning"} else None)
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on(
            "request",
            lambda request: (
                None if request.url.startswith(("data:", "blob:", "about:")) else self.problems.append(f"asked for {request.url}")
            ),
        )

    def mount(self, state: dict[str, Any], *, shadow: bool = False, ground: str = "#fff", ink: str = "#111") -> View:
        if not self.page.evaluate("() => Boolean(window.FakeModel)"):
            self.page.set_content('<!doctype html><body style="margin:0"></body>')
            self.page.add_script_tag(content=gzip.decompress(plotly_js.packed()).decode())
            self.page.evaluate(FAKE_MODEL)
            self.page.evaluate("() => { window.ours = new Set(Object.keys(window)) }")
        self.page.evaluate(CLEAR, [ground, ink])
        self.page.evaluate(MOUNT, [esm("explorer"), css(), state, {"shadow": shadow}])
        self.page.wait_for_function("() => window.root.querySelector('.pd-cell, .pd-empty')")
        return self

    def set(self, trait: str, value: Any) -> None:
        self.page.evaluate("([trait, value]) => model.set(trait, value)", [trait, value])

    def drawn(self, name: str = "front") -> None:
        """Wait until a chart is on the screen."""
        self.page.wait_for_function("(name) => Number(root.querySelector(`[data-chart=${name}]`).dataset.draws ?? 0) > 0", arg=name)

    def messages(self, kind: str | None = None) -> list[dict[str, Any]]:
        sent = json.loads(self.page.evaluate("() => JSON.stringify(model.send ? model.messages : (model.get('event')?.items ?? []))"))
        return [message for message in sent if kind is None or message["type"] == kind]

    def last(self, kind: str) -> dict[str, Any]:
        """The last message of a kind."""
        return self.messages(kind)[-1]

    def forget(self) -> None:
        self.page.evaluate("() => { model.messages.length = 0 }")

    def cell(self, layer: str) -> Any:
        return self.page.locator(f'.pd-cell[data-layer="{layer}"]')

    def point(self, trace: str, index: int, chart: str = "front") -> tuple[float, float]:
        """Where a point of a chart is on the page."""
        x, y = self.page.evaluate(
            """([chart, uid, k]) => { const plot = root.querySelector(`[data-chart=${chart}] .pd-plot`), full = plot._fullLayout, safe = 'u' + uid.replace(/[^A-Za-z0-9-]/g, (c) => `_${c.codePointAt(0).toString(16)}_`), box = plot.getBoundingClientRect();
            const i = plot._fullData.findIndex((t) => t.uid === safe), p = plot.calcdata[i][k], y = full['yaxis' + (plot._fullData[i].yaxis ?? 'y').slice(1)];
            return [box.left + full.xaxis._offset + full.xaxis.c2p(p.x), box.top + y._offset + y.c2p(p.y)]; }""",
            [chart, trace, index],
        )
        return x, y
