"""How long a person waits in the browser: from a key press that changes a layer's bits to its new predicted figures on the screen.

The real Panel app, Chromium, and a clock inside the page: it starts at the key press and stops in the first frame after both the size
and the predicted KL of the plan's table show other text. ``python benchmarks/explorer_latency.py --study studies/sentiment`` takes a
finished study and spares the run.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from _rows import Row, options, row, show

EDITS = 20
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
    requestAnimationFrame(() => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => { clock.took = performance.now() - clock.started; };
      port2.postMessage(0); // arrives when the frame is painted
    });
  }).observe(table, { subtree: true, childList: true, characterData: true });
  globalThis.paredownClock = clock;
}"""


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--study", type=Path, help="a finished study of demo:sentiment, in place of a new run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        if arguments.study:
            shutil.copytree(arguments.study, study)  # the app writes down the plan in the user's hands
        else:
            command = [sys.executable, "-m", "paredown.cli", "run", "demo:sentiment", "--study", str(study), "--json"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with served(study) as address:
            times = edits(address)
    show("Key press to new figures on the screen, Panel app in Chromium, wall time", summary(times), arguments.json)


def summary(times: list[float]) -> list[Row]:
    """Median and 95th percentile of `times`, ms."""
    return [
        row(f"key press to new predicted KL and size on screen, median of {len(times)}", statistics.median(times), "ms"),
        row(f"the same, 95th percentile of {len(times)}", statistics.quantiles(times, n=20, method="inclusive")[-1], "ms"),
    ]


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
        address, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(address, timeout=30).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("paredown app did not start") from None
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def edits(address: str) -> list[float]:
    """Milliseconds of each edit."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            page = browser.new_page(viewport={"width": 1304, "height": 900})
            page.goto(address, timeout=120_000)
            page.locator("[data-chart=front][data-draws]").wait_for(timeout=60_000)
            page.wait_for_timeout(2000)
            page.evaluate(CLOCK)
            page.locator(".pd-grid [role=gridcell]").nth(4).click()
            return [edit(page, "35"[index % 2]) for index in range(EDITS + 2)][2:]  # the first two warm up
        finally:
            browser.close()


def edit(page: Page, key: str) -> float:
    """One key press, measured in the page."""
    page.wait_for_timeout(SETTLED)
    page.keyboard.press(key)
    page.wait_for_function("() => globalThis.paredownClock.took > 0", timeout=30_000)
    return float(page.evaluate("() => globalThis.paredownClock.took"))


if __name__ == "__main__":
    main()
