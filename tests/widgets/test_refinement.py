"""What measured refinement did, as the explorer shows it: the front while it grows, latency, and the history."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest

import fake_refinement
from fake_study import FakeStudy, filled
from paredown.errors import ParedownError
from paredown_widgets import Explorer, picture
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
    assert not any(note["text"].startswith("budget") for note in figure["layout"]["annotations"])
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
