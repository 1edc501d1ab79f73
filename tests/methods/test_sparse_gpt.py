from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods import dequantize, quantize
from paredown.methods.error_feedback import inverse_factor
from paredown.methods.masks import NOfM, Rows, Unstructured, follows, select
from paredown.methods.refit import refit
from paredown.methods.sparse_gpt import sparse_gpt, sparse_gptq
from paredown.specs import WeightFormat
from reference.explicit_obs import cost, obs
from second_moments import moment_of, weights

PATTERNS = [
    pytest.param(NOfM(2, 4), id="2:4"),
    pytest.param(NOfM(4, 8), id="4:8"),
    pytest.param(NOfM(1, 3), id="1:3"),
    pytest.param(Unstructured(0.5), id="half"),
    pytest.param(Unstructured(0.7, per_row=True), id="70% of each row"),
]


def factor_of(moment, pattern, order="activation"):
    return inverse_factor(moment, order=order, unit=pattern.m if isinstance(pattern, NOfM) else 1)


def output_error(approximation, weight, moment):
    return cost((approximation.double() - weight).numpy(), moment.numpy())


@pytest.mark.parametrize("order", ["natural", "activation"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_weight_is_that_of_explicit_obs_with_the_mask(order, pattern):
    moment, weight = moment_of(11), weights(4, 11)
    factor = factor_of(moment, pattern, order)
    found = sparse_gpt(weight, factor, pattern, block=4, passes=0)
    hessian = moment + factor.damping * torch.eye(11, dtype=moment.dtype)
    slow = obs(weight.numpy(), hessian.numpy(), factor.order.tolist(), lambda row, place, value: value if found.mask[row, place] else 0.0)
    assert torch.allclose(found.weight.double(), torch.from_numpy(slow), atol=1e-4)
    assert found.loss_increase == pytest.approx(cost(slow - weight.numpy(), hessian.numpy()) / 2, rel=1e-3)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 6),
    st.integers(1, 70),
    st.sampled_from(
        [NOfM(2, 4), NOfM(1, 3), NOfM(5, 16), Unstructured(0.37), Unstructured(0.9), Unstructured(0.5, per_row=True), Unstructured(0.0)]
    ),
    st.sampled_from(["natural", "activation"]),
    st.booleans(),
)
def test_counts_are_exact_and_pruned_weights_exact_zeros(out, inputs, pattern, order, quantized):
    factor = factor_of(moment_of(inputs), pattern, order)
    if quantized:
        found = sparse_gptq(weights(out, inputs), factor, pattern, WeightFormat(3, None), block=16)
        mask, weight = found.mask, dequantize(found.quantized)
    else:
        found = sparse_gpt(weights(out, inputs), factor, pattern, block=16)
        mask, weight = found.mask, found.weight
    assert follows(mask, pattern)
    assert (weight[~mask] == 0).all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_outputs_err_far_less_than_after_magnitude_pruning(pattern):
    moment, weight = moment_of(128), weights(16, 128)
    by_size = torch.where(select(weight.abs(), pattern), weight, 0.0)
    found = sparse_gpt(weight, factor_of(moment, pattern), pattern)
    assert output_error(found.weight, weight, moment) < 0.6 * output_error(by_size, weight, moment)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_refitting_errs_less_and_the_loss_increase_is_the_quadratic_form(pattern):
    moment, weight = moment_of(128), weights(16, 128)
    factor = factor_of(moment, pattern)
    swept, found = (sparse_gpt(weight, factor, pattern, passes=passes) for passes in (0, 2))
    assert torch.equal(swept.mask, found.mask)
    assert swept.loss_increase is not None
    assert found.loss_increase is not None
    assert found.loss_increase < 0.9 * swept.loss_increase
    hessian = moment + factor.damping * torch.eye(128, dtype=moment.dtype)
    assert found.loss_increase == pytest.approx(output_error(found.weight, weight, hessian) / 2, rel=1e-3)


@pytest.mark.parametrize(
    "pattern", PATTERNS[:2] + PATTERNS[3:4]
)  # half of the weights kept: with fewer there is little left to make up with
def test_compensated_rounding_does_better_than_rounding_after_pruning(pattern):
    moment, weight = moment_of(128), weights(16, 128)
    format, factor = WeightFormat(3, 32), factor_of(moment, pattern)
    pruned = sparse_gpt(weight, factor, pattern)
    together = sparse_gptq(weight, factor, pattern, format)
    assert together.mask is not None
    assert torch.equal(together.mask, pruned.mask)
    hessian = moment + factor.damping * torch.eye(128, dtype=moment.dtype)
    assert together.cost == pytest.approx(output_error(dequantize(together.quantized), weight, hessian), rel=1e-3)
    solved = refit(weight, pruned.weight, pruned.mask, factor)
    pruning = output_error(solved, weight, hessian)
    plain = output_error(dequantize(quantize(solved, format, "mse")), weight, hessian)
    assert together.cost - pruning < 0.95 * (plain - pruning)


@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_of_dead_inputs_go_whole(block):
    moment = moment_of(21)
    moment[:12] = moment[:, :12] = 0
    pattern = Unstructured(0.6, per_row=True)
    found = sparse_gpt(weights(4, 21), inverse_factor(moment, order="natural", damping=1e-6), pattern, block=block)
    assert not found.mask[:, :12].any()
    assert follows(found.mask, pattern)


def test_without_correlation_the_mask_is_that_of_wanda_without_compensation():
    diagonal = torch.rand(48, generator=torch.Generator().manual_seed(2)) + 0.1
    weight, pattern = weights(5, 48), NOfM(2, 4)
    found = sparse_gpt(weight, inverse_factor(torch.diag(diagonal), damping=1e-9, unit=4), pattern)
    assert torch.equal(found.mask, select(weight.square() * diagonal, pattern))
    assert torch.equal(found.weight, torch.where(found.mask, weight, 0.0))


@pytest.mark.parametrize("moment", [torch.zeros(24, 24), torch.ones(24, 24), torch.diag(torch.tensor([0.0, 1.0] * 12))])
@pytest.mark.parametrize("weight", [torch.zeros(3, 24), torch.full((3, 24), -0.2), weights(3, 24).half()])
def test_degenerate_input_gives_finite_weights(weight, moment):
    pattern = NOfM(2, 4)
    found = sparse_gpt(weight, factor_of(moment, pattern), pattern)
    assert torch.isfinite(found.weight).all()
    assert follows(found.mask, pattern)


def test_dead_inputs_are_pruned_first():
    moment = moment_of(16)
    moment[5] = moment[:, 5] = 0
    assert not sparse_gpt(weights(4, 16), inverse_factor(moment), Unstructured(0.3)).mask[:, 5].any()


def test_mistakes_are_refused():
    factor = inverse_factor(moment_of(16))
    with pytest.raises(ParedownError, match=r"tears the 4 inputs of 2:4 apart; give inverse_factor unit=4"):
        sparse_gpt(torch.ones(2, 16), factor, NOfM(2, 4))
    with pytest.raises(ParedownError, match="whole rows leave nothing"):
        sparse_gpt(torch.ones(2, 16), factor, Rows(0.5))
