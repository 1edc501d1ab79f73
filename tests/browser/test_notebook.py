"""The explorer in Notebook 7, where that is installed: it draws, grows while a run goes on, and what a person does reaches Python."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from browser.labdrive import Lab, Watch, browser, click_point, command, eventually, open_notebook, peek, points, write_notebook

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not importlib.util.find_spec("notebook"), reason="Notebook 7 is not among what is pinned: pip install notebook"),
]
TESTS = Path(__file__).parents[1]


def test_the_explorer_works_in_notebook_7(chromium: str, tmp_path: Path) -> None:
    lab = Lab(tmp_path, app="notebook")
    begin = f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom fake_study import FakeStudy\nfrom paredown_widgets import Explorer\n"
    write_notebook(tmp_path / "seven.ipynb", [f"{begin}explorer = Explorer(FakeStudy({str(tmp_path / 'study')!r})).run()\nexplorer"])
    try:
        with browser(chromium, size=(1304, 1000)) as context:
            page = context.new_page()
            watch = Watch(page)
            open_notebook(page, lab, "seven.ipynb")
            command(page, "notebook:run-all-cells")
            page.wait_for_selector(".jp-OutputArea .pd", timeout=60_000)
            eventually(lambda: points(page, "measured") > 0, 60)
            with lab.kernel("seven.ipynb") as kernel:
                eventually(lambda: peek(kernel, "explorer.state") == "done", 60)
                eventually(
                    lambda: points(page, "measured") + points(page, "uniform") == len(peek(kernel, "list(explorer.model.measured_plans())"))
                )
                before = peek(kernel, "explorer.plan.digest")
                clicked = next(digest for k in range(4) if (digest := click_point(page, "measured", k)) != before)
                eventually(lambda: peek(kernel, "explorer.plan.digest") == clicked)
                page.locator(".pd-grid [role=gridcell]").first.click()
                eventually(lambda: len(peek(kernel, "list(explorer.selection)")) == 3)
                page.keyboard.press("8")
                eventually(lambda: peek(kernel, "[str(explorer.plan.schemes[n]) for n in explorer.selection]") == ["int8g64"] * 3)
            assert watch.outside == []
            assert [e for e in watch.errors if "paredown" in e.lower() or "TypeError" in e] == []
    finally:
        lab.close()
