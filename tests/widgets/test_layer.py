"""A layer's page: what it opens, says, lists and draws. No browser."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fake_study import RICH, FakeStudy, filled
from paredown.errors import ParedownError
from paredown.specs import KEEP, Histogram, Scheme
from paredown_widgets import layer
from paredown_widgets.explorer import Explorer
from paredown_widgets.figures.layer import families, inputs_figure, schemes_figure, weights_figure
from paredown_widgets.figures.style import resolve
from paredown_widgets.handlers import handle
from paredown_widgets.model import ExplorerModel
from paredown_widgets.snapshot import snapshot

EMBEDDING, Q, K, V, FC2 = 0, 1, 2, 3, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("rich"), blocks=2, schemes=RICH).folder


@pytest.fixture
def page(folder: Path) -> ExplorerModel:
    """A model whose page of Block 0 fc2 is open."""
    made = ExplorerModel(FakeStudy(folder, blocks=2, schemes=RICH))
    made.refresh()
    do(made, "opened", id="layer")
    do(made, "select", layers=[name(made, FC2)], mode="replace")
    return made


def do(model: ExplorerModel, kind: str, **fields: object) -> None:
    handle(model, {"type": kind, **fields})
    assert model.error is None, model.error


def name(model: ExplorerModel, index: int) -> str:
    return model.record.layers[index].name


def test_nothing_is_made_before_somebody_opens_the_page(model: ExplorerModel) -> None:
    assert snapshot(model)["layer"]["layer"] == ""
    do(model, "opened", id="layer")
    page = snapshot(model)["layer"]
    costliest = max(model.labels, key=lambda each: model.record.candidates[each][Scheme.parse("int4g64")].loss_increase)
    assert page["layer"] == costliest
    assert costliest in model.selection


def test_the_page_is_of_the_layer_that_was_picked_though_its_group_is_selected(page: ExplorerModel) -> None:
    do(page, "select", layers=[name(page, K)], mode="replace")
    assert page.selection == [name(page, i) for i in (Q, K, V)]
    assert layer.opened(page) == name(page, K)
    assert layer.shown(page) == [name(page, i) for i in (K, Q, V)]
    assert "decided with q, v" in layer.view(page)["chips"]
    do(page, "select", layers=[name(page, FC2)], mode="toggle")
    assert layer.opened(page) == name(page, K)  # what is picked besides stands beside it
    assert layer.shown(page) == [name(page, i) for i in (K, V, FC2)]
    do(page, "opened", id="layer", layer=name(page, FC2))
    assert layer.opened(page) == name(page, FC2)
    do(page, "select", layers=[], mode="replace")
    assert layer.opened(page) in page.labels


def test_the_page_says_what_the_layer_is_and_why_it_is_sensitive(page: ExplorerModel) -> None:
    view = layer.view(page)
    assert (view["label"], view["chips"]) == ("Block 0 fc2", ["384 × 1,536", "589,824 weights"])
    assert (view["locked"], view["edited"]) == (False, False)
    assert "input channel" in view["why"]["text"]
    known = layer.evidence(page, name(page, FC2))
    losses = sorted(page.record.candidates[each][page.choices.middle].loss_increase for each in page.labels)
    own = page.record.candidates[name(page, FC2)][page.choices.middle].loss_increase
    assert known.loss == pytest.approx(own / ((losses[6] + losses[7]) / 2))  # 14 layers
    assert known.outlier_share == page.record.profiles[name(page, FC2)].inputs.outlier_share  # pyright: ignore[reportOptionalMemberAccess]
    do(page, "lock", layers=[name(page, FC2)], locked=True)
    assert layer.view(page)["locked"]


def test_the_measured_loss_of_the_layer_alone_takes_the_place_of_the_predicted_one(page: ExplorerModel) -> None:
    assert not layer.evidence(page, name(page, FC2)).passed_on_measured
    for each, offered in page.record.candidates.items():
        for scheme, candidate in offered.items():
            offered[scheme] = replace(
                candidate, scores={"measured_loss": 2 * candidate.loss_increase if each == name(page, FC2) else candidate.output_error}
            )
    known = layer.evidence(page, name(page, FC2))
    assert known.passed_on_measured
    view = layer.view(page)
    assert view["table"]["alone"] == "Alone, 10⁻³ nats"
    assert all(row["alone"] != "–" for row in view["table"]["rows"])
    assert any(trace["uid"] == "alone:int" for trace in view["schemes"]["figure"]["data"])


def test_the_table_has_every_scheme_the_largest_first_and_the_plans_marked(page: ExplorerModel) -> None:
    table = layer.view(page)["table"]
    assert {row["scheme"] for row in table["rows"]} == set(RICH)
    sizes = [page.record.candidates[name(page, FC2)][Scheme.parse(row["scheme"])].bytes for row in table["rows"]]
    assert sizes == sorted(sizes, reverse=True)
    assert [row["scheme"] for row in table["rows"] if row["now"]] == [str(page.editor.schemes[name(page, FC2)])]
    assert table["sub"] == "groups of 64"
    do(page, "scheme", layers=[name(page, FC2)], scheme="nf4g64")
    assert [row["name"] for row in layer.view(page)["table"]["rows"] if row["now"]] == ["4 bit NF"]


def test_the_runtimes_verdict_is_the_exporters(page: ExplorerModel) -> None:
    rows = {row["scheme"]: row for row in layer.view(page)["table"]["rows"]}
    assert (rows["int8g64"]["runtime"], rows["int8g64"]["loads"]) == ("loads", True)
    assert rows["int4g64+eora16"]["runtime"] == "no low rank"
    assert "transformers loads no low-rank factors" in rows["int4g64+eora16"]["reason"].lower()
    assert rows["int4g64"]["runtime"] == "no zero points"
    page.record.info = replace(page.record.info, export_format="paredown")  # pyright: ignore[reportArgumentType]
    assert {row["scheme"]: row for row in layer.view(page)["table"]["rows"]}["int8g64"]["runtime"] == layer.OURS


def test_a_scheme_that_the_fused_group_can_not_have_is_refused_in_its_row(page: ExplorerModel) -> None:
    del page.record.candidates[name(page, V)][Scheme.parse("nf4g64")]
    page.priced = -1
    page._price(1)
    do(page, "select", layers=[name(page, Q)], mode="replace")
    rows = {row["scheme"]: row["refused"] for row in layer.view(page)["table"]["rows"]}
    assert rows["nf4g64"] == "not offered to all layers that are decided together"
    assert rows["int4g64"] == ""


def test_families_are_curves_of_bits_with_the_best_of_several_solvers(page: ExplorerModel) -> None:
    offered = page.record.candidates[name(page, FC2)]
    found = {family.label: family.best for family in families(offered)}
    assert list(found["int"]) == [2, 3, 4, 8]
    assert str(found["int"][4]) == "int4g64-gptq"
    assert found["int + 2:4"].keys() == {4, 8}
    assert KEEP not in [scheme for best in found.values() for scheme in best.values()]
    view = layer.view(page)["schemes"]
    assert len(view["legend"]) == 4
    assert view["legend"][-1] == "5 others"


def test_the_curve_marks_the_plans_place_and_a_point_is_a_scheme(page: ExplorerModel) -> None:
    figure = schemes_figure(page, name(page, FC2))
    curve = next(trace for trace in figure["data"] if trace["uid"] == "family:int")
    assert curve["customdata"][0] == "int2g64"
    assert curve["meta"]["clickable"]
    star = next(trace for trace in figure["data"] if trace["uid"] == "plan")
    now = page.record.candidates[name(page, FC2)][page.editor.schemes[name(page, FC2)]]
    assert star["y"] == [pytest.approx(1e3 * now.loss_increase, rel=1e-5)]
    assert figure["layout"]["annotations"][0]["text"].startswith("in the plan:")
    page.editor.schemes[name(page, FC2)] = KEEP
    assert "plan" not in [trace["uid"] for trace in schemes_figure(page, name(page, FC2))["data"]]


def test_histograms_count_everything_once_and_colour_the_outlier_channels(page: ExplorerModel) -> None:
    seen = page.record.profiles[name(page, FC2)].inputs
    assert seen is not None
    assert seen.outliers is not None
    figure = inputs_figure(page, layer.shown(page))
    traces = {trace["uid"]: trace for trace in figure["data"]}
    assert traces["ordinary"]["y"] == list(seen.ordinary.counts)
    assert traces["outliers"]["y"] == list(seen.outliers.counts)
    assert traces["outliers"]["marker"]["color"] != traces["ordinary"]["marker"]["color"]
    assert [one["text"] for one in figure["layout"]["annotations"]] == ["3 beyond →"]
    weights = weights_figure(page, layer.shown(page))
    assert sum(weights["data"][0]["y"]) == sum(page.record.profiles[name(page, FC2)].weights.counts)
    json.dumps(resolve(figure), allow_nan=False)


def test_further_selected_layers_are_outlines_of_their_own_dash(page: ExplorerModel) -> None:
    do(page, "select", layers=[name(page, 7), name(page, 12)], mode="extend")
    figure = weights_figure(page, layer.shown(page))
    assert len(figure["data"]) == len(layer.shown(page)) == 3
    assert len({trace["line"]["dash"] for trace in figure["data"][1:]}) == 2
    assert layer.view(page)["beside"] == [page.labels[each].text for each in layer.shown(page)[1:]]


def test_an_embedding_has_weights_and_says_that_it_has_no_inputs(page: ExplorerModel) -> None:
    do(page, "select", layers=[name(page, EMBEDDING)], mode="replace")
    view = layer.view(page)
    assert view["weights"]["figure"]["data"]
    assert "looks its rows up" in view["inputs"]["empty"]
    assert view["inputs"]["figure"] is None


def test_a_study_of_before_says_how_to_get_histograms(page: ExplorerModel) -> None:
    page.record.profiles.clear()
    view = layer.view(page)
    assert view["weights"]["empty"] == view["inputs"]["empty"]
    assert "A new study of this model has them" in view["weights"]["empty"]
    page.record.candidates.clear()
    view = layer.view(page)
    assert "once the layer has been priced" in view["weights"]["empty"]
    assert view["table"]["rows"] == []
    assert view["schemes"]["empty"]


def test_a_study_that_knows_nothing_has_an_honest_page(tmp_path: Path) -> None:
    model = ExplorerModel(FakeStudy(tmp_path / "new"))
    model.refresh()
    do(model, "opened", id="layer")
    assert "once the model is loaded" in layer.view(model)["empty"]
    study = FakeStudy(tmp_path / "young")
    steps = study.steps()
    next(steps)
    young = ExplorerModel(study)
    young.refresh()
    do(young, "opened", id="layer")
    view = layer.view(young)
    assert view["why"] == {"lead": "", "text": "–"}
    json.dumps(snapshot(young)["layer"], allow_nan=False)


def test_the_spectrum_of_the_page_stays_whatever_the_overview_shows(page: ExplorerModel) -> None:
    do(page, "select", layers=[name(page, 12)], mode="extend")
    do(page, "spectrum_mode", id="table")
    view = snapshot(page)["layer_spectrum"]
    assert view["mode"] == "selected"
    assert [line["label"] for line in view["legend"]] == [page.labels[each].text for each in layer.shown(page)]
    assert view["figure"]["data"]


def test_the_page_is_made_anew_when_something_on_it_changes(page: ExplorerModel) -> None:
    before = layer.key(page)
    do(page, "bits", layers=[name(page, 12)], bits=8)
    assert layer.key(page) == before  # another layer
    do(page, "bits", layers=[name(page, FC2)], bits=8)
    assert layer.key(page) != before


def test_names_of_hostile_layers_reach_plotly_as_text(tmp_path: Path) -> None:
    model = ExplorerModel(filled(tmp_path, blocks=1, hostile=True))
    model.refresh()
    do(model, "opened", id="layer")
    text = json.dumps([layer.view(model)["weights"], layer.view(model)["inputs"], layer.view(model)["schemes"]])
    assert "<img" not in text


@pytest.mark.parametrize("figure", ["weights", "inputs", "schemes"])
def test_figures_for_papers_are_of_the_opened_layer(folder: Path, figure: str) -> None:
    with pytest.raises(ParedownError, match="figure must be one of"):
        Explorer(FakeStudy(folder, blocks=2, schemes=RICH)).figure("layer")
    explorer = Explorer(FakeStudy(folder, blocks=2, schemes=RICH))
    explorer.selection = [name(explorer.model, FC2)]
    drawn = explorer.figure(figure)
    assert drawn.data
    assert "token:" not in drawn.to_json()
    explorer.close()


def test_a_histogram_knows_its_bins() -> None:
    made = Histogram(-1.0, 1.0, (1, 2, 3, 4), below=5)
    assert made.edges == (-1.0, -0.5, 0.0, 0.5, 1.0)
    assert made.centres == (-0.75, -0.25, 0.25, 0.75)
    assert made.total == 15
