from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods import dequantize, quantize
from paredown.methods.low_rank import svd
from paredown.methods.lq_lora import decompose
from paredown.specs import WeightFormat


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def coarse(weight):
    return quantize(weight, WeightFormat(2, 32))


def weighted(error, fisher):
    return (fisher.sqrt() * error).double().norm().item()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 50), st.integers(1, 6), st.booleans())
def test_the_error_falls_until_the_best_round_which_is_returned(seed, rank, use_fisher):
    weight, fisher = noise(24, 64, seed=seed), noise(24, 64, seed=seed + 1).square()
    found = decompose(weight, rank, coarse, dequantize, fisher=fisher if use_fisher else None)
    assert all(later < earlier for earlier, later in itertools.pairwise(found.errors))
    rest = weight - dequantize(found.quantized) - found.factors.dense()
    assert weighted(rest, fisher if use_fisher else torch.ones_like(fisher)) == pytest.approx(found.errors[-1], rel=1e-4)


@pytest.mark.parametrize("rank", [2, 8])
def test_alternating_beats_one_correction_of_plain_rounding(rank):
    weight = noise(32, 64, seed=1)
    plain = weight - dequantize(coarse(weight))
    assert decompose(weight, rank, coarse, dequantize).errors[-1] < (plain - svd(plain, rank).dense()).norm()


def test_a_fisher_of_rank_one_is_minimised_exactly():
    weight, rows, columns = noise(12, 32, seed=2), noise(12, seed=3).square() + 0.01, noise(32, seed=4).square() + 0.01
    fisher = rows[:, None] * columns
    found = decompose(weight, 3, coarse, dequantize, fisher=fisher)
    rest = (weight - dequantize(found.quantized)).double()
    tail = torch.linalg.svdvals(fisher.double().sqrt() * rest)[3:].square().sum().sqrt()  # no correction of rank 3 leaves less
    assert found.errors[-1] == pytest.approx(tail.item(), rel=1e-5)


def test_weights_that_matter_more_are_met_better():
    weight = noise(16, 64, seed=5)
    fisher = torch.ones(16, 64)
    fisher[:, :8] = 1000
    blind, seeing = (decompose(weight, 4, coarse, dequantize, fisher=f) for f in (None, fisher))
    left = [weighted(weight - dequantize(found.quantized) - found.factors.dense(), fisher) for found in (blind, seeing)]
    assert left[1] < left[0]


def test_any_quantizer_will_do_and_masked_zeros_stay():
    weight = noise(8, 16, seed=6)
    mask = noise(8, 16, seed=7) > 0
    found = decompose(weight, 2, lambda w: torch.where(mask, w.mul(4).round(), 0.0), lambda codes: codes / 4)
    assert not found.quantized[~mask].any()


def test_a_dead_layer_counts_all_weights_alike_and_it_is_said():
    weight = noise(8, 32, seed=8)
    found = decompose(weight, 2, coarse, dequantize, fisher=torch.zeros(8, 32))
    assert "no gradient reaches the layer" in found.note
    assert found.errors == decompose(weight, 2, coarse, dequantize).errors
    zeros = decompose(torch.zeros(8, 32), 2, coarse, dequantize)
    assert zeros.errors == (0.0,)
    dead_row = torch.ones(8, 32)
    dead_row[3] = 0
    assert torch.isfinite(decompose(weight, 2, coarse, dequantize, fisher=dead_row).factors.dense()).all()


def test_mistakes_are_explained():
    with pytest.raises(ParedownError, match="finite and nowhere negative"):
        decompose(noise(4, 32), 2, coarse, dequantize, fisher=-torch.ones(4, 32))
    with pytest.raises(ParedownError, match="at least one step"):
        decompose(noise(4, 32), 2, coarse, dequantize, steps=0)
