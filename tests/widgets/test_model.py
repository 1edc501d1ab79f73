"""The view model without any host: edits, groups, locks, undo, measuring, errors."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fake_study import FakeStudy, filled, layers
from paredown.specs import KEEP, Candidate, Scheme
from paredown_widgets import run
from paredown_widgets.handlers import handle
from paredown_widgets.model import ExplorerModel
from paredown_widgets.snapshot import snapshot

Q, K, V, OUT, FC1 = (layer.name for layer in layers()[1:6])


def opened(study: FakeStudy) -> ExplorerModel:
    model = ExplorerModel(study)
    model.refresh()
    return model


def test_an_empty_store_is_an_idle_model(tmp_path: Path) -> None:
    model = opened(FakeStudy(tmp_path))
    assert (model.state, model.plan, model.problem, model.budget) == ("idle", None, None, None)


def test_the_fold_is_the_same_in_one_go_and_event_by_event(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path, blocks=2)
    watched = opened(study)
    for _ in study.steps():
        watched.refresh()
    watched.refresh()
    late = opened(study)
    assert watched.measurements == late.measurements > 10
    assert watched.front == late.front
    assert watched.plan == late.plan
    assert watched.state == late.state == "done"


def test_the_first_plan_is_the_best_measured_one_within_the_budget(model: ExplorerModel) -> None:
    measured = model.measurement()
    assert measured is not None
    assert measured.kl is not None
    assert model.budget is not None
    assert measured.bytes <= model.budget
    assert all(m.kl >= measured.kl for m in model.measured_plans().values() if m.kl is not None and m.bytes <= model.budget)


def test_fused_layers_are_edited_and_selected_together(model: ExplorerModel, hand) -> None:
    hand("bits", layers=[K], bits=8)
    assert [hand.bits(name) for name in (Q, K, V)] == [8, 8, 8]
    hand("select", layers=[V], mode="replace")
    assert model.selection == [Q, K, V]
    hand("select", layers=[Q], mode="toggle")
    assert model.selection == []


def test_an_edit_changes_prediction_size_and_the_edit_count(model: ExplorerModel, hand) -> None:
    before = model.predict()
    hand("scheme", layers=[FC1], scheme="int8g64")
    after = model.predict()
    assert before is not None
    assert after is not None
    assert after.bytes > before.bytes
    assert after.loss_increase < before.loss_increase
    assert model.edits() == 1
    assert model.measurement() is None
    assert model.last_measurement() is not None
    hand("reset", layers=[FC1])
    assert model.edits() == 0
    assert model.measurement() is not None


def test_locked_layers_stay_when_edited_and_when_filled(model: ExplorerModel, hand) -> None:
    hand("bits", layers=[Q], bits=8)
    hand("lock", layers=[Q], locked=True)
    assert model.locked == [Q, K, V]
    hand("bits", layers=[V], bits=2)
    hand("fill")
    assert [hand.bits(name) for name in (Q, K, V)] == [8, 8, 8]
    prediction = model.predict()
    assert prediction is not None
    assert model.budget is not None
    assert prediction.bytes <= model.budget


def test_a_drag_is_one_undo_step(model: ExplorerModel, hand) -> None:
    hand("bits", layers=[OUT], bits=2)
    for _ in range(3):
        hand("step", layers=[OUT], by=1, gesture="drag 1")
    assert hand.bits(OUT) == 5
    hand("step", layers=[OUT], by=1, gesture="drag 2")
    hand("undo")
    assert hand.bits(OUT) == 5
    hand("undo")
    assert hand.bits(OUT) == 2
    hand("redo")
    assert hand.bits(OUT) == 5
    hand("undo")
    hand("step", layers=[OUT], by=-1, gesture="drag 2")
    assert hand.bits(OUT) == 2  # the end of the ladder
    hand("redo")
    assert hand.bits(OUT) == 5


def test_a_plan_is_loaded_by_its_digest_and_can_be_undone(model: ExplorerModel, hand) -> None:
    before = model.plan
    wanted = next(digest for digest in model.measured_plans() if digest != before.digest)
    hand("load_plan", digest=wanted)
    assert model.plan.digest == wanted
    assert model.measurement() is not None
    hand("undo")
    assert model.plan == before


def test_measuring_puts_the_plan_where_it_is_found_again(tmp_path: Path) -> None:
    model = opened(filled(tmp_path, blocks=1, pause_each=0.05))
    layer = model.record.layers[4].name
    handle(model, {"type": "bits", "layers": [layer], "bits": 8})
    assert model.measurement() is None
    count = model.measurements
    handle(model, {"type": "measure"})
    assert model.plan.digest in model.pending
    deadline = time.monotonic() + 10
    while model.measurement() is None:
        assert time.monotonic() < deadline
        model.refresh()
    assert model.pending == set()
    assert model.measurements == count + 1
    assert model.record.plans[model.plan.digest].found_by == "user"


def test_a_locked_layer_may_make_the_budget_impossible(model: ExplorerModel, hand) -> None:
    hand("bits", layers=list(model.editor.schemes), bits=8)
    hand("lock", layers=list(model.editor.schemes), locked=True)
    hand("budget", amount=9.0, unit="MB")
    assert "locked" in hand.refused("fill")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"type": "scheme", "layers": [Q], "scheme": "int4g128"}, "this study has no scheme int4g128"),
        ({"type": "scheme", "layers": [Q], "scheme": "four"}, "expected a scheme such as"),
        ({"type": "bits", "layers": [Q], "bits": 7}, r"expected one of this study's bits \(2, 3, 4, 5, 6, 8\), got 7"),
        ({"type": "bits", "layers": ["nowhere"], "bits": 4}, "this study has no layer 'nowhere'"),
        ({"type": "bits", "layers": [Q]}, "KeyError"),
        ({"type": "budget", "amount": -1, "unit": "MB"}, "positive number of MB"),
        ({"type": "budget", "amount": "lots", "unit": "MB"}, "ValueError"),
        ({"type": "load_plan", "digest": "none"}, "this study has no plan none"),
        ({"type": "y", "id": "beauty"}, "must be one of"),
        ({"type": "export", "target": "floppy"}, "export target must be one of"),
        ({"type": "dance"}, "does not know the message 'dance'"),
        ({}, "does not know the message None"),
    ],
)
def test_a_bad_message_becomes_an_error_and_changes_nothing(model: ExplorerModel, hand, message: dict, words: str) -> None:
    before = dict(model.editor.schemes)
    assert re.search(words, hand.refused(message.pop("type", None), **message))
    assert model.editor.schemes == before


def test_the_error_of_an_observer_is_shown_and_the_edit_stands(model: ExplorerModel) -> None:
    def observer(event: object) -> None:
        raise RuntimeError("my own mistake")

    model.param.watch(observer, "selection")
    handle(model, {"type": "select", "layers": [OUT], "mode": "replace"})
    assert model.error == {"text": "RuntimeError: my own mistake", "remedy": ""}
    assert model.selection == [OUT]
    handle(model, {"type": "dismiss_error"})
    assert model.error is None


def test_a_failed_run_says_where_and_what_to_do(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path, blocks=1, fail_at=Q)
    for _ in study.steps():
        pass
    state = run.view(opened(study))
    assert (state["state"], state["label"]) == ("failed", "Sensitivity failed")
    assert state["message"] == f"{Q}: out of memory"
    assert state["remedy"].startswith("use fewer calibration samples")
    assert state["can"] == ["run"]


def test_a_kept_layer_is_left_out_of_edits_and_of_uniform_plans(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path, blocks=1)
    for _ in study.steps():
        pass
    kept = study.layers[-1].name
    study.store.append("fake", "sensitivity", "candidates", layer=kept)
    model = opened(study)
    model.record.candidates[kept] = {KEEP: Candidate(kept, KEEP, KEEP, 590_000, 0.0, 0.0, 0.0, "never run")}
    handle(model, {"type": "bits", "layers": [kept, OUT], "bits": 3})
    assert model.error is None
    assert str(model.editor.schemes[OUT]) == "int3g64"
    assert str(model.editor.schemes[kept]) != "int3g64"
    assert model.uniform(4)[kept] == KEEP


def test_a_plan_with_effective_schemes_is_shown_as_it_was_asked(model: ExplorerModel) -> None:
    asked, applied = Scheme.parse("int4g64"), Scheme.parse("int4")
    offered = model.record.candidates[OUT]
    offered[asked] = replace(offered[asked], effective=applied, note="64 does not divide 100")
    assert model.as_asked({OUT: applied})[OUT] == asked


def test_readers_and_editors_in_many_threads_lose_nothing(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path, blocks=2, pause_each=0.0)
    model = opened(study)
    study.start()
    stop = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        while not stop.is_set():
            try:
                snapshot(model)
            except BaseException as error:  # the test's whole point
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    edits = 0
    while study.running or model.refresh():
        model.refresh()
        names = list(model.editor.schemes)
        if names and model.problem is not None:
            handle(model, {"type": "step", "layers": [names[edits % len(names)]], "by": 1 if edits % 2 else -1})
            edits += 1
    stop.set()
    reader.join()
    assert failures == []
    assert model.error is None
    assert set(model.measured_plans()) == {plan.digest for plan in study.plans()}
    while model.editor.can_undo:
        handle(model, {"type": "undo"})
    assert edits > 0


def test_the_fake_measures_what_it_predicts(model: ExplorerModel) -> None:
    """The tests above lean on it: worse predictions are worse measurements, and the original has none."""
    by_kl = sorted((m.kl or 0.0, model.record.plans[d].loss_increase or 0.0) for d, m in model.record.measurements.items())
    assert by_kl[0] == (0.0, 0.0)
    assert by_kl[-1][1] == max(loss for _, loss in by_kl)
