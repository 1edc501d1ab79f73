"""The plan coloured by every number that a study knows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paredown.search import Problem
from paredown.specs import LayerRef
from paredown_widgets import colors
from paredown_widgets.handlers import HANDLERS, handle
from paredown_widgets.labels import label_layers
from paredown_widgets.model import ExplorerModel
from paredown_widgets.snapshot import snapshot

SCORES = ("fisher", "kfac", "ekfac", "modelopt", "delta_loss", "measured_loss")


@pytest.fixture
def scored(model: ExplorerModel) -> ExplorerModel:
    """A study of every score, each a multiple of the loss; latencies too."""
    for offered in model.record.candidates.values():
        for scheme, candidate in offered.items():
            scores = {score: (index + 1) * candidate.loss_increase for index, score in enumerate(SCORES)}
            offered[scheme] = replace(candidate, scores=scores, seconds_per_token=1e-6 * candidate.bytes)
    model.cache.pop("colors", None)
    return model


def by(model: ExplorerModel, color: str) -> dict[str, dict[str, Any]]:
    handle(model, {"type": "color_by", "id": color})
    assert model.error is None, model.error
    return snapshot(model)["plan"]["cells"]


def test_only_what_the_study_knows_is_offered_under_its_head(model: ExplorerModel, scored: ExplorerModel) -> None:
    every = {option["id"] for option in colors.options(scored)}
    assert set(SCORES) | {"seconds", "outliers", "kurtosis", "reach", "trace_score", "top_eigenvalue_score"} <= every
    assert "slices_score" not in every  # no slices were estimated
    assert not {"sparsity", "rank"} & every  # nothing to choose there
    scored.record.profiles.clear()
    assert "kurtosis" not in {option["id"] for option in colors.options(scored)}
    groups = [option["group"] for option in colors.options(scored)]
    assert groups == sorted(groups, key=list(dict.fromkeys(groups)).index)  # each head once
    assert len(set(groups)) > 3


@pytest.mark.parametrize("color", [color for color in colors.COLORS if color not in ("bits", "sparsity", "rank")])
def test_steps_rise_with_the_value_which_is_printed_with_its_unit(scored: ExplorerModel, color: str) -> None:
    cells = by(scored, color)
    value = colors.COLORS[color].value
    known = {name: found for name in cells if (found := value(scored, name)) is not None}
    assert (color in {option["id"] for option in colors.options(scored)}) == bool(known)
    ranked = [cells[name]["color"] for name in sorted(known, key=known.__getitem__)]
    assert ranked == sorted(ranked)
    assert set(ranked) <= set(range(colors.STEPS))
    assert all(cells[name]["value"] for name in known)
    assert all((cells[name]["color"], cells[name]["value"]) == (None, "") for name in set(cells) - set(known))
    assert not known or snapshot(scored)["plan"]["legend"]["unit"]


def test_the_literatures_scores_are_what_its_allocators_sum(scored: ExplorerModel) -> None:
    problem = replace(
        Problem.of(0, scored.record.layers, scored.record.candidates, fuse=False),
        curvature={layer.name: scored.record.estimates(layer.name) for layer in scored.record.layers},
    )
    for kind, objective in (("trace_score", "trace"), ("top_eigenvalue_score", "top_eigenvalue"), ("kfac", "kfac")):
        costs = problem.costs(objective)  # pyright: ignore[reportArgumentType]
        for (name,), offered, cost in zip(problem.groups, problem.schemes, costs, strict=True):
            own = colors.COLORS[kind].value(scored, name)
            assert own == pytest.approx(cost[offered.index(scored.editor.schemes[name])]), (kind, name)


def test_values_that_are_nearly_alike_look_nearly_alike(scored: ExplorerModel) -> None:
    names = list(scored.labels)
    for index, name in enumerate(names):
        profile = scored.record.profiles[name]
        scored.record.profiles[name] = replace(profile, weight_kurtosis=5.0 + 0.01 * index)
    assert {cell["color"] for cell in by(scored, "kurtosis").values()} == {7}
    for name in names[1:]:
        scored.record.profiles[name] = replace(scored.record.profiles[name], weight_kurtosis=0.0)
    cells = by(scored, "kurtosis")
    assert [cells[name]["color"] for name in names[:2]] == [7, 0]
    scored.record.profiles[names[0]] = replace(scored.record.profiles[names[0]], weight_kurtosis=-1.0)
    assert {cell["color"] for cell in by(scored, "kurtosis").values()} == {0}
    assert snapshot(scored)["plan"]["legend"] == {"low": "0", "high": "0", "unit": "excess"}


def test_a_quantity_that_does_not_exist_is_refused(model: ExplorerModel) -> None:
    handle(model, {"type": "color_by", "id": "taste"})
    assert model.error is not None
    assert "color_by must be one of bits" in model.error["text"]
    assert "color_by" in HANDLERS


def test_options_are_asked_for_once(model: ExplorerModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = colors.options(model)
    monkeypatch.setattr(colors, "_known", lambda *_: pytest.fail("asked again"))
    assert colors.options(model) is first


def test_a_model_of_many_layers_is_labelled_in_groups() -> None:
    """Blocks and roles, never a run of bare indices."""
    layers = [LayerRef(f"model.layers.{b}.{r}", "linear", r, f"model.layers.{b}", (8, 8), "float32") for b in range(50) for r in "qkvouds"]
    labels = label_layers(layers)
    assert len(labels) == 350
    assert len({label.text for label in labels.values()}) == 350
    assert {label.column for label in labels.values()} == set("qkvouds")
