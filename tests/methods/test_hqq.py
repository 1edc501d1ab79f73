from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods import clip_search, dequantize, quantize
from paredown.methods.grid import Grid
from paredown.methods.hqq import STEPS, quantize_hqq, shrink
from paredown.specs import BITS, WeightFormat
from reference.quantization import hqq_group


def heavy_tailed(seed: int, out: int, inputs: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, inputs, generator=generator) / torch.rand(out, inputs, generator=generator).clamp(min=0.05).sqrt()


def squared_errors(weight, quantized):
    squares = (dequantize(quantized).double() - weight).square()
    return squares.reshape(*quantized.scales.shape, -1).sum(-1)


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_grids_are_those_of_the_slow_loop(bits, symmetric):
    weight = heavy_tailed(0, 20, 32)
    found = quantize_hqq(weight, WeightFormat(bits, None, symmetric))
    scales, zeros = (start.flatten().tolist() for start in clip_search.find(Grid(bits, symmetric), weight.unsqueeze(1)))
    slow = [
        hqq_group(row, scale, int(zero), bits, symmetric, STEPS)
        for row, scale, zero in zip(weight.double().tolist(), scales, zeros, strict=True)
    ]
    assert found.scales.flatten().tolist() == pytest.approx([scale for scale, _ in slow], rel=2e-3)
    if found.zero_points is not None:
        assert found.zero_points.flatten().tolist() == [zero for _, zero in slow]


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**16), st.sampled_from(BITS), st.booleans())
def test_no_group_errs_more_than_with_clip_search_or_rounding_to_nearest(out, inputs, seed, bits, symmetric):
    weight, format = heavy_tailed(seed, out, inputs), WeightFormat(bits, None, symmetric)
    found = squared_errors(weight, quantize_hqq(weight, format))
    for solver in ("rtn", "mse"):
        assert (found <= squared_errors(weight, quantize(weight, format, solver)) * (1 + 1e-6)).all()


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", [4, 6, 8])
def test_the_splitting_gains_over_its_start(bits, symmetric):
    weight, format = torch.randn(64, 256, generator=torch.Generator().manual_seed(1)), WeightFormat(bits, 32, symmetric)
    start, found = (squared_errors(weight, made) for made in (quantize(weight, format, "mse"), quantize_hqq(weight, format)))
    assert (found < 0.99 * start).double().mean() > 0.25


@given(st.floats(-3, 3), st.floats(0.1, 10))
def test_the_threshold_of_the_magnitude_is_its_proximal_map(error, beta):
    grid = torch.linspace(-4, 4, 8001, dtype=torch.float64)
    best = grid[(grid.abs() + beta / 2 * (grid - error).square()).argmin()]
    assert shrink(torch.tensor(error, dtype=torch.float64), beta, 1.0) == pytest.approx(best.item(), abs=2e-3)


def test_the_threshold_leaves_large_errors_alone_and_takes_small_ones_away():
    assert shrink(torch.tensor([0.0, 0.9, -0.9, 1e6]), 1.0).tolist() == pytest.approx([0, 0, 0, 1e6])
    assert shrink(torch.tensor([-8.0]), 2.0, 0.7).item() == pytest.approx(-(8 - 8**-0.3 / 2))


@pytest.mark.parametrize("format", [WeightFormat(2, 16), WeightFormat(4, None), WeightFormat(3, 32, symmetric=True)], ids=str)
def test_what_lies_on_the_grid_comes_back_exactly(format):
    once = quantize(heavy_tailed(4, 4, 64), format)
    once = dequantize(replace(once, codes=torch.arange(256, dtype=torch.uint8).view(4, 64) % 2**format.bits))  # all codes of each group
    assert torch.equal(dequantize(quantize_hqq(once, format)), once)
    assert not dequantize(quantize_hqq(torch.zeros(2, 32), format)).any()


@given(st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=8, max_size=8), st.sampled_from(BITS), st.booleans())
def test_finite_weights_never_give_anything_else(values, bits, symmetric):
    quantized = quantize_hqq(torch.tensor([values]), WeightFormat(bits, None, symmetric))
    assert torch.isfinite(quantized.scales).all()
    assert (quantized.scales != 0).all()
    assert int(quantized.codes.max()) < 2**bits
    assert torch.isfinite(dequantize(quantized)).all()


def test_mistakes_are_refused():
    with pytest.raises(ParedownError, match="NaN or infinite"):
        quantize_hqq(torch.full((2, 32), torch.inf, dtype=torch.float16), WeightFormat(4, 16))
    with pytest.raises(ParedownError, match="group size 64 does not divide the 96 inputs"):
        quantize_hqq(torch.ones(2, 96), WeightFormat(4, 64))
