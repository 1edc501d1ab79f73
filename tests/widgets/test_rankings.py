"""How alike the scores rank, and what pairs of layers lose together, as the explorer shows them."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from scipy.stats import spearmanr

import fake_refinement
from fake_study import filled, layers
from paredown.search import Agreement
from paredown_widgets import Explorer, interactions, rankings
from paredown_widgets.figures.heat_map import heat_map
from paredown_widgets.figures.style import paper
from paredown_widgets.handlers import handle
from paredown_widgets.labels import group_text, label_layers
from paredown_widgets.model import ExplorerModel
from paredown_widgets.report import record
from paredown_widgets.snapshot import snapshot


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> ExplorerModel:
    model = ExplorerModel(fake_refinement.refined(filled(tmp_path_factory.mktemp("ranked"), blocks=2)))
    model.refresh()
    return model


def test_scores_are_ranked_only_when_somebody_looks(model: ExplorerModel) -> None:
    assert snapshot(model)["rankings"]["empty"] == "Ranking the scores."
    model.searching = True
    model.study.store.append("fake", "measure", "notice", message="something new")
    model.refresh()
    assert snapshot(model)["rankings"]["empty"] == ""


def test_a_cell_is_spearmans_correlation_of_what_the_scores_say(refined: ExplorerModel) -> None:
    refined.rank()
    shown = snapshot(refined)["rankings"]
    ids = [score["id"] for score in shown["scores"]]
    assert ids[:4] == ["guarded_loss", "loss_increase", "output_error", "weight_error"]
    assert "trace" in ids
    pooled, at = shown["tables"]
    assert (pooled["label"], at["label"]) == ("All choices", "Layers at int4g64")
    problem = refined.problem
    assert problem is not None
    flat = {name: np.concatenate(problem.costs(name)) for name in ids[:4]}  # pyright: ignore[reportArgumentType]
    for row in range(4):
        assert len(pooled["rows"][row]) == row
        for column in range(row):
            expected = spearmanr(flat[ids[row]], flat[ids[column]])[0]
            assert float(pooled["rows"][row][column]["text"].replace("−", "-")) == pytest.approx(expected, abs=0.006)
    assert "95 %" in pooled["rows"][1][0]["title"]
    assert json.dumps(shown, allow_nan=False)


def test_what_is_known_is_not_ranked_again_and_a_new_score_is(refined: ExplorerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    refined.rank()
    before = refined.rankings
    refined.rank()
    assert refined.rankings is before
    scored = {
        name: {scheme: replace(candidate, scores={"fisher": candidate.loss_increase**2}) for scheme, candidate in offered.items()}
        for name, offered in refined.record.candidates.items()
    }
    monkeypatch.setattr(refined.record, "candidates", scored)
    refined.rank()
    assert refined.rankings is not None
    assert "fisher" in refined.rankings.scores
    pair = (refined.rankings.scores.index("fisher"), refined.rankings.scores.index("loss_increase"))
    assert refined.rankings.tables["int4g64"][pair].spearman > 0.7  # of one layer it would be 1; groups are sums


def test_a_constant_score_has_no_number(refined: ExplorerModel) -> None:
    nothing = Agreement(float("nan"), float("nan"), float("nan"), 5)
    ranked = rankings.Rankings((), ("guarded_loss", "trace"), {"": {(1, 0): nothing}})
    cell = rankings._cell(ranked, nothing, 1, 0)
    assert cell["text"] == "–"
    assert cell["step"] is None
    assert "constant" in cell["title"]


@pytest.mark.parametrize(("value", "step"), [(-1.0, 0), (0.0, 3), (1.0, 6), (0.9, 6), (0.5, 5)])
def test_colours_run_from_minus_one_to_one(value: float, step: int) -> None:
    ranked = rankings.Rankings((), ("guarded_loss", "trace"), {})
    assert rankings._cell(ranked, Agreement(value, value, value, 5), 1, 0)["step"] == step


def test_pairs_are_drawn_and_the_strongest_named(refined: ExplorerModel) -> None:
    shown = interactions.view(refined)
    known = refined.record.interactions
    assert known is not None
    trace = shown["figure"]["data"][0]
    z = np.array([[np.nan if v is None else v for v in row] for row in trace["z"]])
    assert np.isnan(np.diag(z)).all()
    np.testing.assert_allclose(z[~np.eye(len(z), dtype=bool)], np.array(known.pairs)[~np.eye(len(z), dtype=bool)], rtol=1e-5)
    assert trace["zmax"] == -trace["zmin"] == np.abs(known.pairs).max()
    strongest = shown["pairs"][0]
    i, j = np.unravel_index(np.abs(known.pairs).argmax(), z.shape)
    assert set(strongest["layers"]) == {*known.groups[i], *known.groups[j]}
    assert "±" in strongest["value"]
    go.Figure(paper(heat_map(refined, known)))


def test_without_measured_pairs_it_says_how_to_have_them(model: ExplorerModel) -> None:
    assert "interactions=300" in interactions.view(model)["empty"]
    assert interactions.view(model)["figure"] is None


def test_a_report_holds_the_view_of_the_search(tmp_path: Path) -> None:
    model = ExplorerModel(fake_refinement.refined(filled(tmp_path, blocks=1), rounds=1), offline=True)
    model.refresh()
    state = record(model)["state"]
    assert state["rankings"]["tables"]
    assert state["history"]["rows"]
    assert state["interactions"]["figure"]["data"]


def test_figures_of_the_search_for_papers(tmp_path: Path) -> None:
    explorer = Explorer(fake_refinement.refined(filled(tmp_path, blocks=1), rounds=1))
    assert explorer.figure("interactions").data[0].type == "heatmap"


def test_opening_the_view_has_the_scores_ranked(model: ExplorerModel) -> None:
    handle(model, {"type": "opened", "id": "search"})
    for _ in range(200):
        if model.rankings is not None:
            break
        time.sleep(0.05)
    assert model.rankings is not None


def test_a_group_is_named_by_its_block_and_roles() -> None:
    labels = label_layers(layers(2))
    names = list(labels)
    assert group_text(labels, names[1:4]) == "Block 0 q k v"
    assert group_text(labels, names[5:6]) == "Block 0 fc1"
    assert group_text(labels, names[1:7]) == "Block 0 q and 5 more"
    assert group_text(labels, [names[1], names[8]]) == "Block 0 q and 1 more"
