from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods import dequantize, quantize
from paredown.methods.error_feedback import inverse_factor
from paredown.methods.gptq import gptq
from paredown.methods.grid import Grid
from paredown.methods.masks import NOfM, follows, select
from paredown.specs import BITS, WeightFormat
from reference.explicit_obs import cost, obs
from second_moments import DEGENERATE_MOMENTS, DEGENERATE_WEIGHTS, damped, moment_of, weights


def output_error(quantized, weight, moment):
    return cost((dequantize(quantized).double() - weight).numpy(), moment.numpy())


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 4),
    st.integers(2, 10),
    st.integers(0, 2**16),
    st.sampled_from(["natural", "activation"]),
    st.sampled_from([2, 3, 4]),
    st.booleans(),
)
def test_codes_are_those_of_explicit_obs(out, inputs, seed, order, bits, symmetric):
    moment, weight = moment_of(inputs, seed=seed), weights(out, inputs, seed)
    factor = inverse_factor(moment, order=order)
    scale, zero = Grid(bits, symmetric).span(weight.unsqueeze(1))  # one group: its range is that of the weights at the start
    scale, zero = scale.flatten().tolist(), zero.flatten().tolist()

    def nearest(row, _, value):
        code = min(max(round(value / scale[row]) + zero[row], 0), 2**bits - 1)
        return scale[row] * (code - zero[row])

    slow = obs(weight.numpy(), damped(moment).numpy(), factor.order.tolist(), nearest)
    found = gptq(weight, factor, WeightFormat(bits, None, symmetric), "rtn")
    assert torch.allclose(dequantize(found.quantized).double(), torch.from_numpy(slow), atol=1e-5)
    assert found.cost == pytest.approx(cost(slow - weight.numpy(), damped(moment).numpy()), rel=1e-3)


@pytest.mark.parametrize("order", ["natural", "activation"])
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize(("bits", "group"), [(2, 32), (3, 16), (4, 64), (4, None), (8, 32)])
def test_outputs_err_less_than_with_rounding_and_the_cost_is_the_error(order, symmetric, bits, group):
    moment, weight = moment_of(192, 1000), weights(24, 192)
    format = WeightFormat(bits, group, symmetric)
    found = gptq(weight, inverse_factor(moment, order=order), format)
    assert output_error(found.quantized, weight, moment) < 0.75 * output_error(quantize(weight, format, "mse"), weight, moment)
    assert found.cost == pytest.approx(output_error(found.quantized, weight, damped(moment)), rel=1e-3)
    assert found.quantized.scales.shape == (24, 192 // (group or 192))
    assert int(found.quantized.codes.max()) < 2**bits


@pytest.mark.parametrize("bits", BITS)
def test_uncorrelated_inputs_leave_plain_rounding(bits):
    weight, format = weights(6, 64), WeightFormat(bits, 16)
    factor = inverse_factor(torch.diag(torch.rand(64, generator=torch.Generator().manual_seed(3)) + 0.1))
    found, plain = gptq(weight, factor, format, "rtn").quantized, quantize(weight, format)
    assert torch.equal(found.codes, plain.codes)
    assert torch.equal(found.scales, plain.scales)
    assert found.zero_points is not None
    assert plain.zero_points is not None
    assert torch.equal(found.zero_points, plain.zero_points)


def test_equal_inputs_leave_the_clip_search_of_plain_rounding():
    weight, format = weights(6, 64), WeightFormat(3, 16)
    assert torch.equal(gptq(weight, inverse_factor(torch.eye(64)), format).quantized.codes, quantize(weight, format, "mse").codes)


def test_pruned_weights_stay_zero():
    moment, weight = moment_of(64, 500), weights(8, 64)
    pattern = NOfM(2, 4)
    mask = select(weight.abs(), pattern)
    format = WeightFormat(4, 16)
    found = gptq(weight, inverse_factor(moment), format, mask=mask)
    assert (dequantize(found.quantized)[~mask] == 0).all()
    assert follows(mask, pattern)
    plain = quantize(weight * mask, format, "mse")
    assert output_error(found.quantized, weight, moment) < output_error(plain, weight, moment)


def test_layers_that_share_their_inputs_share_the_factor():
    factor = inverse_factor(moment_of(32))
    first, second = weights(5, 32), weights(7, 32, seed=2)
    together = gptq(torch.cat([first, second]), factor, WeightFormat(3, 16)).quantized
    assert torch.equal(together.codes[:5], gptq(first, factor, WeightFormat(3, 16)).quantized.codes)
    assert torch.equal(together.codes[5:], gptq(second, factor, WeightFormat(3, 16)).quantized.codes)


@pytest.mark.parametrize("weight", DEGENERATE_WEIGHTS)
@pytest.mark.parametrize("moment", DEGENERATE_MOMENTS)
def test_degenerate_input_gives_finite_weights(weight, moment):
    found = gptq(weight, inverse_factor(moment), WeightFormat(3, 16))
    assert torch.isfinite(dequantize(found.quantized)).all()
    assert found.cost >= 0
    if not weight.any():
        assert not dequantize(found.quantized).any()


def test_mistakes_are_refused():
    factor = inverse_factor(torch.eye(32))
    with pytest.raises(ParedownError, match="NaN or infinite"):
        gptq(torch.full((2, 32), torch.inf, dtype=torch.float16), factor, WeightFormat(4, 16))
    with pytest.raises(ParedownError, match="group size 64 does not divide the 32 inputs"):
        gptq(torch.ones(2, 32), factor, WeightFormat(4, 64))
    with pytest.raises(ParedownError, match="left the range of float32"):
        gptq(weights(2, 32) * 3e37, inverse_factor(moment_of(32, tokens=6)), WeightFormat(2, 16))
    with pytest.raises(ParedownError, match=r"expected a bool mask \[2, 32\]"):
        gptq(torch.ones(2, 32), factor, WeightFormat(4, 16), mask=torch.ones(2, 31, dtype=torch.bool))
