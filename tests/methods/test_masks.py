from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods import dequantize, quantize
from paredown.methods.masks import NOfM, Rows, Unstructured, follows, keep, select, select_across, stages
from paredown.methods.pruning import prune
from paredown.methods.saliency import diagonal_fisher, magnitude, wanda
from paredown.specs import BITS, WeightFormat

shapes = st.tuples(st.integers(1, 7), st.integers(1, 23))
fractions = st.floats(0, 1, exclude_max=True)
patterns = st.one_of(
    st.builds(Unstructured, fractions, st.booleans()),
    st.integers(1, 9).flatmap(lambda m: st.builds(NOfM, st.integers(1, m), st.just(m))),
    st.builds(Rows, fractions),
)


def noise(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(shapes, patterns, st.integers(0, 3))
def test_counts_are_exact_for_any_shape(shape, pattern, seed):
    mask = select(noise(shape, seed).abs(), pattern)
    assert follows(mask, pattern)
    out, inputs = shape
    if isinstance(pattern, Unstructured) and not pattern.per_row:
        assert int((~mask).sum()) == round(pattern.fraction * out * inputs)
    if isinstance(pattern, NOfM):
        for row in mask.tolist():
            for start in range(0, inputs, pattern.m):
                group = row[start : start + pattern.m]
                assert sum(group) == math.ceil(pattern.n * len(group) / pattern.m)


@settings(deadline=None)
@given(shapes, patterns)
def test_a_changed_mask_no_longer_follows(shape, pattern):
    mask = select(noise(shape).abs(), pattern)
    mask[0, 0] = ~mask[0, 0]
    assert not follows(mask, pattern)


@settings(deadline=None)
@given(shapes, st.floats(0, 1, exclude_max=True))
def test_what_is_kept_is_never_less_salient_than_what_goes(shape, fraction):
    saliency = noise(shape, 1).abs()
    mask = select(saliency, Unstructured(fraction))
    if mask.any() and not mask.all():
        assert saliency[mask].min() >= saliency[~mask].max()


@settings(deadline=None)
@given(shapes, patterns, st.integers(1, 6))
def test_every_stage_prunes_more_until_the_pattern_is_reached(shape, pattern, steps):
    saliency = noise(shape, 2).abs()
    planned = stages(pattern, steps)
    assert planned[-1] == pattern
    before = torch.ones(shape, dtype=torch.bool)
    for stage in planned:
        mask = select(torch.where(before, saliency, -1.0), stage)
        assert not (mask & ~before).any()
        before = mask


def test_equal_saliencies_keep_the_earlier_weights():
    assert select(torch.ones(2, 4), NOfM(2, 4)).tolist() == [[True, True, False, False]] * 2


@pytest.mark.parametrize("shape", [(1, 700), (5, 40), (3000, 4), (1100, 8), (20, 4)], ids=str)
def test_ties_and_infinities_are_kept_as_a_stable_sort_keeps_them(shape):
    saliency = noise(shape).mul(2).round().abs()
    saliency[0, -1] = torch.inf
    for count in (0, 1, shape[1] // 2, shape[1]):
        order = torch.sort(saliency, dim=1, descending=True, stable=True).indices
        assert torch.equal(keep(saliency, count), torch.zeros_like(saliency, dtype=torch.bool).scatter_(1, order[:, :count], value=True))


def test_layers_compared_together_share_one_threshold():
    first, second = noise((4, 8), 4).abs(), 3 * noise((2, 8), 5).abs()
    masks = select_across([first, second], 0.5)
    kept, gone = (torch.cat([s[m if keep else ~m] for s, m in zip((first, second), masks, strict=True)]) for keep in (True, False))
    assert len(gone) == 24
    assert kept.min() >= gone.max()
    assert masks[1].float().mean() > masks[0].float().mean()


@pytest.mark.parametrize("solver", ["rtn", "mse"])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("pattern", [NOfM(2, 4), NOfM(4, 8), Unstructured(0.7), Rows(0.3)], ids=str)
def test_pruned_weights_stay_exact_zeros_through_quantization(pattern, bits, symmetric, solver):
    weight = noise((12, 64), 6) + 0.4  # most groups do not straddle zero evenly
    pruned = prune(weight, magnitude(weight), pattern)
    back = dequantize(quantize(pruned.weight, WeightFormat(bits, 32, symmetric), solver))
    assert (back[~pruned.mask] == 0).all()
    assert torch.equal(pruned.weight[pruned.mask], weight[pruned.mask])


def test_each_criterion_is_its_formula():
    weight, x = noise((3, 5), 7), noise((40, 5), 8)
    gradients = noise((9, 3, 5), 9)
    for row in range(3):
        for column in range(5):
            w = weight[row, column].item()
            assert magnitude(weight).values[row, column].item() == pytest.approx(abs(w))
            lost = (w * x[:, column]).square().mean().sqrt().item()
            assert wanda(weight, x.T @ x / 40).values[row, column].item() == pytest.approx(lost, rel=1e-5)
            fisher = gradients.square().mean(0)
            for damping in (0.0, 0.1, 2.0):
                curvature = fisher[row, column].item() + damping * fisher.mean().item()
                saliency = diagonal_fisher(weight, fisher, damping=damping).values[row, column].item()
                assert saliency == pytest.approx(w * w * curvature / 2, rel=1e-5)


def test_wanda_per_row_is_the_brain_surgeon_with_a_diagonal_moment():
    # with uncorrelated inputs, pruning costs each output the sum of what single weights cost, so that the order is Wanda's
    weight, squares = noise((6, 16), 10), noise((16,), 11).square()
    mask = select(wanda(weight, squares.diag()).values, Unstructured(0.5, per_row=True))
    assert torch.equal(mask, select(weight.square() * squares, Unstructured(0.5, per_row=True)))


def test_a_dead_input_is_pruned_first_and_dead_layers_fall_back_on_magnitude():
    weight = noise((4, 8), 12)
    squares = torch.ones(8)
    squares[3] = 0
    assert not prune(weight, wanda(weight, squares.diag()), Unstructured(1 / 8, per_row=True)).mask[:, 3].any()
    for fallback in (wanda(weight, torch.zeros(8, 8)), diagonal_fisher(weight, torch.zeros(4, 8))):
        pruned = prune(weight, fallback, NOfM(1, 2))
        assert pruned.note
        assert torch.equal(pruned.mask, prune(weight, magnitude(weight), NOfM(1, 2)).mask)


def test_half_precision_is_taken_and_zero_weights_give_a_valid_mask():
    pruned = prune(torch.zeros(3, 8, dtype=torch.bfloat16), magnitude(torch.zeros(3, 8, dtype=torch.bfloat16)), NOfM(2, 4))
    assert follows(pruned.mask, NOfM(2, 4))
    assert pruned.weight.dtype is torch.float32


def test_mistakes_are_explained():
    with pytest.raises(ParedownError, match="n of m, got 5:4"):
        NOfM(5, 4)
    with pytest.raises(ParedownError, match=r"below 1, got 1\.0"):
        Unstructured(1.0)
    with pytest.raises(ParedownError, match="saliency holds NaN"):
        select(torch.full((2, 2), float("nan")), NOfM(1, 2))
    with pytest.raises(ParedownError, match="NaN or infinite"):
        magnitude(torch.tensor([[float("inf")]]))
    with pytest.raises(ParedownError, match=r"mean of squared gradients \[2, 3\]"):
        diagonal_fisher(torch.ones(2, 3), -torch.ones(2, 3))
    with pytest.raises(ParedownError, match="damping of at least 0"):
        diagonal_fisher(torch.ones(2, 3), torch.ones(2, 3), damping=-1.0)
    with pytest.raises(ParedownError, match="at least one step"):
        stages(NOfM(1, 2), 0)
