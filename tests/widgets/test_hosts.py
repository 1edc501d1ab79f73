"""The hosts without a browser: what goes over the wire, and that nothing is lost on it."""

from __future__ import annotations

import gzip
import hashlib
import json
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import comm
import plotly
import pytest
from comm.base_comm import BaseComm

from fake_study import FakeStudy, filled
from paredown_widgets import plotly_js
from paredown_widgets import pump as pumping
from paredown_widgets.handlers import handle
from paredown_widgets.jupyter import ExplorerWidget
from paredown_widgets.model import ExplorerModel
from paredown_widgets.panel_host import ExplorerPane
from paredown_widgets.pump import Pump, Watcher
from reference.patched import patched


class Wire(BaseComm):
    """A comm that keeps what is sent."""

    def __init__(self, *args: Any, **more: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        super().__init__(*args, **more)

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **keys: Any) -> None:
        self.sent.append({"type": msg_type, "data": data})

    @property
    def states(self) -> list[dict[str, Any]]:
        return [
            message["data"]["state"] for message in self.sent if message["type"] == "comm_msg" and message["data"]["method"] == "update"
        ]


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> list[Wire]:
    made: list[Wire] = []

    def create(*args: Any, **more: Any) -> Wire:
        made.append(Wire(*args, **more))
        return made[-1]

    monkeypatch.setattr(comm, "create_comm", create)
    return made


def as_shown(wire: Wire) -> dict[str, Any]:
    """What a browser holds that took every message so far."""
    shown: dict[str, Any] = {**wire.sent[0]["data"]["state"]}
    for state in wire.states:
        patch = state.get("patch")
        shown.update(state)
        if patch:
            assert patch["after"] in (None, shown["held"])
            shown.update({name: patched(shown.get(name), change) for name, change in patch["traits"].items()}, held=patch["seq"])
    return shown


def eventually(check: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def send(widget: ExplorerWidget, **message: Any) -> None:
    """What the kernel does with a custom message of the browser."""
    widget._handle_msg({"content": {"data": {"method": "custom", "content": message}}, "buffers": []})


def test_a_click_changes_python_and_comes_back_as_its_figures_and_then_the_rest(model: ExplorerModel, wires: list[Wire]) -> None:
    widget = ExplorerWidget(model)
    wire = next(w for w in wires if w.comm_id == widget.model_id)
    opened = wire.sent[0]["data"]["state"]
    assert opened["front"]["count"] == "22 measured"
    assert opened["bundle"].startswith("IPY_MODEL_")
    digest = next(d for d in model.measured_plans() if d != model.plan.digest)
    send(widget, type="load_plan", digest=digest)
    assert model.plan.digest == digest
    eventually(lambda: len(wire.states) == 2)
    time.sleep(0.3)
    figures, rest = wire.states
    assert set(figures) == {"plan", "summary", "budget", "held", "seq"}
    assert {"front_plan", "sensitivity", "seq"} <= set(rest)
    assert not {"plan", "grid", "what_if", "head", "log"} & set(rest)  # what did not change does not travel
    widget.close()


def test_plotly_travels_once_a_kernel(model: ExplorerModel, wires: list[Wire]) -> None:
    first, second = ExplorerWidget(model), ExplorerWidget(model)
    assert first.bundle == second.bundle
    assert sum("code_gz" in str(w.sent[0]["data"]["state"].keys()) for w in wires if w.sent[0]["data"]) <= 1
    first.close()
    second.close()


def test_plotly_js_is_what_npm_has_in_the_version_of_the_python_package() -> None:
    script = gzip.decompress(plotly_js.packed())
    assert hashlib.sha256(script).hexdigest() == plotly_js.SHA256  # after another pin: VERSION and SHA256, then make plotly
    whole = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    for first_lines in (script[:200], whole.read_bytes()[:200]):
        assert f"v{plotly_js.VERSION}\n" in first_lines.decode()


def test_pushes_are_paced_and_wait_for_the_drawing(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path, blocks=2, pause_each=0.005)
    model = ExplorerModel(study)
    pushed: list[tuple[float, int]] = []
    view = Pump(model, lambda changed: pushed.append((time.monotonic(), changed["seq"]))).start()
    watcher = Watcher(model)
    study.start().wait()
    eventually(lambda: model.state == "done")
    view.receive({"type": "ack", "seq": 0})  # a browser is there, and has not drawn the last push
    eventually(lambda: len(pushed) > 1)
    while len(pushed) > 1 and pushed[-1][0] > time.monotonic() - 0.3:
        time.sleep(0.05)
    gaps = [later - sooner for (sooner, _), (later, _) in pairwise(pushed)]
    assert sorted(gaps)[len(gaps) // 2] > 0.9 * pumping.PERIOD
    count = len(pushed)
    model.filter = "q"
    model.changed()
    time.sleep(0.5)
    assert len(pushed) == count  # not drawn: not pushed over
    view.receive({"type": "ack", "seq": pushed[-1][1]})
    eventually(lambda: len(pushed) == count + 1)
    watcher.close()
    view.close()


def test_the_figures_of_an_edit_are_drawn_before_the_rest_is_pushed(model: ExplorerModel) -> None:
    pushed: list[set[str]] = []
    view = Pump(model, lambda changed: pushed.append(set(changed["patch"]["traits"]))).start()
    view.receive({"type": "ack", "seq": 0})
    view.receive({"type": "bits", "layers": [model.record.layers[5].name], "bits": 2})
    assert pushed == [{"plan", "budget", "summary"}]
    time.sleep(2 * pumping.PERIOD)
    assert len(pushed) == 1
    view.receive({"type": "ack", "seq": 1})
    eventually(lambda: len(pushed) == 2)
    assert {"front_plan", "sensitivity"} <= pushed[1]
    assert not pushed[0] & pushed[1]
    view.close()


def test_a_browser_that_never_answers_holds_up_nothing_for_long(model: ExplorerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pumping, "PATIENCE", 0.2)
    pushed: list[int] = []
    view = Pump(model, lambda changed: pushed.append(changed["seq"])).start()
    view.receive({"type": "ack", "seq": 0})
    for text in ("q", "k", "v"):
        model.filter = text
        model.changed()
        count = len(pushed)
        eventually(lambda count=count: len(pushed) > count, 3)
    view.close()


def test_what_a_person_did_is_shown_at_once(model: ExplorerModel) -> None:
    pushed: list[float] = []
    view = Pump(model, lambda changed: pushed.append(time.monotonic())).start()
    model.filter = "q"
    model.changed()
    eventually(lambda: len(pushed) == 1)
    started = time.monotonic()
    view.receive({"type": "bits", "layers": [model.record.layers[5].name], "bits": 8})
    eventually(lambda: len(pushed) == 2)
    assert pushed[-1] - started < pumping.PERIOD  # it did not wait out the period of the last push
    view.close()


def test_no_update_is_lost_between_two_threads(model: ExplorerModel, wires: list[Wire]) -> None:
    """A browser's state message and a push at the same time: after the last one both sides agree."""
    widget = ExplorerWidget(model)
    wire = next(w for w in wires if w.comm_id == widget.model_id)
    names = [layer.name for layer in model.record.layers]
    stop = threading.Event()

    def browser() -> None:
        while not stop.is_set():
            widget._handle_msg({"content": {"data": {"method": "update", "state": {"theme": "dark"}, "buffer_paths": []}}, "buffers": []})
            send(widget, type="ack", seq=widget.seq)

    thread = threading.Thread(target=browser)
    thread.start()
    for k in range(60):
        send(widget, type="step", layers=[names[k % len(names)]], by=1 if k % 3 else -1)
        time.sleep(0.005)
    stop.set()
    thread.join()

    def agrees() -> bool:
        shown = as_shown(wire)
        return shown["plan"] == widget.pump.first["plan"] and all(
            shown["plan"]["cells"][name]["scheme"] == str(scheme) for name, scheme in model.editor.schemes.items()
        )

    eventually(agrees)
    sequence = [state["seq"] for state in wire.states if "seq" in state]
    assert sequence == sorted(set(sequence))
    widget.close()


def test_the_error_of_a_view_reaches_the_model(model: ExplorerModel) -> None:
    def broken(changed: Any) -> None:
        raise RuntimeError("gone")

    view = Pump(model, broken).start()
    model.filter = "q"
    model.changed()
    eventually(lambda: model.error is not None)
    assert model.error == {"text": "The view could not be updated: gone", "remedy": "display the explorer again"}
    view.close()


def test_panel_takes_each_message_once(model: ExplorerModel) -> None:
    pane = ExplorerPane(model)
    layer = model.record.layers[5].name
    handle(model, {"type": "bits", "layers": [layer], "bits": 2})
    step = {"type": "step", "layers": [layer], "by": 1}
    pane.event = {"n": 1, "items": [{**step, "n": 1}]}
    pane.event = {"n": 3, "items": [{**step, "n": 1}, {**step, "n": 2}, {**step, "n": 3}]}
    assert str(model.editor.schemes[layer]) == "int5g64"
    assert pane.heard == 3  # the browser need not send them again
    eventually(lambda: pane.pump.first["plan"]["cells"][layer]["text"] == "5" and json.loads(pane.patch)["seq"] == pane.seq)
    pane.close()


def test_a_watcher_follows_a_study_that_another_process_writes(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path, blocks=1)
    model = ExplorerModel(FakeStudy(tmp_path, blocks=1))
    watcher = Watcher(model)
    for _ in study.steps():
        pass
    eventually(lambda: model.state == "done")
    assert model.measurements == len(study.plans())
    watcher.close()


def test_a_watcher_survives_a_store_that_fails_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = filled(tmp_path, blocks=1)
    model = ExplorerModel(study)
    events = study.store.events
    monkeypatch.setattr(study.store, "events", lambda **_: 1 / 0)
    watcher = Watcher(model)
    eventually(lambda: model.error is not None)
    monkeypatch.setattr(study.store, "events", events)
    eventually(lambda: model.state == "done")
    watcher.close()
