"""The real Panel app with two browser windows on one running study."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser.labdrive import Watch, browser, click_point, eventually, free_port, points

pytestmark = pytest.mark.browser
TESTS = Path(__file__).parents[1]
SERVER = """
import sys
sys.path.insert(0, sys.argv[1])
from fake_study import FakeStudy
from paredown_widgets import serve
serve(FakeStudy(sys.argv[2], pause_each=0.15), port=int(sys.argv[3]))
"""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """The app in a process of its own, as `paredown app` serves it."""
    port = free_port()
    log = (tmp_path / "app.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(TESTS), str(tmp_path / "study"), str(port)], stdout=log, stderr=subprocess.STDOUT
    )
    address = f"http://127.0.0.1:{port}/"
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(address, timeout=5)
            break
        except OSError:
            assert process.poll() is None, (tmp_path / "app.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(15)
    log.close()


def test_two_sessions_see_the_run_and_each_has_a_plan_of_its_own(address: str, chromium: str) -> None:
    with browser(chromium, size=(1300, 950)) as context:
        first, second = context.new_page(), context.new_page()
        watches = [Watch(first), Watch(second)]
        first.goto(address)
        first.locator(".pd").wait_for(timeout=60_000)
        first.get_by_role("button", name="Run", exact=True).click()
        second.goto(address)

        first.bring_to_front()
        eventually(lambda: first.locator("[data-chart=front] .js-plotly-plot").count() == 1 and points(first, "measured") > 0, 60)
        seen = [points(first, "measured")]
        eventually(lambda: seen[-1] < (now := points(first, "measured")) and not seen.append(now) and len(seen) >= 4, 30)

        # a click on a measured point loads that plan, in this session only
        eventually(lambda: first.locator(".pd-grid [role=gridcell]").count() == 36)
        eventually(lambda: second.locator(".pd-grid [role=gridcell]").count() == 36)
        proposed = grid(second)
        click_point(first, "measured", 0)
        eventually(lambda: grid(first) != proposed)
        loaded = grid(first)

        # a key on a cell: its fused group follows, and undo brings it back
        first.locator(".pd-grid [role=gridcell]").first.click()
        first.keyboard.press("8")
        eventually(lambda: grid(first)[:3] == ["8", "8", "8"])
        first.keyboard.press("Control+z")
        eventually(lambda: grid(first) == loaded)

        eventually(lambda: "Done" in first.locator(".pd-run").inner_text(), 60)

        # an edit changes what is predicted, on the screen
        predicted = first.locator(".pd-tbl td.pred")
        size, kl = predicted.nth(0), predicted.nth(2)
        before = (size.inner_text(), kl.inner_text())
        first.keyboard.press("2")
        eventually(lambda: grid(first)[:3] == ["2", "2", "2"])
        eventually(lambda: size.inner_text() != before[0] and kl.inner_text() != before[1])

        # what the pointer is on lights up, from one cell to the next
        cells = first.locator(".pd-grid [role=gridcell]")
        for index in (8, 9):
            cells.nth(index).hover()
            eventually(lambda index=index: "hover" in (cells.nth(index).get_attribute("class") or ""))
        second.bring_to_front()
        eventually(lambda: points(second, "measured") == points(first, "measured"), 30)
        for watch in watches:
            assert watch.outside == []
            assert watch.errors == []


def grid(page) -> list[str]:
    """The digits of the plan, cell by cell."""
    return [text.strip()[:1] for text in page.locator(".pd-grid [role=gridcell]").all_inner_texts()]


@pytest.mark.parametrize(("origin", "answer"), [("http://evil.example", "403"), ("own", "101")])
def test_pages_of_other_sites_may_not_connect(address: str, origin: str, answer: str) -> None:
    """A web page elsewhere that guesses the port gets no websocket."""
    port = int(address.rsplit(":", 1)[1].strip("/"))
    lines = [
        "GET /ws HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Origin: {address.strip('/') if origin == 'own' else origin}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: bokeh, none",
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        assert connection.recv(64).split()[1].decode() == answer
