"""What is shown of curvature: densities, ridges, the table, sensitivities by curvature, and the question for more."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fake_curvature
from fake_study import FakeStudy, filled
from paredown.errors import ParedownError
from paredown.record import MatrixEstimates
from paredown.smoothing import symlog
from paredown.specs import EigenvalueEstimate, LayerRef, Plan, SpectralDensity, TraceEstimate
from paredown_widgets import Explorer, curvature, numbers
from paredown_widgets.density import SymlogAxis, curve, outliers
from paredown_widgets.figures.style import paper
from paredown_widgets.handlers import handle
from paredown_widgets.model import ExplorerModel
from paredown_widgets.report import record
from paredown_widgets.snapshot import snapshot

LAYER = LayerRef("layer", "linear", "fc1", "", (300, 400), "float32")


def exact(values: list[float], dimension: int) -> SpectralDensity:
    nodes = [*sorted(values), 0.0]
    weights = [*(1 / dimension for _ in values), 1 - len(values) / dimension]
    return SpectralDensity("layer", "ggn", (tuple(nodes),), (tuple(weights),), dimension, 32, 0, exact=True)


def known(density: SpectralDensity) -> MatrixEstimates:
    return MatrixEstimates(density=density)


def choose(model: ExplorerModel, *layers: str, mode: str = "selected", matrix: str = "auto") -> dict[str, Any]:
    """The spectrum's state after a person's choices."""
    for message in (
        {"type": "select", "layers": list(layers), "mode": "replace"},
        {"type": "spectrum_mode", "id": mode},
        {"type": "spectrum_matrix", "id": matrix},
    ):
        handle(model, message)
    assert model.error is None
    return snapshot(model)["spectrum"]


def traces(view: dict[str, Any]) -> dict[str, Any]:
    go.Figure(paper(view["figure"]))
    json.dumps(view, allow_nan=False)
    return {trace["uid"]: trace for trace in view["figure"]["data"]}


@pytest.fixture
def names(model: ExplorerModel) -> dict[str, str]:
    return {label.text: name for name, label in model.labels.items()}


# -- the curve


@given(st.floats(-1e6, 1e6), st.integers(-8, 3))
def test_a_value_is_found_at_its_place(value: float, exponent: int) -> None:
    axis = SymlogAxis(10.0**exponent, -1, 1)
    assert axis.value(axis.place(value)) == pytest.approx(value, rel=1e-6, abs=1e-12)
    assert axis.place(value) == pytest.approx(float(symlog(value, axis.linear_within)))


@given(st.lists(st.floats(-1e3, 1e4), min_size=1, max_size=12))
def test_the_axis_holds_its_values_and_its_ticks(values: list[float]) -> None:
    axis = SymlogAxis.of([known(exact(values, 100))])
    assert all(axis.low < axis.place(value) < axis.high for value in values)
    at, words = axis.ticks()
    assert at == sorted(at)
    assert "0" in words
    assert len(set(words)) == len(words)


def test_the_curve_counts_every_eigenvalue() -> None:
    values = (0.05 * np.random.default_rng(0).standard_normal(900)).tolist()
    density = exact([*values, 2.0, 5.0], 2000)
    drawn = curve(density, SymlogAxis.of([known(density)]), 4000)
    assert np.trapezoid(drawn.count, drawn.places) == pytest.approx(2000, rel=0.01)
    assert not drawn.deviation.any()


def test_eigenvalues_apart_from_the_bulk_are_outliers_and_counted_on_both_sides() -> None:
    bulk = (0.01 * np.random.default_rng(1).standard_normal(2000)).tolist()
    density = exact([*bulk, -0.4, 0.6, 1.3, 1.31, 9.0], 3000)
    above, below = outliers(known(density)), outliers(known(density), -1)
    assert (above.count, below.count) == (4, 1)
    assert max(bulk) < above.edge < 0.6
    assert max(-value for value in bulk) < below.edge < 0.4
    smooth = exact([1 / rank for rank in range(2, 200)], 3000)
    assert outliers(known(smooth)).count == 0  # a tail that falls without a gap has none


def test_lanczos_quadrature_shows_the_same_outliers_as_the_eigenvalues() -> None:
    _, ends, density = fake_curvature.hessian(LAYER, 3, 2.0)
    both = MatrixEstimates(eigenvalues=ends, density=density)
    assert outliers(known(density)).count == outliers(both).count == len(ends.top)
    assert curve(density, SymlogAxis.of([both])).deviation.max() > 0


def test_nothing_but_zeros_has_no_outliers() -> None:
    density = exact([], 4)
    drawn = curve(density, SymlogAxis.of([known(density)]))
    assert math.isfinite(drawn.count.max())
    assert outliers(known(density)).count == 0
    assert density.negative_share == 0


def test_the_negative_share_is_of_magnitudes() -> None:
    assert exact([-1.0, 3.0], 10).negative_share == pytest.approx(0.25)


# -- one layer or several


def test_before_anything_is_known_a_sentence_says_when_it_will_be(tmp_path: Path) -> None:
    model = ExplorerModel(FakeStudy(tmp_path))
    for mode in ("selected", "all", "table"):
        view = choose(model, mode=mode)
        assert view["empty"].startswith("Curvature has not been estimated yet")
        assert (view["matrices"], view["figure"]["data"]) == ([], [])


def test_gauss_newton_comes_first_and_the_hessian_joins_when_it_arrives(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path, blocks=1, hessian_share=1.0)
    model = ExplorerModel(study)
    seen: list[tuple[str, int]] = []
    for _ in study.steps():
        model.refresh()
        view = snapshot(model)["spectrum"]
        traces(view)
        if view["title"] and (view["title"], len(view["matrices"])) not in seen[-1:]:
            seen.append((view["title"], len(view["matrices"])))
    assert seen == [("Gauss–Newton", 1), ("Gauss–Newton", 2), ("Hessian", 2)]


def test_one_layer_alone_names_bulk_outliers_and_its_negative_side_over_its_other_matrix(
    model: ExplorerModel, names: dict[str, str]
) -> None:
    name = names["Block 3 fc1"]
    view = choose(model, name, matrix="hessian")
    drawn = traces(view)
    assert set(drawn) == {"other", f"band:{name}", f"density:{name}", f"rungs:{name}", f"half:{name}"}
    words = [note["text"] for note in view["figure"]["layout"]["annotations"]]
    estimates = model.record.estimates(name, "hessian")
    assert {"bulk", "5 outliers"} <= set(words)
    assert any(word.startswith("negative curvature, ") for word in words)
    assert len(drawn[f"rungs:{name}"]["x"]) == len(estimates.eigenvalues.top) + len(estimates.eigenvalues.bottom)
    fit = model.record.quadratic_fits[name]
    assert view["note"]["text"] == f"May I trust this? {numbers.capital(curvature.VERDICTS[fit.verdict])}: {fit.reason}"
    assert "probably over 25" in view["legend"][0]["text"]


def test_several_layers_share_one_axis_and_keep_their_verdicts(model: ExplorerModel, names: dict[str, str]) -> None:
    chosen = [names["Embeddings"], names["Block 1 fc2"], names["Block 2 fc1"], names["Block 3 fc1"]]
    view = choose(model, *chosen, matrix="hessian")
    drawn = traces(view)
    assert [item["label"] for item in view["legend"]] == ["Block 1 fc2", "Block 2 fc1", "Block 3 fc1"]  # the last three
    styles = {(drawn[f"density:{name}"]["line"]["color"], drawn[f"density:{name}"]["line"]["dash"]) for name in chosen[1:]}
    assert len(styles) == 3
    assert "other" not in drawn
    assert [item["trust"] for item in view["legend"]] == [
        f"trust: {curvature.VERDICTS[model.record.quadratic_fits[name].verdict]}" for name in chosen[1:]
    ]


def test_switching_the_matrix_moves_no_axis(model: ExplorerModel, names: dict[str, str]) -> None:
    layouts = [choose(model, names["Block 3 fc1"], matrix=matrix)["figure"]["layout"] for matrix in ("ggn", "hessian")]
    for key in ("xaxis", "yaxis"):
        assert layouts[0][key] == layouts[1][key]


def test_a_layer_whose_hessian_is_missing_says_so(model: ExplorerModel, names: dict[str, str]) -> None:
    both = choose(model, names["Block 3 fc1"], names["Pooler"], matrix="hessian")
    assert both["legend"][1]["text"] == "Hessian not estimated yet"
    assert f"density:{names['Block 3 fc1']}" in traces(both)
    alone = choose(model, names["Pooler"], matrix="hessian")
    assert alone["empty"].startswith("The Hessian of Pooler has not been estimated yet")
    assert choose(model, names["Pooler"])["matrix"] == "ggn"


def test_eigenvalues_without_a_density_are_drawn_as_rungs_alone(model: ExplorerModel, names: dict[str, str]) -> None:
    name = names["Block 0 o"]
    model.record.curvature[name] = {
        "ggn": MatrixEstimates(eigenvalues=EigenvalueEstimate(name, "ggn", (2.0, 1.0), (0.1, 0.0), (), (), 8, 5, 0))
    }
    model.curvature_events += 1
    view = choose(model, name)
    assert set(traces(view)) == {f"rungs:{name}"}
    assert view["note"]["text"] == "The ends of the spectrum, 8 samples"
    assert "residual 0.100" in traces(view)[f"rungs:{name}"]["hovertext"][0]


def test_a_single_layer_of_zeros_is_drawn(model: ExplorerModel, names: dict[str, str]) -> None:
    name = names["Pooler"]
    zero = replace(exact([], 4), layer=name)
    model.record.curvature[name] = {
        "ggn": MatrixEstimates(
            TraceEstimate(name, "ggn", 0.0, 0.0, 0.0, 8, 1, 0), EigenvalueEstimate(name, "ggn", (0.0,), (0.0,), (), (), 8, 0, 0), zero
        )
    }
    model.curvature_events += 1
    for mode in ("selected", "all", "table"):
        traces(choose(model, name, mode=mode))


def test_an_edit_of_the_plan_makes_no_spectrum_anew(model: ExplorerModel, names: dict[str, str]) -> None:
    before = choose(model, names["Block 3 fc1"])
    handle(model, {"type": "bits", "layers": [names["Block 0 o"]], "bits": 8})
    assert snapshot(model)["spectrum"] is before
    assert choose(model, names["Block 2 fc1"]) is not before


# -- all of them


def test_ridges_stand_where_the_plan_has_its_cells_whether_known_or_not(model: ExplorerModel) -> None:
    places = {}
    for matrix in ("ggn", "hessian"):
        view = choose(model, mode="all", matrix=matrix)
        drawn = traces(view)
        assert set(drawn["all"]["customdata"]) == {name for name, each in model.record.curvature.items() if matrix in each}
        places[matrix] = dict(zip(drawn["all"]["customdata"], drawn["all"]["y"], strict=True))
    assert all(places["ggn"][name] == y for name, y in places["hessian"].items())
    assert "negative" in drawn
    texts = [note["text"] for note in view["figure"]["layout"]["annotations"]]
    assert texts.count("–") == 38 - len(places["hessian"])


def test_hundreds_of_layers_stay_a_small_message(tmp_path: Path) -> None:
    study = FakeStudy(tmp_path, blocks=52, hessian_share=0.1)
    for _ in zip(range(1 + len(study.layers)), study.steps(), strict=False):
        pass
    model = ExplorerModel(study)
    model.refresh()
    assert len(model.labels) > 300
    for mode in ("all", "table"):
        view = choose(model, mode=mode)
        traces(view)
        assert len(json.dumps(view)) < 600_000


def test_the_table_has_each_layers_numbers_with_errors(model: ExplorerModel, names: dict[str, str]) -> None:
    table = choose(model, mode="table", matrix="hessian")["table"]
    rows = {row["layer"]: dict(zip([column["id"] for column in table["columns"]], row["cells"], strict=True)) for row in table["rows"]}
    assert list(rows) == list(model.labels)
    trace = model.record.estimates(names["Block 3 k"], "hessian").trace
    cells = rows[names["Block 3 k"]] if trace else rows[names["Block 3 fc1"]]
    estimates = model.record.estimates(names["Block 3 fc1"], "hessian")
    cells = rows[names["Block 3 fc1"]]
    assert cells["trace"]["value"] == estimates.trace.value
    assert cells["trace"]["text"] == numbers.quantity(estimates.trace.value, estimates.trace.data_sd)
    assert cells["top"]["text"].endswith("*")
    assert cells["top"]["title"].startswith("probably over")
    assert cells["bottom"]["text"].startswith("−")
    assert cells["trust"]["verdict"] == model.record.quadratic_fits[names["Block 3 fc1"]].verdict
    unknown = rows[names["Pooler"]]
    assert [unknown[key]["text"] for key in ("trace", "probes", "top", "bottom", "trust")] == ["–"] * 5
    every = [cell["text"] for row in table["rows"] for cell in row["cells"]]
    assert not [text for text in every if re.search(r"± 0(\.0*)?(?!\.?\d)", text)]


def test_the_whole_model_has_a_row_of_its_own(model: ExplorerModel) -> None:
    model.record.curvature[""] = {"ggn": MatrixEstimates(trace=TraceEstimate("", "ggn", 90.0, 4.0, None, 8, 1, 0))}
    model.curvature_events += 1
    first = choose(model, mode="table", matrix="ggn")["table"]["rows"][0]
    assert (first["layer"], [cell["text"] for cell in first["cells"]][:3]) == (None, ["Whole model", "90 ± 4", "in the error"])
    for mode in ("selected", "all"):
        traces(choose(model, mode=mode))


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    model = ExplorerModel(filled(tmp_path, blocks=1, hostile=True, hessian_share=1.0))
    model.refresh()
    for mode in ("selected", "all"):
        view = choose(model, *list(model.labels)[1:3], mode=mode)
        shown = [trace.get(key, "") for trace in view["figure"]["data"] for key in ("name", "hovertext", "hovertemplate", "text")]
        shown += view["figure"]["layout"]["annotations"]
        assert "<img" not in json.dumps(shown)


# -- more of it


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_hessian_of_the_selected_layers_can_be_asked_for(model: ExplorerModel, study: FakeStudy, names: dict[str, str]) -> None:
    name = names["Pooler"]
    button = choose(model, name)["estimate"]
    assert button == {"enabled": True, "label": "Estimate Hessian", "title": "Estimate the true Hessian of Pooler, in the background"}
    handle(model, {"type": "estimate"})
    assert snapshot(model)["spectrum"]["estimate"]["label"] == "Queued"
    wait_for(lambda: model.refresh() or bool(model.record.quadratic_fits.get(name)))
    assert study.asked[0].layers == (name,)
    wait_for(lambda: model.refresh() or not model.hessian_asked)
    view = snapshot(model)["spectrum"]
    assert (view["matrix"], view["estimate"]["label"]) == ("hessian", "Refine Hessian")


def test_to_refine_asks_for_half_of_the_worst_error(model: ExplorerModel, study: FakeStudy, names: dict[str, str]) -> None:
    name = names["Block 3 fc1"]
    choose(model, name)
    handle(model, {"type": "estimate"})
    wait_for(lambda: bool(study.asked))
    trace = model.record.estimates(name, "hessian").trace
    assert study.asked[0].relative_error == pytest.approx(max(trace.relative_data_error, trace.relative_probe_error) / 2)


def test_the_button_says_why_it_can_not_be_pressed(tmp_path: Path, study: FakeStudy) -> None:
    def why(model: ExplorerModel) -> str:
        model.refresh()
        button = snapshot(model)["spectrum"]["estimate"]
        assert not button["enabled"]
        return button["title"]

    assert why(ExplorerModel(study, offline=True)).startswith("This is a saved report")
    other = FakeStudy(tmp_path / "other", blocks=1)
    run = other.steps()
    for _ in range(4):
        next(run)
    other.busy_elsewhere = True
    assert why(ExplorerModel(other)).startswith("Another process works on this study")


def test_a_refused_estimate_is_said(model: ExplorerModel, study: FakeStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request: object) -> None:
        raise ParedownError("another process works on the study; wait for its end")

    monkeypatch.setattr(study, "estimate", refuse)
    handle(model, {"type": "estimate"})
    wait_for(lambda: model.error is not None)
    assert model.error == {"text": "another process works on the study", "remedy": "wait for its end"}
    assert not model.hessian_asked


def test_python_can_ask_too_and_is_told_of_unknown_layers(study: FakeStudy) -> None:
    explorer = Explorer(study)
    name = study.layers[3].name
    explorer.estimate([name])
    assert study.asked[0].layers == (name,)
    with pytest.raises(ParedownError, match="no layer 'nowhere'"):
        explorer.estimate(["nowhere"])


# -- sensitivities by curvature


def test_bars_can_show_curvature_times_the_change_of_the_weights(tmp_path: Path) -> None:
    model = ExplorerModel(filled(tmp_path, blocks=2, hessian_share=1.0))
    model.refresh()
    kinds = [kind["id"] for kind in snapshot(model)["sensitivity"]["kinds"]]
    assert kinds == ["kl", "trace:ggn", "top_eigenvalue:ggn", "trace:hessian", "top_eigenvalue:hessian"]
    handle(model, {"type": "sensitivity", "id": "trace:hessian"})
    view = snapshot(model)["sensitivity"]
    factor = {"nats": 1.0, "10⁻³ nats": 1e3, "10⁻⁶ nats": 1e6}[view["unit"]]
    for row, layer in zip(view["rows"], model.record.layers, strict=True):
        candidate = model.record.candidates[layer.name][model.editor.schemes[layer.name]]
        trace = model.record.estimates(layer.name, "hessian").trace
        expected = 0.5 * trace.value / layer.parameters * candidate.weight_error
        error, sixth = abs(expected * trace.data_sd / trace.value), 5e-6  # bars travel with six digits
        assert row["value"] / factor == pytest.approx(expected, rel=sixth)
        assert row["low"] / factor == pytest.approx(expected - error, rel=sixth)
        assert row["high"] / factor == pytest.approx(expected + error, rel=sixth)
    below = [row for row in view["rows"] if row["value"] < 0]
    assert {row["label"] for row in below} == {"k"}
    assert all(row["text"].startswith("−") for row in below)


def test_a_fill_minimises_what_the_bars_show(tmp_path: Path) -> None:
    model = ExplorerModel(filled(tmp_path, blocks=2, hessian_share=1.0))
    model.refresh()
    plans: dict[str, Plan] = {}
    for kind in ("kl", "top_eigenvalue:ggn", "trace:hessian"):
        handle(model, {"type": "sensitivity", "id": kind})
        handle(model, {"type": "fill"})
        assert model.error is None
        plans[kind] = model.plan
    assert len({plan.digest for plan in plans.values()}) == 3
    assert model.status == "2 layers with a trace below zero: counted with the standard error"
    assert snapshot(model)["summary"]["fill"]["text"].endswith(", by trace")


def test_a_fill_waits_for_the_layers_whose_hessian_is_missing(model: ExplorerModel) -> None:
    handle(model, {"type": "sensitivity", "id": "trace:hessian"})
    fill = snapshot(model)["summary"]["fill"]
    missing = sum("hessian" not in each for each in model.record.curvature.values())
    assert fill == {"enabled": False, "text": f"{missing} layers without trace, Hessian"}
    assert len(snapshot(model)["sensitivity"]["rows"]) == 38 - missing


def test_an_earlier_study_offers_the_predicted_loss_alone(model: ExplorerModel, hand: Any) -> None:
    for offered in model.record.candidates.values():
        for scheme, candidate in offered.items():
            offered[scheme] = replace(candidate, weight_error=0.0)
    assert [kind["id"] for kind in snapshot(model)["sensitivity"]["kinds"]] == ["kl"]
    assert "sensitivity must be one of kl, got 'trace:ggn'" in hand.refused("sensitivity", id="trace:ggn")


# -- out of the explorer


def test_the_data_frame_has_both_matrices(model: ExplorerModel, names: dict[str, str]) -> None:
    from paredown_widgets.tables import layer_table

    frame = layer_table(model)
    row = frame.loc[names["Block 3 fc1"]]
    hessian = model.record.estimates(names["Block 3 fc1"], "hessian")
    assert row["hessian_trace"] == hessian.trace.value
    assert row["hessian_trace_probe_sd"] == hessian.trace.probe_sd
    assert row["hessian_lambda_min"] == hessian.eigenvalues.bottom[0]
    assert row["trace_probe_sd"] == 0
    assert 0 < row["negative_share"] < 1
    assert row["trust"] in curvature.VERDICTS
    assert frame["hessian_trace"].isna().sum() == 19


def test_copied_python_asks_for_the_hessian_that_is_shown(model: ExplorerModel, names: dict[str, str]) -> None:
    choose(model, names["Block 3 fc1"])
    handle(model, {"type": "copy_python"})
    assert f"explorer.estimate([{names['Block 3 fc1']!r}])" in model.clipboard["text"]


def test_a_report_holds_each_matrix_in_each_mode(model: ExplorerModel) -> None:
    model.offline = True
    spectra = record(model)["spectra"]
    assert set(spectra) == {"ggn", "hessian"}
    for matrix, views in spectra.items():
        assert set(views) == {"*selected", "*all", "*table", *model.labels}
        assert {view["matrix"] for view in views.values()} == {matrix}


def test_a_trace_has_no_more_digits_than_its_errors_leave_it() -> None:
    estimate = TraceEstimate("layer", "hessian", 7.343, 0.0, 10.2, 32, 1, 0, scale=50.0)
    assert curvature.trace_value(estimate) == "7"
    assert curvature.trace_words(estimate) == "7 ± 10 (probes)"
    assert curvature.trace_words(replace(estimate, data_sd=3.1)) == "7.3 ± 3.1 (data) ± 10 (probes)"
    assert curvature.trace_words(replace(estimate, probe_sd=None, data_sd=3.1)) == "7.3 ± 3.1"
