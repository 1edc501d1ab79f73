"""A report opened from disk: everything inside, nothing from anywhere, and a reader can look around."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Page

from browser.labdrive import browser, click_point, eventually, points
from fake_study import filled, info
from paredown_widgets import write_report

pytestmark = pytest.mark.browser


def grid(page: Page) -> list[str]:
    return [text.strip()[:1] for text in page.locator(".pd-grid [role=gridcell]").all_inner_texts()]


def test_a_report_is_self_contained_and_can_be_explored(tmp_path: Path, chromium: str) -> None:
    study = filled(tmp_path / "study", blocks=2)
    path = write_report(study, tmp_path / "out" / "report.html")
    assert path.stat().st_size < 4_000_000
    with browser(chromium, size=(1300, 950)) as context:
        context.set_offline(True)
        page = context.new_page()
        asked: list[str] = []
        wrong: list[str] = []
        page.on("request", lambda r: asked.append(r.url) if not r.url.startswith(("file:", "blob:", "data:")) else None)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        started = time.monotonic()
        page.goto(path.as_uri())
        page.locator("#explorer[data-ready]").wait_for(timeout=30_000)
        eventually(lambda: points(page, "measured") + points(page, "uniform") == len(study.plans()), 30)
        assert time.monotonic() - started < 20

        # sensitivity by curvature
        page.locator(".pd-sens select").select_option("trace:ggn")
        eventually(lambda: page.locator(".pd-sens select").input_value() == "trace:ggn")
        # a click on a measured point shows that plan
        before = grid(page)
        click_point(page, "uniform", 0)
        eventually(lambda: grid(page) != before and len(set(grid(page))) == 1)
        # plans side by side, and the answers that flipped
        page.get_by_role("tab", name="Compare").click()
        assert page.locator(".pd-metrics thead .name").all_inner_texts()[0] == "recorded plan"
        eventually(lambda: page.locator(".pd-flips tbody tr").count() > 1)
        page.get_by_role("radio", name="Newly right").click()
        eventually(lambda: page.locator(".pd-flips td[data-kind=right]").count() > 0)
        page.get_by_role("tab", name="Overview").click()
        # the other quantities of the front
        page.get_by_role("radio", name="Accuracy").click()
        eventually(lambda: "Accuracy" in page.locator("[data-chart=front]").inner_text())
        # a selected layer brings its spectrum
        page.locator(".pd-grid [role=gridcell]").nth(4).click()
        eventually(lambda: "Block 0 fc1" in page.locator(".pd-spec, .pd-spectrum").first.inner_text())
        # its other matrix, all layers, and the table, sorted
        page.get_by_role("radio", name="Gauss–Newton").click()
        eventually(lambda: page.get_by_role("radio", name="Gauss–Newton").get_attribute("aria-checked") == "true")
        assert "Block 0 fc1" in page.locator(".pd-spec .pd-curves").inner_text()
        page.get_by_role("radio", name="All", exact=True).click()
        eventually(lambda: points(page, "all", "spectrum") == len(study.layers))
        page.locator(".pd-spec").get_by_role("radio", name="Table").click()
        page.get_by_role("button", name="Trace").click()
        eventually(lambda: page.locator(".pd-spectable [aria-sort=descending]").inner_text().startswith("Trace"))
        # the page of a layer, by a double click and then by the arrows
        page.locator(".pd-grid [role=gridcell]").nth(4).dblclick()
        heading = page.get_by_role("tabpanel", name="Layer").get_by_role("heading", level=2).first
        eventually(lambda: heading.inner_text() == "Block 0 fc1")
        page.keyboard.press("ArrowRight")
        eventually(lambda: heading.inner_text() == "Block 0 fc2")
        assert page.locator(".pd-schemes tr[aria-current]").count() == 1
        eventually(lambda: points(page, "ordinary", "layer-inputs") > 0)
        # what it can't do it says
        page.get_by_role("button", name="Copy as Python").click()
        eventually(lambda: "saved report" in page.locator(".pd-banner").inner_text())
        assert asked == []
        assert wrong == []


def test_hostile_text_is_shown_as_text(tmp_path: Path, chromium: str) -> None:
    hostile = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    path = write_report(filled(tmp_path / "study", blocks=1, hostile=True, info=info(label=hostile)), tmp_path / "report.html")
    with browser(chromium) as context:
        page = context.new_page()
        page.goto(path.as_uri())
        page.locator("#explorer[data-ready]").wait_for(timeout=30_000)
        eventually(lambda: points(page, "measured") > 0, 30)
        page.locator(".pd-grid [role=gridcell]").first.click()
        page.wait_for_timeout(300)
        assert page.evaluate("() => window.hacked") is None
        assert hostile in page.locator(".pd-head").inner_text()
