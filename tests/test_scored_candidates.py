"""The scores of the literature on candidates: against slow float64 sums, in stores, and where a layer takes none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from paredown.calibration import Captured, Part
from paredown.curvature import kronecker
from paredown.errors import ParedownError
from paredown.methods import compress, dequantize
from paredown.search import Problem, compare
from paredown.sensitivity import price
from paredown.specs import KEEP, Candidate, LayerRef, Scheme, StudyConfig, from_json, to_json

LAYER = LayerRef("layer", "linear", "q", "block", (8, 32), "float32")
SCHEMES = [Scheme.parse(text) for text in ("int2g32", "int4g32", "50%")]
OF_GRADIENTS = ("fisher", "kfac", "ekfac", "modelopt", "delta_loss")


def seen(layer=LAYER, samples=6, tokens=3):
    """Two batches; the last token of every sample is padding."""
    draw = torch.Generator().manual_seed(0)
    real = torch.ones(samples, tokens, dtype=torch.bool)
    real[:, -1] = False
    batches = []
    for _ in range(2):
        gradients = torch.randn(samples, tokens, layer.shape[layer.kind == "embedding"], generator=draw) * real[:, :, None]
        if layer.kind == "embedding":
            part = Part("lookup", torch.randint(0, layer.shape[0], (samples, tokens), generator=draw), gradients, real)
        else:
            part = Part("dense", torch.randn(samples, tokens, layer.shape[1], generator=draw), gradients, real)
        batches.append((part,))
    return Captured(layer, tuple(batches))


def weight(layer=LAYER):
    return torch.randn(layer.shape, generator=torch.Generator().manual_seed(1))


def slow_scores(captured, change, units):
    """Every score from its formula, token by token in float64."""
    change = change.double()
    out, width = change.shape
    of_sample, of_batch = [], []
    inner, left, right, tokens = 0.0, torch.zeros(out, out).double(), torch.zeros(width, width).double(), 0
    for (part,) in captured.batches:
        batch = torch.zeros(out, width).double()
        for x, g, real in zip(part.inputs, part.gradients.double(), part.mask, strict=True):
            sample = torch.zeros(out, width).double()
            for t in range(len(g)):
                if not real[t]:
                    continue
                row = x[t].double()
                sample += torch.outer(g[t], row)
                inner += float(((change @ row) * g[t]).square().sum())
                left += torch.outer(g[t], g[t])
                right += torch.outer(row, row)
                tokens += 1
            of_sample.append(sample)
            batch += sample
        of_batch.append(batch)
    left, right = left / float(units.sum()), right / tokens
    bases = [torch.linalg.eigh(factor)[1] for factor in (left, right)]
    grid = sum((bases[0].T @ sample @ bases[1]) ** 2 for sample in of_sample) / float(units.sum())
    return {
        "fisher": float((sum(sample**2 for sample in of_sample) * change**2).sum()),
        "kfac": 0.5 * float((change * (left @ change @ right)).sum()),
        "ekfac": 0.5 * float((grid * (bases[0].T @ change @ bases[1]) ** 2).sum()),
        "modelopt": inner,
        "delta_loss": sum(float((batch * change).abs().sum()) for batch in of_batch),
    }


def test_every_score_is_that_of_its_formula_on_what_the_scheme_changes():
    captured, units = seen(), torch.arange(1, 13)
    keep, *candidates = price(LAYER, weight(), captured, units, SCHEMES, scores=OF_GRADIENTS)
    assert keep.scores == {}
    for candidate in candidates:
        change = dequantize(compress(weight(), candidate.scheme)) - weight()
        expected = slow_scores(captured, change, units)
        assert set(candidate.scores) == set(OF_GRADIENTS)
        for name, value in expected.items():
            assert candidate.scores[name] == pytest.approx(value, rel=1e-4), name


def test_scores_change_nothing_else_and_only_what_is_asked_for_is_there():
    without = price(LAYER, weight(), seen(), torch.ones(12), SCHEMES)
    some = price(LAYER, weight(), seen(), torch.ones(12), SCHEMES, scores=("ekfac", "fisher", "measured_loss"))
    assert [dataclasses.replace(candidate, scores={}) for candidate in some] == without
    assert {tuple(sorted(candidate.scores)) for candidate in some[1:]} == {("ekfac", "fisher")}


def test_weights_that_are_fitted_to_the_samples_are_scored_as_they_are_applied():
    scheme, made = Scheme.parse("50%-kfac"), []
    (_, candidate) = price(LAYER, weight(), seen(), torch.ones(12), [scheme], made.append, ("fisher",))
    change = dequantize(made[0]) - weight()
    assert candidate.scores["fisher"] == pytest.approx(slow_scores(seen(), change, torch.ones(12))["fisher"], rel=1e-4)


def test_a_lookup_is_scored_too():
    layer = LayerRef("words", "embedding", "embed", "", (11, 32), "float32")
    (_, candidate) = price(layer, weight(layer), seen(layer), torch.ones(12), [Scheme.parse("int4g32")], scores=OF_GRADIENTS)
    change = dequantize(compress(weight(layer), candidate.scheme)) - weight(layer)
    rows = torch.eye(11)
    parts = [(dataclasses.replace(p, kind="dense", inputs=rows[p.inputs]),) for (p,) in seen(layer).batches]
    # a row of the weight is an output of the table's transpose: the same sums with the sides exchanged
    expected = slow_scores(Captured(layer, tuple(parts)), change.T, torch.ones(12))
    for name in ("fisher", "modelopt", "kfac", "delta_loss"):
        assert candidate.scores[name] == pytest.approx(expected[name], rel=1e-4), name


def test_a_layer_that_is_too_large_for_kronecker_factors_lacks_them_and_is_named(monkeypatch):
    monkeypatch.setattr(kronecker, "MAX_SIDE", 16)
    candidates = price(LAYER, weight(), seen(), torch.ones(12), SCHEMES[:2], scores=OF_GRADIENTS)
    for candidate in candidates[1:]:
        assert set(candidate.scores) == {"fisher", "modelopt", "delta_loss"}
        assert "no score by kfac or ekfac: expected sides of at most 16" in candidate.note
    small = dataclasses.replace(LAYER, name="small")
    others = [
        dataclasses.replace(c, layer="small", note="", scores=dict.fromkeys(OF_GRADIENTS, 1.0) if c.scores else {}) for c in candidates
    ]
    offered = {one[0].layer: {c.scheme: c for c in one} for one in (candidates, others)}
    problem = Problem.of(0, [LAYER, small], offered, fuse=False)
    table = compare(problem, problem.largest_bytes)
    assert table.refused["LQ-LoRA"] == ""
    assert "1 layers lack the score 'kfac': layer (no score by kfac or ekfac" in table.refused["K-FAC"]


def test_the_columns_of_a_problem_are_its_candidates_scores_unless_others_are_given():
    def candidate(name, scheme, value):
        return Candidate(name, scheme, scheme, 4, 0.1, 0.0, 0.1, weight_error=1.0, scores={} if value is None else {"fisher": value})

    scheme = SCHEMES[1]
    layers = [dataclasses.replace(LAYER, name=name) for name in "ab"]
    offered = {n: {KEEP: Candidate(n, KEEP, KEEP, 9, 0.0, 0.0, 0.0), scheme: candidate(n, scheme, v)} for n, v in (("a", 2.0), ("b", 3.0))}
    problem = Problem.of(0, layers, offered, fuse=False)
    assert [cost.tolist() for cost in problem.costs("fisher")] == [[0, 2], [0, 3]]
    given = {"fisher": {name: {KEEP: 0.0, scheme: 7.0} for name in "ab"}}
    assert [cost.tolist() for cost in Problem.of(0, layers, offered, fuse=False, columns=given).costs("fisher")] == [[0, 7], [0, 7]]
    with pytest.raises(ParedownError, match=r"the score 'kfac' was not asked for; give the study scores=\('kfac',\)"):
        problem.costs("kfac")
    offered["b"][scheme] = candidate("b", scheme, None)
    with pytest.raises(ParedownError, match="1 layers lack the score 'fisher': b; compare without it"):
        Problem.of(0, layers, offered, fuse=False).costs("fisher")


def test_candidates_with_scores_come_back_from_json_and_so_do_those_of_earlier_versions():
    candidate = Candidate("a", KEEP, KEEP, 4, 0.1, 0.0, 0.1, scores={"fisher": 2.0, "kfac": 1e-7})
    assert from_json(Candidate, to_json(candidate)) == candidate
    old = to_json(dataclasses.replace(candidate, scores={})).replace(', "scores": {}', "")
    assert "scores" not in old
    assert from_json(Candidate, old).scores == {}
    config = to_json(StudyConfig()).replace('"scores": [], ', "")
    assert "scores" not in config
    assert from_json(StudyConfig, config) == StudyConfig()
    with pytest.raises(ParedownError, match="fisher of keep on a must be finite, got nan"):
        dataclasses.replace(candidate, scores={"fisher": np.nan})
    with pytest.raises(ParedownError, match=r"scores must be among fisher, kfac, .*, got 'gut_feeling'"):
        StudyConfig(scores=("gut_feeling",))
