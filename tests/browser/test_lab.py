"""A real JupyterLab with the explorer on a study that is running: what a person would see and do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from browser.labdrive import Lab, Watch, browser, click_point, command, eventually, open_notebook, peek, points, wait_cells, write_notebook

pytestmark = pytest.mark.browser
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    server = Lab(tmp_path_factory.mktemp("lab"))
    yield server
    server.close()


def cells(folder: Path) -> list[str]:
    """The run takes its time over the plans, so that a machine that draws one frame a second still shows the front grow."""
    return [
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom fake_study import FakeStudy\nfrom paredown_widgets import Explorer\n"
        "class Slow(FakeStudy):\n    def plans(self):\n        self.pause_each = 1.5\n        return super().plans()\n"
        f"explorer = Explorer(Slow({str(folder)!r}, pause_each=0.12))",
        "explorer.run()\nexplorer",
        "beside = sum(range(10))",
    ]


def test_a_run_is_watched_and_steered(lab: Lab, chromium: str, tmp_path: Path) -> None:
    write_notebook(lab.root / "live.ipynb", cells(tmp_path / "study"))
    with browser(chromium) as context:
        page = context.new_page()
        watch = Watch(page)
        open_notebook(page, lab, "live.ipynb")
        command(page, "notebook:run-all-cells")
        page.wait_for_selector(".jp-OutputArea .pd", timeout=60_000)
        wait_cells(page)  # the third cell ran while the study does

        # the front grows while the run goes on
        eventually(lambda: points(page, "measured") > 0, 60)
        seen = [points(page, "measured")]
        eventually(lambda: seen[-1] < (now := points(page, "measured")) and not seen.append(now) and len(seen) >= 4, 30)

        with lab.kernel("live.ipynb") as kernel:
            assert peek(kernel, "explorer.study.running")
            assert peek(kernel, "beside") == 45

            # a click on a measured point changes Python's plan; a chart that moves may slip away under the pointer, and one clicks again
            before = peek(kernel, "explorer.plan.digest")

            def loads() -> bool:
                clicked = next(digest for k in range(4) if (digest := click_point(page, "measured", k)) != before)
                page.wait_for_timeout(2000)
                return peek(kernel, "explorer.plan.digest") == clicked

            eventually(loads)

            # a digit typed on a selected cell changes the bits of its fused group
            page.locator(".pd-grid [role=gridcell]").first.click()
            eventually(lambda: len(peek(kernel, "list(explorer.selection)")) == 3)
            started = time.monotonic()
            page.keyboard.press("8")
            eventually(lambda: page.locator(".pd-grid [role=gridcell]").first.inner_text().strip().startswith("8"), 5)
            assert time.monotonic() - started < 2
            eventually(lambda: peek(kernel, "[str(explorer.plan.schemes[n]) for n in explorer.selection]") == ["int8g64"] * 3)

            peek(kernel, "setattr(explorer.study, 'pause_each', 0.02)")
            eventually(lambda: peek(kernel, "explorer.state") == "done", 60)
        measured = points(page, "measured")
        assert measured > seen[-1]

        # the picture below the widget is hidden while the widget lives
        assert page.locator(".jp-RenderedSVG").count() == 1
        assert not page.locator(".jp-RenderedSVG").first.is_visible()

        command(page, "docmanager:save")
        eventually(lambda: "image/svg+xml" in (lab.root / "live.ipynb").read_text() and "Done 2" in (lab.root / "live.ipynb").read_text())

        # a restarted kernel shows all of it again
        command(page, "kernelmenu:restart")
        dialog = page.locator(".jp-Dialog .jp-mod-accept")
        dialog.click(timeout=20_000)
        page.wait_for_timeout(500)
        page.wait_for_function(
            "() => [...window.jupyterapp.shell.widgets('main')].some((w) => w.context?.sessionContext?.session?.kernel?.status === 'idle')"
        )
        command(page, "notebook:clear-all-cell-outputs")
        page.wait_for_selector(".pd", state="detached")
        with lab.kernel("live.ipynb") as kernel:
            again = (
                f"import sys; sys.path.insert(0, {str(TESTS)!r}); from fake_study import FakeStudy; from paredown_widgets import Explorer"
            )
            kernel.execute(again, silent=True)
            eventually(lambda: "Explorer" in peek(kernel, "dir()"), 30)
        page.locator(".jp-CodeCell").nth(1).click()
        page.keyboard.press("Escape")
        text = f"explorer = Explorer(FakeStudy({str(tmp_path / 'study')!r}))\\nexplorer"
        page.evaluate(
            f"() => {{ const n = [...window.jupyterapp.shell.widgets('main')].find((w) => w.content?.widgets); n.content.widgets[1].model.sharedModel.setSource(`{text}`); n.content.activeCellIndex = 1; }}"
        )
        command(page, "notebook:run-cell")
        page.wait_for_selector(".jp-OutputArea .pd", timeout=60_000)
        eventually(lambda: points(page, "measured") == measured, 30)

        assert watch.outside == []
        assert [e for e in watch.errors if "paredown" in e.lower() or "TypeError" in e] == []

    saved = nbformat.read(lab.root / "live.ipynb", as_version=4)
    assert any("image/svg+xml" in output.get("data", {}) for output in saved.cells[1].outputs)
