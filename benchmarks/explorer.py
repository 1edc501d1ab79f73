"""How long a person waits in the browser, and how much is sent there: on the sentiment demo, and on 500 layers with 40 schemes and 5,000 measured plans.

The real Panel app, Chromium, and clocks inside the page. An edit is timed from the key press to the first frame after both the size and the
predicted KL of the plan's table show other text; a redraw from the click on the front's switch to the painted chart, what Python does between
included. Bytes are those of the websocket while one plan after the other is measured. ``python benchmarks/explorer.py --study studies/sentiment``
takes a finished study and spares the run; ``--large`` leaves the demo out, ``--kept FOLDER`` makes the large study there, or takes it up again. The
large study is made up: its figures follow a formula, its size is real.
"""

from __future__ import annotations

import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from _rows import Row, options, row, show
from _studies import sentiment_study

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

EDITS = 20
REDRAWS = 10
LARGE = {"blocks": 83, "plans": 5000}
"""Of six layers each, with embedding and pooler 500."""
STREAMED = 100
"""Plans measured while bytes are counted."""
EACH = 0.2
"""Seconds between two of them."""
SETTLED = 700
"""Milliseconds between two edits: each starts from a screen at rest."""
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]

CLOCK = """() => {
  const find = (root) => root.querySelector(".pd-tbl") ?? [...root.querySelectorAll("*")].map((e) => e.shadowRoot && find(e.shadowRoot)).find(Boolean);
  const table = find(document);
  const shown = () => [...table.querySelectorAll("tbody tr")].map((row) => row.children[2].textContent).filter((_, i) => i === 0 || i === 2);
  const clock = { started: 0, before: [], took: null };
  addEventListener("keydown", () => { clock.took = null; clock.before = shown(); clock.started = performance.now(); }, true);
  new MutationObserver(() => {
    if (clock.took !== null || !clock.started || !shown().every((text, i) => text !== clock.before[i])) return;
    clock.took = -1;
    // the first task after the frame is painted, ahead of the charts that are drawn then
    requestAnimationFrame(() => scheduler.postTask(() => { clock.took = performance.now() - clock.started; }, { priority: "user-blocking" }));
  }).observe(table, { subtree: true, childList: true, characterData: true });
  globalThis.paredownClock = clock;
}"""


REDRAWN = """() => {
  const all = (root) => [root, ...[...root.querySelectorAll("*")].filter((e) => e.shadowRoot).flatMap((e) => all(e.shadowRoot))];
  const chart = all(document).map((root) => root.querySelector("[data-chart=front]")).find(Boolean);
  const clock = { started: 0, took: null, draws: 0 };
  addEventListener("click", () => { clock.took = null; clock.draws = Number(chart.dataset.draws); clock.started = performance.now(); }, true);
  new MutationObserver(() => {
    if (clock.took !== null || !clock.started || Number(chart.dataset.draws) === clock.draws) return;
    clock.took = -1;
    requestAnimationFrame(() => { clock.took = performance.now() - clock.started; });
  }).observe(chart, { attributes: true, attributeFilter: ["data-draws"] });
  globalThis.paredownRedraw = clock;
}"""


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--study", type=Path, help="a finished study of demo:sentiment, in place of a new run")
    parser.add_argument("--large", action="store_true", help="the large study alone")
    parser.add_argument("--kept", type=Path, help="where the large study is kept for the next time; its many events take minutes to write")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.large:
            rows += looked_at(sentiment_study(arguments.study, Path(folder)), "sentiment")
        kept = arguments.kept or Path(folder) / "large"
        rows += looked_at(kept, "500 layers, 40 schemes, 5,000 plans", large(kept))
    show("Explorer in Chromium, Panel app, wall time", rows, arguments.json)


def large(folder: Path) -> Callable[[], None]:
    """Write a study of that size; returns what measures one more plan in it."""
    from fake_study import FakeStudy, measurement
    from paredown.specs import Plan, Scheme

    integers = [f"int{bits}g{group}" for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)]
    others = [f"{kind}{bits}g64{rounding}" for kind, rounding in (("int", "-gptq"), ("nf", "")) for bits in (2, 3, 4)]
    sparse = [f"int{bits}g64+2:4-wanda" for bits in (3, 4, 5, 6, 8)] + [f"int{bits}g64+50%" for bits in (3, 4, 8)]
    corrected = [f"int{bits}g64+eora{rank}" for bits in (2, 3, 4, 6) for rank in (16, 32)]
    schemes = [*integers, *others, *sparse, *corrected]
    study = FakeStudy(folder, blocks=LARGE["blocks"], schemes=schemes, pause_each=0)
    for _ in study.steps():
        pass
    assert (len(study.layers), len(schemes)) == (500, 40)
    problem, draw = study.problem(), random.Random(len(study.record().measurements))  # plans taken up again get others beside them
    found = [plan for plan in study.record().plans.values() if plan.schemes]
    names, parsed = [layer.name for layer in study.layers], [Scheme.parse(text) for text in schemes]

    def add() -> None:
        changed = {**draw.choice(found).schemes, **{name: draw.choice(parsed) for name in draw.sample(names, 20)}}
        predicted = problem.predict(changed)
        plan = Plan(
            study.info.model, study.info.digest, changed, predicted.bytes, predicted.loss_increase, predicted.loss_increase_sd, "searched"
        )
        study.store.append("fake", "search", "plan", payload=[plan])
        study.store.append("fake", "measure", "measurement", payload=[measurement(plan)])

    for _ in range(LARGE["plans"] - len(study.record().measurements)):
        add()
    return add


def looked_at(study: Path, name: str, add: Callable[[], None] | None = None) -> list[Row]:
    """Rows of one study."""
    with served(study) as address, page_of(address) as (page, received):
        times = edits(page)
        redraws = switches(page)
        rows = [
            row(f"{name}: key press to new predicted KL and size on screen, median of {len(times)}", statistics.median(times), "ms"),
            row(f"{name}: the same, 95th percentile", statistics.quantiles(times, n=20, method="inclusive")[-1], "ms"),
            row(f"{name}: click on the front's switch to the new chart, median of {len(redraws)}", statistics.median(redraws), "ms"),
        ]
        if add is not None:
            page.wait_for_timeout(3000)
            before, began = sum(received), time.monotonic()
            for number in range(STREAMED):
                add()
                page.wait_for_timeout(max(0.0, began + (number + 1) * EACH - time.monotonic()) * 1e3)
            taken = time.monotonic() - began
            rows.append(
                row(
                    f"{name}: sent while {STREAMED / taken:.1f} plans a second are measured", (sum(received) - before) / taken / 1e3, "kB/s"
                )
            )
        return rows


@contextmanager
def page_of(address: str) -> Iterator[tuple[Page, list[int]]]:
    """The app in Chromium, at rest, and the sizes of the websocket's messages so far."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    received: list[int] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1304, "height": 900})
            page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))))
            page.goto(address, timeout=300_000)
            page.locator("[data-chart=front][data-draws]").wait_for(timeout=120_000)
            page.wait_for_timeout(2000)
            yield page, received
        finally:
            browser.close()


def edits(page: Page) -> list[float]:
    """Milliseconds of each edit."""
    page.evaluate(CLOCK)
    page.get_by_role("rowheader").first.click()  # a block, or all of a role: one layer of 500 would move no digit
    return [edit(page, "35"[index % 2]) for index in range(EDITS + 2)][2:]  # the first two warm up


def switches(page: Page) -> list[float]:
    """Milliseconds of each redraw."""
    page.evaluate(REDRAWN)
    times = []
    for index in range(REDRAWS + 2):
        page.wait_for_timeout(SETTLED)
        page.get_by_role("radio", name=("Accuracy", "KL")[index % 2], exact=True).click()
        page.wait_for_function("() => globalThis.paredownRedraw.took > 0", timeout=30_000)
        times.append(float(page.evaluate("() => globalThis.paredownRedraw.took")))
    return times[2:]


@contextmanager
def served(study: Path) -> Iterator[str]:
    """The app on a free port, in a process of its own, as `paredown app` serves it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        sys.executable,
        "-c",
        "from paredown_widgets.commands import main; main()",
        "app",
        str(study),
        "--port",
        str(port),
        "--no-show",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(address, timeout=120).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("paredown app did not start") from None
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def edit(page: Page, key: str) -> float:
    """One key press, measured in the page."""
    page.wait_for_timeout(SETTLED)
    page.keyboard.press(key)
    page.wait_for_function("() => globalThis.paredownClock.took > 0", timeout=30_000)
    return float(page.evaluate("() => globalThis.paredownClock.took"))


if __name__ == "__main__":
    main()
