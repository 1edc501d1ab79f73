"""What a person decides on a whole plan: history, presets, saved plans, the budget's unit, what is measured first; and as Python again."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fake_study import RICH, FakeStudy, filled, layers
from paredown.errors import ParedownError
from paredown.search import Problem, allocate
from paredown.specs import KEEP, Priority, Scheme
from paredown_widgets import Explorer, budget, memory, summary
from paredown_widgets.handlers import handle
from paredown_widgets.memory import remember
from paredown_widgets.model import ExplorerModel
from paredown_widgets.pump import Pump, Watcher
from paredown_widgets.python_code import as_python
from paredown_widgets.snapshot import snapshot

Q, K, V, OUT, FC1, FC2 = (layer.name for layer in layers()[1:7])


@pytest.fixture(scope="module")
def timed_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("timed") / "done", timed=True).folder


@pytest.fixture
def timed(timed_template: Path, tmp_path: Path) -> ExplorerModel:
    return opened(Path(shutil.copytree(timed_template, tmp_path / "timed")), timed=True)


def opened(folder: Path, **more: bool) -> ExplorerModel:
    model = ExplorerModel(FakeStudy(folder, **more))
    model.refresh()
    return model


def eventually(check: Callable[[], object], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- the history


def test_the_history_names_every_step_and_goes_to_any(model: ExplorerModel, hand) -> None:
    begun = dict(model.editor.schemes)
    hand("bits", layers=[OUT], bits=2)
    hand("bits", layers=[FC1], bits=8)
    edited = dict(model.editor.schemes)
    hand("fill")
    steps = snapshot(model)["steps"]
    assert steps["place"] == 3
    assert [row["label"] for row in steps["rows"]] == [
        "fill the rest", "Block 0 fc1 to 8 bit", "Block 0 o to 2 bit", "the plan that it began with",
    ]  # fmt: skip
    hand("go_to", place=0)
    assert model.editor.schemes == begun
    assert [row["undone"] for row in snapshot(model)["steps"]["rows"]] == [True, True, True, False]
    hand("go_to", place=2)
    assert model.editor.schemes == edited
    assert "expected a place from 0 to 3" in hand.refused("go_to", place=4)


def test_the_history_outlives_the_kernel(model: ExplorerModel, hand, done_folder: Path) -> None:
    begun = dict(model.editor.schemes)
    hand("bits", layers=[OUT], bits=2)
    hand("fill")
    hand("bits", layers=[FC1], bits=8)
    last = dict(model.editor.schemes)
    hand("undo")
    remember(model)
    again = opened(done_folder)
    assert snapshot(again)["steps"] == snapshot(model)["steps"]
    handle(again, {"type": "go_to", "place": 3})
    assert again.editor.schemes == last
    handle(again, {"type": "go_to", "place": 0})
    assert again.editor.schemes == begun
    assert as_python(opened(done_folder)) == as_python(model)


def test_a_long_history_is_kept_in_part(model: ExplorerModel, hand, done_folder: Path) -> None:
    for round_ in range(70):
        hand("bits", layers=[OUT], bits=2 + round_ % 2)
    remember(model)
    assert len(opened(done_folder).editor.steps) == 60
    assert opened(done_folder).editor.schemes == model.editor.schemes


# -- presets and saved plans


def test_presets_load_whole_plans(model: ExplorerModel, hand) -> None:
    groups = snapshot(model)["presets"]["groups"]
    assert [group["label"] for group in groups] == ["At the budget", "Uniform"]
    hand("preset", id="uniform int3g64")
    assert {str(scheme) for scheme in model.editor.schemes.values()} == {"int3g64"}
    hand("preset", id="kept")
    assert set(model.editor.schemes.values()) == {KEEP}
    hand("preset", id="optimum")
    assert model.problem is not None
    assert model.editor.schemes == allocate(model.problem, int(model.budget or 0))
    hand("preset", id="best")
    measured = model.measurement()
    assert measured is not None
    fitting = [m.kl for m in model.measured_plans().values() if m.bytes <= (model.budget or 0) and m.kl is not None]
    assert measured.kl == min(fitting)
    assert len(model.editor.steps) == 4
    assert [item["id"] for item in groups[1]["items"]] == [f"uniform {scheme}" for scheme in model.choices.schemes]
    assert all(item["note"] for group in groups for item in group["items"])
    assert "which 0 plans begin with" in hand.refused("preset", id="nothing of the sort")


def test_a_preset_says_what_it_did_to_locked_layers(model: ExplorerModel, hand) -> None:
    hand("bits", layers=[OUT], bits=2)
    hand("lock", layers=[OUT], locked=True)
    hand("preset", id="uniform int8g64")
    assert model.status == "1 locked layer changed with it"
    assert model.locked == [OUT]


def test_saved_plans_are_shared_by_the_explorers_of_a_study(model: ExplorerModel, hand, done_folder: Path) -> None:
    other = opened(done_folder)
    hand("bits", layers=[OUT], bits=8)
    wanted = dict(model.editor.schemes)
    hand("save_plan", name="  careful   o ")
    handle(other, {"type": "save_plan", "name": "theirs"})
    assert [saved["name"] for saved in snapshot(model)["presets"]["saved"]] == ["careful o", "theirs"]
    handle(other, {"type": "preset", "id": "careful o"})
    assert other.editor.schemes == wanted
    assert [saved["now"] for saved in snapshot(other)["presets"]["saved"]] == [True, False]
    hand("forget_plan", name="careful o")
    assert [saved["name"] for saved in snapshot(other)["presets"]["saved"]] == ["theirs"]
    assert "there is no saved plan" in hand.refused("forget_plan", name="careful o")
    assert "needs a name" in hand.refused("save_plan", name=" ")
    assert not list(done_folder.glob("*.tmp"))


def test_a_damaged_file_of_plans_is_said_and_not_written_over(model: ExplorerModel, hand, done_folder: Path) -> None:
    file, damaged = done_folder / memory.PLANS_NAME, '{"schema": 1, "plans": '
    file.write_text(damaged, encoding="utf-8")
    assert snapshot(model)["presets"]["saved"] == []
    assert model.error is not None
    assert "can't be read" in model.error["text"]
    assert "move it away" in hand.refused("save_plan", name="mine")
    assert file.read_text(encoding="utf-8") == damaged
    file.unlink()
    hand("save_plan", name="mine")
    assert [saved["name"] for saved in snapshot(model)["presets"]["saved"]] == ["mine"]


# -- the unit of the budget


def test_the_budget_is_given_in_bits_a_weight(model: ExplorerModel, hand) -> None:
    hand("preset", id="uniform int4g64")
    hand("budget_unit", id="bits")
    hand("budget", amount=4.375, unit="bits")  # 4 bits, and 24 bits of scales for every 64 weights
    state = snapshot(model)["budget"]
    assert (state["unit"], state["text"]) == ("bits", "4.38")
    assert state["plan"] == pytest.approx(4.375, abs=1e-4)
    assert state["kind"] in ("under", "over")
    prediction = model.predict()
    assert prediction is not None
    assert model.budget == pytest.approx(prediction.bytes, rel=1e-5)
    assert [tick["label"] for tick in state["ticks"]] == ["W2", "W3", "W4", "W8"]
    assert state["smallest"] <= state["ticks"][0]["amount"] + 1e-9


def test_a_latency_budget_is_filled_by_seconds(timed: ExplorerModel) -> None:
    handle(timed, {"type": "budget_unit", "id": "ms"})
    state = snapshot(timed)["budget"]
    assert [unit["id"] for unit in state["units"]] == ["MB", "bits", "ms"]
    wanted = 0.5 * (state["smallest"] + state["amount"])
    handle(timed, {"type": "budget", "amount": wanted, "unit": "ms"})
    handle(timed, {"type": "lock", "layers": [OUT], "locked": True})
    handle(timed, {"type": "fill"})
    assert timed.error is None
    prediction = timed.predict()
    assert prediction is not None
    assert timed.problem is not None
    assert prediction.seconds_per_token is not None
    assert prediction.seconds_per_token <= wanted / 1e3 * (1 + 1e-6)
    best = allocate(timed.problem, wanted / 1e3, locked=timed.locked_schemes(), resource="seconds")
    assert prediction.loss_increase == pytest.approx(timed.problem.predict(best).loss_increase)
    assert snapshot(timed)["budget"]["kind"] == "under"
    assert "ms" in snapshot(timed)["summary"]["fill"]["text"] or "µs" in snapshot(timed)["summary"]["fill"]["text"]
    handle(timed, {"type": "budget", "amount": 1e-9, "unit": "ms"})
    assert snapshot(timed)["budget"]["kind"] == "impossible"


def test_latency_is_shown_with_the_error_of_its_timing(timed: ExplorerModel) -> None:
    handle(timed, {"type": "budget_unit", "id": "ms"})
    prediction = timed.predict()
    assert prediction is not None
    assert prediction.seconds_per_token_sd == pytest.approx(0.02 * (prediction.seconds_per_token or 0))
    (shown,) = [row["predicted"] for row in summary.rows(timed, None) if row["label"] == "Latency a token"]
    assert re.fullmatch(r"[\d.]+\sµs ± [\d.]+", shown)
    assert re.fullmatch(r"[\d.]+\sms ± \S.*", budget.view(timed)["plan_text"])
    handle(timed, {"type": "budget_unit", "id": "MB"})
    assert "±" not in budget.view(timed)["plan_text"]


def test_a_latency_without_a_known_error_is_shown_without(timed: ExplorerModel) -> None:
    layer = next(iter(timed.record.candidates))
    offered = timed.record.candidates[layer]
    timed.record.candidates[layer] = {scheme: replace(one, seconds_per_token_sd=None) for scheme, one in offered.items()}
    timed.problem = Problem.of(0, timed.record.layers, timed.record.candidates)
    (shown,) = [row["predicted"] for row in summary.rows(timed, None) if row["label"] == "Latency a token"]
    assert re.fullmatch(r"[\d.]+\sµs", shown)


def test_what_was_not_timed_has_no_latency_budget(model: ExplorerModel, hand) -> None:
    assert "MB, bits, got 'ms'" in hand.refused("budget_unit", id="ms")
    assert "positive number of MB" in hand.refused("budget", amount=0, unit="MB")


# -- as Python again


def test_the_copied_code_does_again_what_was_done_by_hand(timed_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(timed_template, tmp_path / "study"))
    model = opened(folder, timed=True)
    handle(model, {"type": "preset", "id": "uniform int4g64"})
    handle(model, {"type": "lock", "layers": [FC1], "locked": True})
    for by in (1, 1, -1):
        handle(model, {"type": "step", "layers": [OUT, FC1, Q], "by": by, "gesture": "one drag"})
    handle(model, {"type": "budget", "amount": 11.25, "unit": "MB"})
    handle(model, {"type": "fill"})
    handle(model, {"type": "bits", "layers": [V], "bits": 8})
    handle(model, {"type": "lock", "layers": [FC1], "locked": False})
    handle(model, {"type": "lock", "layers": [V], "locked": True})
    handle(model, {"type": "budget_unit", "id": "ms"})
    handle(model, {"type": "fill"})
    handle(model, {"type": "bits", "layers": [FC1], "bits": 2})
    handle(model, {"type": "undo"})
    handle(model, {"type": "copy_python"})
    assert model.error is None
    code = snapshot(model)["clipboard"]["text"]
    assert code.count("explorer.fill()") == 2
    assert "explorer.edit(" in code
    monkeypatch.setattr("paredown.study.Study", lambda place: FakeStudy(place, timed=True))
    names: dict[str, Explorer] = {}
    exec(code, names)
    again = names["explorer"].model
    assert again.editor.schemes == model.editor.schemes
    assert again.editor.locked == model.editor.locked
    assert (again.budget, again.budget_unit) == (model.budget, "ms")
    assert again.plan is not None
    assert f"# plan {again.plan.digest}" in code
    names["explorer"].close()


def test_nothing_in_a_study_s_folder_becomes_code(model: ExplorerModel, hand, done_folder: Path) -> None:
    hand("bits", layers=[OUT], bits=8)
    hand("fill")
    remember(model)
    path = done_folder / memory.FILE_NAME
    content = json.loads(path.read_text(encoding="utf-8"))
    for step in content["history"]:
        step["label"] = "x\nimport os  # from the label\n"
        step["calls"] = [["system", "from a call"], ["load", "'); from_a_value('"]] if step["calls"] else []
    path.write_text(json.dumps(content), encoding="utf-8")
    again = opened(done_folder)
    code = as_python(again)
    assert "from a call" not in code
    assert not any(line.startswith(("import os", "from_a_value")) for line in code.splitlines())
    compile(code, "copied", "exec")
    assert """explorer.load("'); from_a_value('")""" in code


# -- what is measured first


@pytest.fixture
def held(study: FakeStudy, model: ExplorerModel) -> FakeStudy:
    """A study whose queue does not move."""
    study.serving.clear()
    return study


def queue_of(model: ExplorerModel) -> list[tuple[str, str]]:
    return [(row["digest"], row["state"]) for row in snapshot(model)["queue"]["rows"]]


def ask(model: ExplorerModel, bits: int) -> str:
    handle(model, {"type": "bits", "layers": [OUT], "bits": bits})
    assert model.plan is not None
    handle(model, {"type": "measure"})
    digest = model.plan.digest
    eventually(lambda: digest in [plan.digest for plan in model.study.queued])
    return digest


def test_plans_that_wait_are_moved_to_the_front_and_taken_back(model: ExplorerModel, hand, held: FakeStudy) -> None:
    one, two, three = (ask(model, bits) for bits in (2, 5, 8))
    assert queue_of(model) == [(one, "waits"), (two, "waits"), (three, "waits")]
    hand("queue_first", digest=three)
    eventually(lambda: [digest for digest, _ in queue_of(model)] == [three, one, two])
    hand("queue_remove", digest=one)
    assert [digest for digest, _ in queue_of(model)] == [three, two]
    assert "run's own" in hand.refused("queue_remove", digest=one)
    assert model.error is None
    held.serving.set()
    eventually(lambda: (model.refresh(), {two, three} <= set(model.record.measurements))[1])
    assert queue_of(model) == []
    assert one not in model.record.measurements


def test_what_waited_is_there_after_a_restart_and_can_be_asked_for_again(
    model: ExplorerModel, hand, held: FakeStudy, done_folder: Path
) -> None:
    wanted = ask(model, 8)
    remember(model)
    again = opened(done_folder)
    assert queue_of(again) == [(wanted, "left")]
    handle(again, {"type": "queue_first", "digest": wanted})
    eventually(lambda: (again.refresh(), wanted in again.record.measurements)[1])
    assert queue_of(again) == []
    remember(again)
    assert json.loads((done_folder / memory.FILE_NAME).read_text(encoding="utf-8"))["waiting"] == []


def test_two_views_of_a_study_see_each_other_s_plans_wait_and_arrive(model: ExplorerModel, hand, held: FakeStudy) -> None:
    """As two windows of the app: each has a plan of its own, and one queue."""
    other = ExplorerModel(held)
    other.refresh()
    watcher = Watcher(other)
    drawn: list[int] = []

    class Screen:
        def changed(self) -> None:
            drawn.append(1)

    screen = Screen()
    other.subscribe(screen.changed)
    try:
        wanted, later = ask(model, 8), ask(model, 2)
        eventually(lambda: [row["digest"] for row in snapshot(other)["queue"]["rows"]] == [wanted, later] and bool(drawn))
        (row, _) = snapshot(other)["queue"]["rows"]
        assert (row["label"], row["own"], row["can"]) == ("Plan of another view", False, ["first"])
        handle(other, {"type": "queue_first", "digest": later})
        eventually(lambda: [digest for digest, _ in queue_of(model)] == [later, wanted])
        assert other.editor.schemes != model.editor.schemes
        hand("prioritise", low=10e6, high=12e6)
        hand("save_plan", name="ours")
        eventually(lambda: other.record.priority is not None and list(other.saved.plans(other)) == ["ours"])
        held.serving.set()
        eventually(lambda: {wanted, later} <= set(other.record.measurements))
    finally:
        watcher.close()


def test_two_shows_of_one_explorer_share_selection_edits_locks_budget_and_queue(model: ExplorerModel, hand, held: FakeStudy) -> None:
    shown: dict[str, list[dict]] = {"one": [], "other": []}
    pumps = [Pump(model, lambda changed, name=name: shown[name].append(dict(changed))).start() for name in shown]
    try:
        pumps[0].receive({"type": "select", "layers": [OUT], "mode": "replace"})
        pumps[1].receive({"type": "bits", "layers": [FC1], "bits": 8})
        pumps[0].receive({"type": "lock", "layers": [FC1], "locked": True})
        pumps[1].receive({"type": "budget", "amount": 11, "unit": "MB"})
        pumps[0].receive({"type": "measure"})
        eventually(lambda: [digest for digest, _ in queue_of(model)] == [model.plan.digest if model.plan else ""])

        def same() -> bool:
            return all(
                pump.first[name] == snapshot(model)[name] for pump in pumps for name in ("plan", "budget", "queue", "summary", "steps")
            )

        eventually(same)
        assert all(pushes for pushes in shown.values())
    finally:
        for pump in pumps:
            pump.close()
        held.serving.set()


def test_a_region_of_the_front_goes_first(model: ExplorerModel, hand, held: FakeStudy) -> None:
    hand("prioritise", low=10e6, high=12e6)
    eventually(lambda: (model.refresh(), len(model.study.queued) == 3)[1])
    assert all(10e6 <= plan.bytes <= 12e6 for plan in model.study.queued)
    shown = snapshot(model)["queue"]
    assert shown["priority"] == {"low": 10_000_000, "high": 12_000_000, "text": "10.0 to 12.0\N{NO-BREAK SPACE}MB"}
    assert held.record().priority == Priority(10_000_000, 12_000_000)
    hand("prioritise", low=0, high=0)
    eventually(lambda: (model.refresh(), snapshot(model)["queue"]["priority"] is None)[1])
    handle(model, {"type": "prioritise", "low": 12e6, "high": 10e6})
    eventually(lambda: model.error is not None)
    assert model.error is not None
    assert model.error["remedy"] == "swap them"


def test_the_run_s_own_plans_are_listed_by_what_goes_first(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path)
    for _ in study.steps():
        if len(study.record().measurements) == 6:
            break
    model = opened(tmp_path)
    before = queue_of(model)
    assert {state for _, state in before} == {"stopped"}
    model.study.prioritise(12_000_000, 14_000_000)
    model.refresh()
    sizes = [model.record.plans[digest].bytes for digest, _ in queue_of(model)]
    inside = [12_000_000 <= size <= 14_000_000 for size in sizes]
    assert any(inside)
    assert inside == sorted(inside, reverse=True)
    assert sorted(queue_of(model)) == sorted(before)


# -- ties


def test_of_two_schemes_as_near_the_first_by_name_is_taken(tmp_path: Path) -> None:
    model = opened(filled(tmp_path, blocks=1, schemes=RICH).folder)
    choices = model.choices
    for scheme in choices.schemes:
        for handle_, values in (
            ("bits", choices.values("bits")),
            ("sparsity", choices.values("sparsity")),
            ("rank", choices.values("rank")),
        ):
            for value in values:
                once = choices.moved(scheme, handle_, value)  # pyright: ignore[reportArgumentType]
                turned = type(choices)(choices.schemes[::-1])
                assert turned.moved(scheme, handle_, value) == once  # pyright: ignore[reportArgumentType]


def test_python_edits_by_a_phrase(timed_template: Path, tmp_path: Path) -> None:
    explorer = Explorer(FakeStudy(shutil.copytree(timed_template, tmp_path / "study"), timed=True))
    explorer.edit("q k v of blocks 1-2", bits=8).edit([OUT], "int2g64")
    bits = {explorer.model.labels[name].text: str(scheme) for name, scheme in explorer.model.editor.schemes.items()}
    assert {bits[f"Block {block} {role}"] for block in (1, 2) for role in "qkv"} == {"int8g64"}
    assert bits["Block 0 o"] == "int2g64"
    explorer.latency_budget = 1e-4
    assert explorer.model.budget_unit == "ms"
    explorer.budget = 12_000_000
    assert explorer.model.budget_unit == "MB"
    explorer.locked = [FC2]
    assert explorer.locked == (FC2,)
    explorer.save("here").load("uniform int3g64").load("here")
    assert str(explorer.model.editor.schemes[OUT]) == "int2g64"
    with pytest.raises(TypeError, match="a scheme or one of bits, sparsity, rank"):
        explorer.edit("q")
    with pytest.raises(ParedownError, match="such as bits < 4"):
        explorer.edit("bits <", bits=4)
    assert Scheme.parse("int8g64") in explorer.model.editor.schemes.values()
    explorer.close()
