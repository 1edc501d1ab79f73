"""What measured refinement did, as the explorer shows it: the front while it grows, latency, and the history."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest

import fake_refinement
from fake_study import FakeStudy, filled
from paredown.errors import ParedownError
from paredown_widgets import Explorer, numbers, picture
from paredown_widgets.figures import front
from paredown_widgets.figures.style import paper
from paredown_widgets.handlers import handle
from paredown_widgets.model import ExplorerModel
from paredown_widgets.report import record
from paredown_widgets.snapshot import snapshot


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> ExplorerModel:
    """Read by the tests, changed by none."""
    model = ExplorerModel(fake_refinement.refined(filled(tmp_path_factory.mktemp("refined"), blocks=2, timed=True)))
    model.refresh()
    return model


def traces(figure: dict) -> dict[str, dict]:
    return {trace["uid"]: trace for trace in figure["data"]}


def test_a_refined_plan_says_what_was_switched_and_what_was_predicted(refined: ExplorerModel) -> None:
    shown = traces(front.front_figure(refined, "kl"))
    assert len(shown["refined"]["x"]) == 8
    lines = shown["refined"]["hovertext"][0].split("<br>")
    assert lines[0] == "refined at 3 bits"
    assert "→ int2g64" in lines[1]
    assert lines[1].startswith("Block ")
    assert sum(line.endswith("predicted") for line in lines) == 1
    assert any(line.startswith("KL ") and not line.endswith("predicted") for line in lines)


def test_the_front_before_refinement_and_what_replaced_what_are_drawn(refined: ExplorerModel) -> None:
    figure = front.front_figure(refined, "kl")
    shown = traces(figure)
    at = {
        digest: (x, y)
        for uid in ("measured", "uniform", "refined")
        for digest, x, y in zip(shown[uid]["customdata"], shown[uid]["x"], shown[uid]["y"], strict=True)
    }
    drawn = list(zip(shown["trail"]["x"], shown["trail"]["y"], strict=True))
    for step in refined.history.improvements:
        if step.before is not None and step.before.digest in at:
            assert drawn[drawn.index(at[step.plan.digest]) - 1] == at[step.before.digest]
    assert min(shown["best"]["y"]) <= min(shown["begun"]["y"])
    go.Figure(paper(figure))
    ElementTree.fromstring(picture.draw(refined))


@pytest.mark.parametrize("quantity", ["kl", "metric"])
def test_nothing_jumps_while_refined_plans_come(tmp_path: Path, quantity: str) -> None:
    study = filled(tmp_path, blocks=2)
    model = ExplorerModel(study)
    model.refresh()
    before: dict[str, tuple[float, float]] = {}
    ranges: dict[str, list[float]] = {}
    for _ in fake_refinement.steps(study):
        model.refresh()
        handle(model, {"type": "load_plan", "digest": next(iter(model.measured_plans()))})  # the user's own plan stays where it is
        figure = front.front_figure(model, quantity)  # pyright: ignore[reportArgumentType]
        for name, old in ranges.items():
            low, high = figure["layout"][name]["range"]
            assert low <= old[0]
            assert high >= old[1]
        ranges = {name: figure["layout"][name]["range"] for name in ("xaxis", "yaxis")}
        points = [trace for trace in figure["data"] if trace["uid"] in ("measured", "uniform", "refined")]
        now = {digest: (x, y) for trace in points for digest, x, y in zip(trace["customdata"], trace["x"], trace["y"], strict=True)}
        assert all(now[digest] == place for digest, place in before.items())
        before = now
    assert len(before) == len(model.measured_plans())


def test_latency_is_offered_where_it_was_timed(refined: ExplorerModel, model: ExplorerModel) -> None:
    assert [option["id"] for option in front.view(refined)["x_options"]] == ["bytes", "seconds"]
    assert [option["id"] for option in front.view(model)["x_options"]] == ["bytes"]
    assert front.view(model, x="seconds")["x"] == "bytes"
    assert not front.view(model)["refined"]


def test_points_and_line_of_the_latency_axis_are_the_plans_seconds(refined: ExplorerModel) -> None:
    figure = front.view(refined, "kl", "seconds")["figure"]
    shown = traces(figure)
    for trace in (shown["measured"], shown["refined"]):
        for digest, x in zip(trace["customdata"], trace["x"], strict=True):
            assert x == pytest.approx(1e6 * refined.record.plans[digest].seconds_per_token, rel=1e-5)
    line = refined.front_by_seconds
    assert line is not None
    assert np.all(np.diff(line.seconds) > 0)
    assert figure["layout"]["xaxis"]["title"]["text"] == "Latency of the layers, µs per token (log)"
    assert not any(note["text"].startswith("budget") for note in figure["layout"]["annotations"])  # it is one of bytes
    handle(refined, {"type": "budget_unit", "id": "ms"})
    notes = {x: [note["text"] for note in front.view(refined, "kl", x)["figure"]["layout"]["annotations"]] for x in ("seconds", "bytes")}
    assert f"budget {numbers.significant(1e6 * refined.latency_budget)}" in notes["seconds"]
    assert not any(text.startswith("budget") for text in notes["bytes"])
    handle(refined, {"type": "budget_unit", "id": "MB"})
    assert "µs per token" in shown["refined"]["hovertext"][0]


def test_the_axis_is_chosen_by_the_browser_and_recorded_for_a_report(refined: ExplorerModel) -> None:
    handle(refined, {"type": "x", "id": "seconds"})
    assert snapshot(refined)["front"]["x"] == "seconds"
    handle(refined, {"type": "x", "id": "bytes"})
    recorded = record(refined)
    assert set(recorded["fronts"]) == {f"{x} {y}" for x in ("bytes", "seconds") for y in ("kl", "metric", "loss")}
    assert recorded["fronts"]["seconds kl"]["x"] == "seconds"
    json.dumps(recorded, allow_nan=False)


def test_a_figure_of_latency_needs_times(tmp_path: Path, study: FakeStudy) -> None:
    with pytest.raises(ParedownError, match="nothing has timed the candidates; give a new study latency_tokens"):
        Explorer(study).figure("latency")
    explorer = Explorer(filled(tmp_path / "timed", blocks=1, timed=True))
    assert explorer.figure("latency").layout.xaxis.title.text.startswith("Latency")


def test_the_history_says_newest_first_which_switch_won_what(refined: ExplorerModel) -> None:
    shown = snapshot(refined)["history"]
    assert len(shown["rows"]) == 8
    assert shown["count"] == "8 plans tried, 8 improvements"
    assert [row["budget"].replace("\N{NO-BREAK SPACE}", " ") for row in shown["rows"]] == ["4 bits"] * 4 + ["3 bits"] * 4
    for row, step in zip(shown["rows"], refined.history.improvements[::-1], strict=True):
        assert row["digest"] == step.plan.digest
        assert row["origin"] == "switch"
        named = step.plan.found_by.split("switch of ")[1]
        layer, _, change = named.partition(" ")
        assert row["what"].startswith(refined.labels[layer].text)
        assert row["what"].endswith(change.partition(" more ")[2] or change)
        assert row["gain"].startswith("−")
        assert row["standing"] == (row is shown["rows"][0] or row is shown["rows"][4])
        assert "±" in row["predicted"]
        assert row["measured"] != "–"
    assert [row["tried"] for row in shown["rows"]] == ["8", "7", "6", "5", "4", "3", "2", "1"]
    assert "40 samples" in shown["note"]


def test_gains_are_paired_sample_by_sample(refined: ExplorerModel) -> None:
    for step in refined.history.improvements:
        assert step.before is not None
        losses = [
            np.array(fake_refinement.trial(plan, loss).losses) for plan, loss in ((step.before, 1.0), (step.plan, 0.9))
        ]  # both up to one factor, which the loss before gives
        factor = step.loss_before / losses[0].mean()
        gaps = factor * (losses[1] - losses[0])
        assert step.loss - step.loss_before == pytest.approx(gaps.mean())
        assert step.gain_sd == pytest.approx(gaps.std(ddof=1) / len(gaps) ** 0.5)
        assert step.gain_sd < 0.3 * losses[0].std() * factor / len(gaps) ** 0.5  # what they share drops out


def test_history_read_in_one_piece_is_that_read_bit_by_bit(tmp_path: Path) -> None:
    study = filled(tmp_path, blocks=2)
    bit = ExplorerModel(study)
    for _ in fake_refinement.steps(study):
        bit.refresh()
    bit.refresh()
    whole = ExplorerModel(study)
    whole.refresh()
    assert bit.history.improvements == whole.history.improvements
    assert bit.history.tried == whole.history.tried


def test_a_row_of_the_history_loads_its_plan_which_can_be_undone(tmp_path: Path) -> None:
    model = ExplorerModel(fake_refinement.refined(filled(tmp_path, blocks=1), rounds=2))
    model.refresh()
    before, row = dict(model.editor.schemes), snapshot(model)["history"]["rows"][-1]
    handle(model, {"type": "load_plan", "digest": row["digest"]})
    assert [row["loaded"] for row in snapshot(model)["history"]["rows"]] == [False, False, False, True]
    handle(model, {"type": "undo"})
    assert model.editor.schemes == before


def test_an_empty_history_says_how_there_would_be_one(model: ExplorerModel) -> None:
    assert snapshot(model)["history"]["empty"].startswith("This study refines no plans. One with refine_plans=64")


def test_a_long_history_is_cut_and_says_so(tmp_path: Path) -> None:
    model = ExplorerModel(fake_refinement.refined(filled(tmp_path, blocks=1), rounds=2))
    model.refresh()
    step = model.history.improvements[-1]
    model.history.improvements = [replace(step, bits=float(n)) for n in range(5000)]
    shown = snapshot(model)["history"]
    assert len(shown["rows"]) == 200
    assert "4,800 earlier ones are not shown" in shown["note"]
    assert len(json.dumps(shown)) < 200_000


def test_of_several_changes_a_row_names_one_and_its_title_all(tmp_path: Path) -> None:
    model = ExplorerModel(fake_refinement.refined(filled(tmp_path, blocks=1), rounds=3))
    model.refresh()
    first, *_, last = model.history.improvements[:3]
    model.history.improvements = [replace(last, before=first.before)]
    row = snapshot(model)["history"]["rows"][0]
    assert row["what"].endswith(", and 2 more")
    assert len(row["title"].splitlines()) == 3
