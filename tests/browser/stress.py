"""A person who does not stop, on a study that does not either: ``python tests/browser/stress.py --minutes 20 --seed 0 [--host lab]``.

Plans are measured several times a second while random gestures (`gestures`) are made in a real browser, each of which must have its effect
on Python's state and on the screen in time: else it is lost. Once a minute, at rest, memory is read after a forced collection: of the
page (JavaScript's heap, nodes, listeners) and of the process that Python runs in (resident bytes, blocks of its allocator). What is known
stops growing when `MOST` plans were measured, which is before `WARM`; from then on they are measured again. Fails where a gesture was
lost, the console had an error, or memory grew by 5 % or more between the first and the last three readings after `WARM` minutes. Of the
page that is what the heap holds without machine code: as long as V8 finds something to optimise, code is most of what the heap grows by.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from playwright.sync_api import CDPSession, Page

from browser.gestures import GESTURES, one_gesture
from browser.labdrive import Lab, Watch, browser, command, eventually, free_port, open_notebook, peek, wait_cells, write_notebook
from browser.person import TABS, WITHIN, Person

MOST = 300
"""Plans."""
EACH = 0.25
"""Seconds between two of them."""
WARM = 4
"""Minutes before memory counts."""
GROWTH = 0.05
TESTS = Path(__file__).parents[1]

Ask = Callable[[str], Any]


@contextlib.contextmanager
def panel(folder: Path, most: int, chromium: str) -> Iterator[tuple[Page, Ask, Watch]]:
    """The Panel app in a process of its own, which answers questions."""
    port = free_port()
    command_line = [sys.executable, str(Path(__file__).with_name("streaming.py")), str(folder), str(port), str(most), str(EACH)]
    with (folder.parent / "app.log").open("w") as log:
        process = subprocess.Popen(command_line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdin is not None
    assert process.stdout is not None

    def ask(expression: str) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(expression + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith("answer "):
                said = json.loads(line.removeprefix("answer "))
                if "error" in said:
                    raise RuntimeError(f"{expression}: {said['error']}")
                return said["value"]
        raise RuntimeError((folder.parent / "app.log").read_text()[-3000:])

    try:
        with browser(chromium, size=(1304, 900)) as context:
            page = context.pages[0]
            watch = Watch(page)
            eventually(lambda: _listens(port), 120)
            page.goto(f"http://127.0.0.1:{port}/", timeout=120_000)
            page.locator("[data-chart=front][data-draws]").wait_for(timeout=60_000)
            ask("globals().update(model=next(iter(models)))")
            yield page, ask, watch
    finally:
        process.terminate()
        process.wait(30)
        process.stdin.close()
        process.stdout.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def jupyter(folder: Path, most: int, chromium: str) -> Iterator[tuple[Page, Ask, Watch]]:
    """A notebook in JupyterLab; its kernel answers."""
    root = folder.parent / "notebooks"
    root.mkdir()
    lab = Lab(root)
    cell = f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom browser.streaming import *\nfrom paredown_widgets import Explorer\nstudy = StreamingStudy({str(folder)!r}, most={most}, pause_each={EACH})"
    write_notebook(root / "stress.ipynb", [cell, "explorer = Explorer(study).run()\nmodel = explorer.model\nexplorer"])
    try:
        with browser(chromium, size=(1304, 900)) as context:
            page = context.pages[0]
            watch = Watch(page)
            open_notebook(page, lab, "stress.ipynb")
            command(page, "notebook:run-all-cells")
            page.locator("[data-chart=front][data-draws]").wait_for(timeout=120_000)
            wait_cells(page)
            command(page, "application:toggle-left-area")
            with lab.kernel("stress.ipynb") as kernel:
                yield page, lambda expression: peek(kernel, expression), watch
    finally:
        lab.close()


FULL = """[handle(model, {"type": "bits", "layers": ["bert.pooler.dense"], "bits": 2 + turn % 2}) for turn in range(200)] and None"""
"""Fills the history of the plan, so that it is as long at the first reading as at the last."""

HOSTS = {"panel": panel, "lab": jupyter}


def rest(one: Person) -> None:
    """The same screen before every reading: what is shown is no more than at the last one."""
    page, pd = one.page, one.pd
    page.keyboard.press("Escape")
    page.mouse.click(3, 3)
    page.set_viewport_size({"width": 1304, "height": 900})
    for view in TABS[1:]:  # what is drawn there was drawn before the first reading
        one.tab(view)
    for digest in one.python()["added"]:
        one.tab("compare")
        pd.locator(f'.pd-metrics th[data-digest="{digest}"] button').click()
        one.until(lambda python, _, digest=digest: digest not in python["added"])
    one.grid()
    pd.locator(".pd-card").get_by_role("button", name="Plans").click()
    pd.locator('.pd-card [data-plan="uniform int4g64"]').click()
    one.until(lambda python, _: all(layer["scheme"] == "int4g64" for layer in python["layers"].values()))
    wanted = {"x": "bytes", "y": "kl", "order": "model", "spectrum": "selected"}
    for label, key in (("Horizontal axis", "x"), ("Vertical axis", "y"), ("Order", "order"), ("Layers shown", "spectrum")):
        if one.screen()[key] != wanted[key]:
            pd.get_by_role("radiogroup", name=label).locator(f'[data-option="{wanted[key]}"]').click()
            one.until(lambda python, _, key=key: python[key] == wanted[key])
    pd.get_by_label("Colour by").select_option("bits")
    pd.locator(".pd-sens select").first.select_option("kl")
    one.cell("bert.pooler.dense").click()
    one.until(lambda python, _: python["selection"] == ["bert.pooler.dense"] and python["sensitivity"] == "kl")
    page.mouse.move(3, 3)
    time.sleep(1)


def data_of_page(session: CDPSession) -> float:
    """Bytes of all that the page's heap holds but machine code; some seconds of work."""
    chunks: list[str] = []
    session.on("HeapProfiler.addHeapSnapshotChunk", lambda event: chunks.append(event["chunk"]))
    session.send("HeapProfiler.takeHeapSnapshot", {"reportProgress": False})
    found = json.loads("".join(chunks))
    fields, kinds = (found["snapshot"]["meta"][key] for key in ("node_fields", "node_types"))
    nodes = np.array(found["nodes"]).reshape(-1, len(fields))
    code = nodes[:, fields.index("type")] == kinds[fields.index("type")].index("code")
    return float(nodes[~code, fields.index("self_size")].sum())


def reading(one: Person, counted: bool) -> dict[str, float]:
    """Memory of page and process, after collections; the page's data only where that is counted."""
    rest(one)
    session = one.page.context.new_cdp_session(one.page)
    for _ in range(3):
        session.send("HeapProfiler.collectGarbage")
    used = session.send("Runtime.getHeapUsage")["usedSize"]
    dom = session.send("Memory.getDOMCounters")
    data = {"data": data_of_page(session) / 1e6} if counted else {}
    session.detach()
    python, own = one.python(), one.ask("memory()")
    return data | {
        "heap": used / 1e6, "nodes": dom["nodes"], "listeners": dom["jsEventListeners"], "resident": own["resident"] / 1e6, "blocks": own["blocks"] / 1e3,
        "plans": python["plans"], "events": python["events"], "draws": one.screen()["draws"],
    }  # fmt: skip


class Stalls:
    """Notices when the machine stood still for seconds (a laptop that sleeps, a process that was stopped): what is missed then is nobody's fault."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.until = 0.0
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        while True:
            time.sleep(0.5)
            now = time.monotonic()
            if now - self.last > 5:
                self.until = now
            self.last = now


def growth(readings: list[dict[str, float]], key: str, warm: int) -> float | None:
    """Share by which the median of the last three is above that of the first three after the warm-up; None for too few readings."""
    counted = [one[key] for one in readings if one["minute"] > warm and key in one]
    if len(counted) < 6:
        return None
    first, last = statistics.median(counted[:3]), statistics.median(counted[-3:])
    return last / first - 1


def ran(one: Person, minutes: float, warm: int, told: Callable[[str], None], watch: Watch) -> tuple[list[str], list[dict[str, float]]]:
    """Gestures for so long; what was lost, and the readings of each minute."""
    lost: list[str] = []
    readings: list[dict[str, float]] = []
    kinds, weights = list(GESTURES), list(GESTURES.values())
    one.ask(FULL)
    began, made, due, stalls = time.monotonic(), 0, 60.0, Stalls()
    while (now := time.monotonic() - began) < 60 * minutes + 5:
        if now >= due:
            counted = warm < now / 60 <= warm + 3 or now / 60 > minutes - 2.5
            readings.append(reading(one, counted) | {"minute": now / 60})
            told(line(made, len(lost), watch, readings[-1]))
            due = 60 * (now // 60 + 1)
        gesture = one.draw.choices(kinds, weights)[0]
        problem = one_gesture(one, gesture)
        if problem is not None and stalls.until > began + now:
            told(f"the machine stood still during {gesture.__name__} at {now:.0f} s, which does not count")
            recover(one)
            continue
        made += 1
        if problem is not None:
            lost.append(f"{gesture.__name__} at {now:.0f} s: {problem}")
            told(lost[-1])
            one.page.screenshot(path=Path(tempfile.gettempdir()) / f"lost_{len(lost)}.png")
            recover(one)
    return lost, readings


def recover(one: Person) -> None:
    """After a lost gesture: no menu open, no error shown, the run going on."""
    with contextlib.suppress(Exception):
        one.page.keyboard.up("Shift")
        one.page.mouse.up()
        one.page.keyboard.press("Escape")
        one.page.mouse.click(3, 3)
        one.ask("model.__setattr__('error', None) or study.resume() or study.start() and None")
        one.page.set_viewport_size({"width": 1304, "height": 900})
        time.sleep(2)  # Escape empties the selection


HEADS = (
    "minute",
    "gestures",
    "lost",
    "console",
    "data MB",
    "heap MB",
    "nodes",
    "listeners",
    "resident MB",
    "blocks k",
    "plans",
    "events",
    "draws",
)


def line(made: int, lost: int, watch: Watch, read: dict[str, float]) -> str:
    words = [
        f"{read['minute']:.0f}",
        made,
        lost,
        len(watch.errors),
        f"{read['data']:.2f}" if "data" in read else "",
        f"{read['heap']:.2f}",
        *(f"{read[key]:.0f}" for key in ("nodes", "listeners")),
        f"{read['resident']:.1f}",
        f"{read['blocks']:.1f}",
    ]
    words += [f"{read[key]:.0f}" for key in ("plans", "events", "draws")]
    return "| " + " | ".join(map(str, words)) + " |"


def summary(one: Person, lost: list[str], readings: list[dict[str, float]], watch: Watch, warm: int) -> list[str]:
    """Print what came of it; returns the reasons to fail."""
    every = sorted(second for taken in one.took.values() for second in taken)
    print(
        f"\n{len(every) + len(lost)} gestures of {len(one.took)} kinds, {len(lost)} lost; from gesture to effect, as seen from here: median {1e3 * statistics.median(every):.0f} ms, ",
        end="",
    )
    print(f"95th percentile {1e3 * every[int(0.95 * len(every))]:.0f} ms, longest {1e3 * every[-1]:.0f} ms")
    for name, taken in sorted(one.took.items(), key=lambda item: -max(item[1]))[:8]:
        print(f"  {name}: {len(taken)}, median {1e3 * statistics.median(taken):.0f} ms, longest {1e3 * max(taken):.0f} ms")
    failures = [f"{len(lost)} gestures lost"] * bool(lost)
    for key in ("data", "nodes", "listeners", "resident", "blocks"):
        share = growth(readings, key, warm)
        if share is not None:
            print(f"growth of {key} after minute {warm}: {100 * share:+.1f} %")
            failures += [f"{key} grew by {100 * share:.1f} %"] * (share >= GROWTH)
    failures += [f"console: {error}" for error in watch.errors] + [f"asked for {address}" for address in watch.outside]
    print("FAILED: " + "; ".join(failures) if failures else "passed")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--host", choices=HOSTS, default="panel")
    parser.add_argument("--warm", type=int, default=WARM, help="minutes before memory counts")
    arguments = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as place, HOSTS[arguments.host](Path(place) / "study", MOST, chromium) as (page, ask, watch):
        one = Person(page, ask, random.Random(arguments.seed))
        page.set_default_timeout(1e3 * WITHIN)
        print(f"{arguments.host}, seed {arguments.seed}\n| {' | '.join(HEADS)} |\n|{' ---: |' * len(HEADS)}", flush=True)
        lost, readings = ran(one, arguments.minutes, arguments.warm, lambda words: print(words, flush=True), watch)
        return bool(summary(one, lost, readings, watch, arguments.warm))


if __name__ == "__main__":
    sys.exit(main())
