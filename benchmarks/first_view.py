"""How long a person waits in JupyterLab from running a cell to the explorer on the screen, on the sentiment demo's study.

A private JupyterLab and Chromium; the clock is the page's own. It starts when the cell is run and stops at the first frame with the plan's
cells, and at the first with the painted front. Warm: the kernel has imported the packages, as after any earlier cell. Cold: a new kernel,
whose cell imports them. ``python benchmarks/first_view.py --study studies/sentiment`` takes a finished study and spares the run.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page

from _rows import Row, options, row, show
from _studies import sentiment_study

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

ROUNDS = 3
IMPORTS = "from paredown_widgets import Explorer\nfrom paredown.study import Study"
RUN = """async (index) => {
  const notebook = [...window.jupyterapp.shell.widgets('main')].find((one) => one.content?.widgets);
  notebook.content.activeCellIndex = index;
  const cell = notebook.content.widgets[index].node, started = performance.now(), took = {};
  window.jupyterapp.commands.execute('notebook:run-cell');
  for (const [name, selector] of [['plan', '.pd-cell[data-layer]'], ['front', '[data-chart=front][data-draws]']]) {
    while (!cell.querySelector(selector)) { await new Promise(requestAnimationFrame); if (performance.now() - started > 120000) throw new Error('no ' + name); }
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    took[name] = performance.now() - started;
  }
  return took;
}"""


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--study", type=Path, help="a finished study of demo:sentiment, in place of a new run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        study = sentiment_study(arguments.study, Path(place))
        show("First view in JupyterLab, sentiment, wall time", views(Path(place), study), arguments.json)


def views(root: Path, study: Path) -> list[Row]:
    """Rows: the first view in a page, later ones, and that of a kernel which has imported nothing."""
    from browser.labdrive import Lab, browser, open_notebook, wait_cells, write_notebook

    notebooks = root / "notebooks"
    notebooks.mkdir()
    shows = [f"Explorer({str(study)!r})"] * 2
    warm, cold = ([f"{kind}{number}.ipynb" for number in range(ROUNDS)] for kind in ("warm", "cold"))  # each has a kernel of its own
    for name in warm:
        write_notebook(notebooks / name, [IMPORTS, *shows])
    for name in cold:
        write_notebook(notebooks / name, [f"{IMPORTS}\n{shows[0]}"])
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    lab = Lab(notebooks)

    def measured(page: Page, name: str, indices: list[int]) -> list[dict[str, float]]:
        open_notebook(page, lab, name)
        page.locator(".jp-CodeCell").first.click()  # commands are for the notebook that has the focus
        page.keyboard.press("Escape")
        if indices[0]:
            page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell') }")
            page.wait_for_function("() => /\\[1\\]/.test(document.querySelector('.jp-InputPrompt').textContent)", timeout=120_000)
        found = []
        for index in indices:
            page.wait_for_timeout(2000)
            found.append(page.evaluate(RUN, index))
        return found

    rows: list[Row] = []
    try:
        firsts, later = [], []
        for name in warm:
            with browser(chromium, size=(1304, 900)) as context:
                first, second = measured(context.pages[0], name, [1, 2])
                firsts.append(first)
                later.append(second)
        colds = []
        for name in cold:
            with browser(chromium, size=(1304, 900)) as context:
                colds += measured(context.pages[0], name, [0])
                wait_cells(context.pages[0])
        for words, times in (
            ("warm kernel, first in the page", firsts),
            ("warm kernel, second in the page", later),
            ("cold kernel", colds),
        ):
            for part, label in (("plan", "plan on screen"), ("front", "front painted")):
                each = [one[part] / 1e3 for one in times]
                rows.append(row(f"{words}: {label}, median of {len(each)}", statistics.median(each), "s"))
                rows.append(row(f"{words}: {label}, longest", max(each), "s"))
        return rows
    finally:
        lab.close()


if __name__ == "__main__":
    main()
