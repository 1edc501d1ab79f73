from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods import clip_search, dequantize, quantize
from paredown.methods.grid import Grid
from paredown.methods.sign_round import sign_round
from paredown.specs import WeightFormat
from reference.sign_round import loss_of
from reference.sign_round import sign_round as slow_sign_round
from second_moments import DEGENERATE_MOMENTS, DEGENERATE_WEIGHTS, moment_of, weights


def losses(weight, moment, quantized):
    return loss_of(dequantize(quantized).double() - weight, moment)


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_it_goes_the_way_of_automatic_differentiation(bits, symmetric):
    moment, weight = moment_of(32, seed=3), weights(6, 32)
    groups, grid = weight.view(6, 2, 16), Grid(bits, symmetric)
    start, _ = clip_search.find(grid, groups, moment.diagonal().float().view(2, 16))
    slow = slow_sign_round(weight, moment, bits, 16, start / grid.span(groups)[0], 12, symmetric)
    found = sign_round(weight, moment, WeightFormat(bits, 16, symmetric), steps=12)
    assert losses(weight, moment, found).tolist() == pytest.approx(loss_of(slow - weight, moment).tolist(), rel=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4), st.integers(1, 12), st.integers(0, 2**16), st.sampled_from([2, 3, 4, 8]), st.booleans())
def test_no_row_errs_more_than_with_rounding_to_nearest(out, inputs, seed, bits, symmetric):
    moment, weight, format = moment_of(inputs, seed=seed), weights(out, inputs, seed), WeightFormat(bits, None, symmetric)
    found = losses(weight, moment, sign_round(weight, moment, format, steps=5))
    assert (found <= losses(weight, moment, quantize(weight, format)) * (1 + 1e-4)).all()


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize(("bits", "group"), [(2, 32), (3, 16), (4, 64), (4, None)])
def test_outputs_err_less_than_with_clip_search(bits, group, symmetric):
    moment, weight, format = moment_of(192, 1000), weights(24, 192), WeightFormat(bits, group, symmetric)
    found = sign_round(weight, moment, format)
    assert losses(weight, moment, found).sum() < 0.95 * losses(weight, moment, quantize(weight, format, "mse")).sum()
    assert found.scales.shape == (24, 192 // (group or 192))
    assert int(found.codes.max()) < 2**bits
    assert (found.zero_points is None) == symmetric


def test_layers_that_share_their_inputs_can_be_done_together():
    moment, first, second = moment_of(32), weights(5, 32), weights(7, 32, seed=2)
    together = sign_round(torch.cat([first, second]), moment, WeightFormat(3, 16))
    assert losses(first, moment, sign_round(first, moment, WeightFormat(3, 16))).tolist() == pytest.approx(
        losses(torch.cat([first, second]), moment, together)[:5].tolist(), rel=0.02
    )


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
def test_dead_inputs_are_rounded_to_nearest(symmetric):
    moment, weight = moment_of(32), weights(4, 32)
    moment[5] = moment[:, 5] = 0
    found = sign_round(weight, moment, WeightFormat(3, None, symmetric))
    change = (dequantize(found) - weight)[:, 5]
    assert torch.isfinite(change).all()
    inside = (found.codes[:, 5] > 0) & (found.codes[:, 5] < 7)
    assert inside.any()
    assert (change.abs()[inside] <= found.scales.float().abs().squeeze(1)[inside] * 0.501).all()


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("weight", DEGENERATE_WEIGHTS)
@pytest.mark.parametrize("moment", DEGENERATE_MOMENTS)
def test_degenerate_input_gives_finite_weights(weight, moment, symmetric):
    found = sign_round(weight, moment, WeightFormat(3, 16, symmetric))
    assert torch.isfinite(dequantize(found)).all()
    assert (found.scales != 0).all()
    assert int(found.codes.max()) < 8
    if not weight.any():
        assert not dequantize(found).any()


def test_mistakes_are_refused():
    with pytest.raises(ParedownError, match="NaN or infinite"):
        sign_round(torch.full((2, 32), torch.inf, dtype=torch.float16), torch.eye(32), WeightFormat(4, 16))
    with pytest.raises(ParedownError, match="group size 64 does not divide the 32 inputs"):
        sign_round(torch.ones(2, 32), torch.eye(32), WeightFormat(4, 64))
    with pytest.raises(ParedownError, match=r"shape \[32, 32\]"):
        sign_round(torch.ones(2, 32), torch.eye(16), WeightFormat(4, 16))
    with pytest.raises(ParedownError, match="at least one step, got 0"):
        sign_round(torch.ones(2, 32), torch.eye(32), WeightFormat(4, 16), steps=0)
