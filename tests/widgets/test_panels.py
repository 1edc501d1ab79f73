"""What each panel sends, and that figures are what plotly.py accepts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest

from fake_study import FakeStudy, filled, info, measurement
from paredown.specs import Plan, from_json
from paredown_widgets import picture
from paredown_widgets.figures import front, spectrum
from paredown_widgets.figures.style import paper
from paredown_widgets.handlers import HANDLERS, handle
from paredown_widgets.model import ExplorerModel
from paredown_widgets.snapshot import VIEWS, snapshot


def test_every_state_of_a_run_gives_every_trait_as_json(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path, blocks=1)
    model = ExplorerModel(study)
    states = []
    for _ in study.steps():
        model.refresh()
        traits = snapshot(model)
        assert set(traits) == {*VIEWS, "error"}
        assert traits["error"] is None
        json.dumps(traits, allow_nan=False)
        states.append(traits)
    assert states[0]["front"]["empty"] == "The front appears here, plan by plan, while the study runs."
    assert states[0]["spectrum"]["empty"].startswith("Curvature has not been estimated yet")
    assert states[0]["head"]["baseline"] == "–"
    assert states[-1]["front"]["empty"] == ""


def test_a_panel_that_fails_is_named_and_the_others_go_on(model: ExplorerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(VIEWS, "summary", lambda _: 1 / 0)
    traits = snapshot(model)
    assert "summary" not in traits
    assert traits["front"]["figure"]["data"]
    assert traits["error"]["text"] == "The summary panel failed: ZeroDivisionError: division by zero"


def test_the_line_of_the_head(model: ExplorerModel) -> None:
    head = snapshot(model)["head"]
    assert head["baseline"] == "85.8\N{NO-BREAK SPACE}% ± 1.6, n 500"
    assert head["original"] == "90.9\N{NO-BREAK SPACE}MB float32"
    assert head["rule"] == "± and bars: one standard error"


def test_the_run_line_counts_and_estimates(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path, blocks=1, pause_each=0.05).start()
    model = ExplorerModel(study)
    seen = set()
    while study.running:
        model.refresh()
        line = snapshot(model)["run"]
        if line["state"] == "running":
            assert line["can"] == ["pause", "cancel"]
            seen.add(line["label"])
            if line["label"] == "Measuring plans" and line["left"]:
                assert re.fullmatch(r"\d:\d\d left", line["left"])
                assert re.fullmatch(r"[\d.]+\s(ms|s) per plan", line["rate"])
                assert re.fullmatch(r"\d+ of \d+", line["detail"])
                seen.add("estimate")
    assert {"Estimating sensitivity", "Measuring plans", "estimate"} <= seen
    model.refresh()
    done = snapshot(model)["run"]
    assert [stage["id"] for stage in done["stages"]] == ["load", "spectra", "baseline", "sensitivity", "search", "measure", "hessian"]
    assert {stage["state"] for stage in done["stages"]} == {"done"}


def test_a_run_of_another_process_is_watched_and_one_that_died_can_be_gone_on_with(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path)
    next(study.steps())
    study.busy_elsewhere = True
    model = ExplorerModel(study)
    model.refresh()
    assert snapshot(model)["run"]["state"] == "watching"
    model.elsewhere = (float("-inf"), False)
    study.busy_elsewhere = False
    line = snapshot(model)["run"]
    assert (line["state"], line["label"], line["can"]) == ("cancelled", "Stopped", ["run"])


def test_the_budget_says_under_over_and_impossible(model: ExplorerModel) -> None:
    size = model.predict().bytes
    for value, kind, verdict in (
        (size + 680_000, "under", "680 kB under"),
        (size - 1_120_000, "over", "1.12 MB over"),
        (1e6, "impossible", "7.58 MB below the smallest"),
    ):
        handle(model, {"type": "budget", "amount": value / 1e6, "unit": "MB"})
        budget = snapshot(model)["budget"]
        assert (budget["kind"], budget["verdict"]) == (kind, verdict.replace(" ", "\N{NO-BREAK SPACE}", 1))
    assert [tick["label"] for tick in budget["ticks"]] == ["W2", "W3", "W4", "W8"]
    assert budget["ticks"][0]["amount"] == budget["smallest"]


def test_the_grid_has_a_cell_for_every_layer(model: ExplorerModel) -> None:
    traits = snapshot(model)
    grid = traits["grid"]
    assert [column["id"] for column in grid["columns"]] == ["q", "k", "v", "o", "fc1", "fc2"]
    assert [block["label"] for block in grid["blocks"]] == [f"Block {i}" for i in range(6)]
    placed = [cell["layer"] for cell in grid["cells"]] + [cell["layer"] for cell in grid["other"]]
    assert sorted(placed) == sorted(traits["plan"]["cells"]) == sorted(layer.name for layer in model.record.layers)
    assert traits["what_if"]["rows"][placed[0]][0]["cells"][0] == "2"


@pytest.mark.parametrize("color_by", ["bits", "sensitivity", "bytes", "output_error", "trace", "top_eigenvalue", "negative_share"])
def test_colours_are_steps_of_the_ramp_and_rise_with_the_value(model: ExplorerModel, color_by: str) -> None:
    handle(model, {"type": "color_by", "id": color_by})
    cells = snapshot(model)["plan"]["cells"]
    known = set(cells) if color_by != "negative_share" else {name for name in cells if "hessian" in model.record.curvature[name]}
    assert {cells[name]["color"] for name in known} <= set(range(8))
    assert all(cells[name]["color"] is None for name in set(cells) - known)
    if color_by == "trace":
        ranked = sorted(cells, key=lambda name: model.record.estimates(name).trace.value)
        colors = [cells[name]["color"] for name in ranked]
        assert colors == sorted(colors)
        assert colors[0] < colors[-1]


def test_a_filter_dims_what_it_does_not_find(model: ExplorerModel) -> None:
    handle(model, {"type": "filter", "text": "block 3-4 fc*"})
    found = snapshot(model)["plan"]["filter"]
    assert [model.labels[name].text for name in found["matches"]] == ["Block 3 fc1", "Block 3 fc2", "Block 4 fc1", "Block 4 fc2"]
    assert found["note"] == "4 of 38"


def test_the_summary_tells_measured_from_stale(model: ExplorerModel) -> None:
    before = snapshot(model)["summary"]
    assert before["chip"] == {"text": "measured, held-out", "kind": "measured"}
    assert not before["measure"]["enabled"]
    handle(model, {"type": "bits", "layers": [model.record.layers[5].name], "bits": 8})
    after = snapshot(model)["summary"]
    assert after["chip"] == {"text": "1 edit since measured", "kind": "warn"}
    assert after["columns"][2] == "Measured, stale"
    assert after["measure"]["enabled"]
    assert [row["measured"] for row in after["rows"]] == [row["measured"] for row in before["rows"]]
    assert after["rows"][0]["predicted"] != before["rows"][0]["predicted"]
    assert after["note"].startswith("Uniform W")


def test_sensitivity_sorts_by_size_on_demand(model: ExplorerModel) -> None:
    handle(model, {"type": "order", "id": "largest"})
    rows = snapshot(model)["sensitivity"]["rows"]
    assert len(rows) == 38
    assert [row["value"] for row in rows] == sorted((row["value"] for row in rows), reverse=True)
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)


def test_a_plan_that_keeps_all_says_why_no_layer_has_a_cost(model: ExplorerModel) -> None:
    handle(model, {"type": "preset", "id": "kept"})
    state = snapshot(model)["sensitivity"]
    assert state["rows"] == []
    assert "leaves every layer as shipped" in state["empty"]


@pytest.mark.parametrize("quantity", ["kl", "metric", "loss"])
def test_the_front_is_a_figure_with_every_measured_plan(model: ExplorerModel, quantity: str) -> None:
    view = front.view(model, quantity)
    go.Figure(paper(view["figure"]))
    traces = {trace["uid"]: trace for trace in view["figure"]["data"]}
    digests = [*traces["measured"]["customdata"], *traces["uniform"]["customdata"]]
    assert sorted(digests) == sorted(model.measured_plans())
    assert sorted(text[:2] for text in traces["uniform"]["text"]) == ["W2", "W3", "W4", "W5", "W6", "W8"]
    assert traces["plan"]["marker"]["color"] == "token:plan"
    low, high = view["figure"]["layout"]["yaxis"]["range"]
    if quantity == "kl":
        low, high = 10**low, 10**high
    for trace in ("measured", "uniform", "plan"):
        assert all(low <= y <= high for y in traces[trace]["y"])


def test_the_front_draws_an_edited_plan_hollow_and_linked(model: ExplorerModel) -> None:
    handle(model, {"type": "bits", "layers": [model.record.layers[5].name], "bits": 8})
    traces = {trace["uid"]: trace for trace in front.front_figure(model, "kl")["data"]}
    assert traces["plan"]["marker"]["color"] == "token:surface"
    assert traces["was"]["opacity"] == 0.5
    assert traces["link"]["x"] == [traces["was"]["x"][0], traces["plan"]["x"][0]]
    prediction = model.predict()
    assert traces["plan"]["y"] == pytest.approx([prediction.loss_increase], rel=1e-5)


def test_the_answer_is_the_front_of_what_was_measured(model: ExplorerModel) -> None:
    """Stairs that fall in KL, with no measured plan below them on the left, uniform ones included."""
    traces = {trace["uid"]: trace for trace in front.front_figure(model, "kl")["data"]}
    best = list(zip(traces["best"]["x"], traces["best"]["y"], strict=True))
    assert best == sorted(best)
    assert [y for _, y in best] == sorted((y for _, y in best), reverse=True)
    for uid in ("measured", "uniform"):
        for x, y in zip(traces[uid]["x"], traces[uid]["y"], strict=True):
            assert (x, y) in best or any(a <= x and b <= y for a, b in best)
    metric = next(trace for trace in front.front_figure(model, "metric")["data"] if trace["uid"] == "best")
    assert metric["y"] == sorted(metric["y"])  # accuracy rises


def test_values_of_the_front_are_those_of_the_store(model: ExplorerModel) -> None:
    trace = next(t for t in front.front_figure(model, "kl")["data"] if t["uid"] == "measured")
    for digest, x, y, up in zip(trace["customdata"], trace["x"], trace["y"], trace["error_y"]["array"], strict=True):
        measured = model.record.measurements[digest]
        assert (x, y, up) == pytest.approx((measured.bytes / 1e6, measured.kl, measured.kl_sd), rel=1e-5)


def test_a_plan_that_is_measured_again_moves_on_the_front(model: ExplorerModel, study: FakeStudy) -> None:
    before = snapshot(model)["front"]["figure"]["data"]
    digest = next(trace for trace in before if trace["uid"] == "measured")["customdata"][3]
    again = measurement(model.record.plans[digest], seed=1)
    study.store.append("again", "measure", "measurement", payload=[again])
    model.refresh()
    trace = next(trace for trace in snapshot(model)["front"]["figure"]["data"] if trace["uid"] == "measured")
    assert trace["y"][trace["customdata"].index(digest)] == pytest.approx(again.kl, rel=1e-5)
    assert before != snapshot(model)["front"]["figure"]["data"]


def test_a_plan_far_out_sits_on_the_edge_with_an_arrow(study: FakeStudy, model: ExplorerModel) -> None:
    w2 = next(digest for digest in model.measured_plans() if model.uniform_bits(digest) == 2)
    measured = model.record.measurements[w2]
    study.store.append(
        "again", "measure", "measurement", payload=[replace(measured, metric=replace(measured.metric, value=0.05, low=0.04, high=0.06))]
    )
    model.refresh()
    view = front.front_figure(model, "metric")
    uniform = next(t for t in view["data"] if t["uid"] == "uniform")
    at = uniform["customdata"].index(w2)
    low, high = view["layout"]["yaxis"]["range"]
    assert low > 5
    assert uniform["text"][at] == "W2 5.00 ↓"
    assert low <= uniform["y"][at] < low + 0.1 * (high - low)
    assert uniform["error_y"]["array"][at] == 0


def test_spectra_show_the_selected_layers_or_all(model: ExplorerModel) -> None:
    names = [layer.name for layer in model.record.layers]
    handle(model, {"type": "select", "layers": [names[4], names[5]], "mode": "replace"})
    view = spectrum.view(model)
    go.Figure(paper(view["figure"]))
    assert [item["label"] for item in view["legend"]] == ["Block 0 o", "Block 0 fc1"]
    handle(model, {"type": "spectrum_mode", "id": "all"})
    view = spectrum.view(model)
    go.Figure(paper(view["figure"]))
    assert set(next(trace for trace in view["figure"]["data"] if trace["uid"] == "all")["customdata"]) == set(names)


def test_a_task_without_probabilities_shows_the_loss_first(tmp_path: Path) -> None:
    model = ExplorerModel(filled(tmp_path, blocks=1, info=info(loss="loss")))
    model.refresh()
    view = snapshot(model)["front"]
    assert [option["id"] for option in view["y_options"]] == ["metric", "loss"]
    assert view["y"] == "loss"
    assert any(trace["uid"] == "front" for trace in view["figure"]["data"])


def test_hostile_names_stay_data(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    model = ExplorerModel(filled(tmp_path, blocks=1, hostile=True, info=info(label=hostile)))
    model.refresh()
    traits = snapshot(model)
    assert traits["head"]["model"] == hostile  # the browser writes it with textContent
    handle(model, {"type": "spectrum_mode", "id": "all"})
    for view in (front.view(model), spectrum.view(model)):
        drawn = json.dumps(view["figure"])
        assert "<img" not in re.sub(r'"(uid|layer|customdata)": ("(\\.|[^"\\])*"|\[[^\]]*\]|\{[^}]*\})', "", drawn)
    drawing = picture.draw(model)
    assert "<script" not in drawing
    assert "&lt;script&gt;" in drawing


def test_the_still_picture_is_well_formed_and_holds_every_point(model: ExplorerModel) -> None:
    drawing = ElementTree.fromstring(picture.draw(model))
    circles = drawing.iter("{http://www.w3.org/2000/svg}circle")
    searched = [digest for digest in model.measured_plans() if model.uniform_bits(digest) is None]
    assert len(list(circles)) == len(searched)


def test_every_message_of_the_contract_has_a_handler() -> None:
    contract = """run pause resume cancel budget select scheme bits sparsity rank step cycle lock undo redo reset measure fill load_plan filter color_by order x y
    spectrum_mode spectrum_matrix sensitivity estimate copy_python export dismiss_error theme opened png
    budget_unit go_to preset save_plan forget_plan queue_first queue_remove prioritise copy_figure exports_opened
    compare_add compare_remove compare_measure flips more_flips hear copy_flips"""
    assert set(HANDLERS) == set(contract.split())


def test_the_metric_of_a_prediction_is_read_off_the_measured_plans(model: ExplorerModel) -> None:
    fit = model.fit
    assert fit is not None
    assert fit.at(0.0) == pytest.approx(0.858, abs=0.01)
    worst = max(m.kl for m in model.measured_plans().values() if m.kl is not None)
    assert fit.at(worst * 2) is None
    values = [fit.at(worst * share) for share in (0.0, 0.1, 0.3, 0.6, 1.0)]
    assert values == sorted(values, key=lambda v: -(v or 0.0))


def test_export_of_a_plan_as_json_can_be_read_back(tmp_path: Path) -> None:
    model = ExplorerModel(filled(tmp_path, blocks=1))
    model.refresh()
    handle(model, {"type": "export", "target": "plan"})
    writing = model.exporting
    if writing is not None:
        writing.join(10)
    status = snapshot(model)["export"]
    assert status["kind"] == "ok"
    path = Path(status["status"].removeprefix("Written to "))
    assert from_json(Plan, path.read_text()) == model.plan
