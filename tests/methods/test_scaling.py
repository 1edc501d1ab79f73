from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods import dequantize, quantize
from paredown.methods.activations import quantize_per_token
from paredown.methods.scaling import EXPONENTS, awq, smooth_quant
from paredown.specs import WeightFormat


def inputs_of(tokens=300, width=64, seed=0, outliers=4):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(tokens, width, generator=generator)
    values[:, torch.randperm(width, generator=generator)[:outliers]] *= 30
    return values


def weights(out=32, inputs=64, seed=1):
    return torch.randn(out, inputs, generator=torch.Generator().manual_seed(seed))


def int3(weight):
    return dequantize(quantize(weight, WeightFormat(3, 32)))


def moment_of(values):
    return values.T @ values / len(values)


@given(st.integers(0, 2**16), st.floats(0, 1))
def test_a_folded_scale_leaves_the_function_as_it_is(seed, exponent):
    values, weight = inputs_of(5, 16, seed), weights(8, 16, seed)
    scale = smooth_quant([weight], values.abs().amax(0), exponent=exponent).scale
    folded = (weight * scale).double() @ (values / scale).double().T
    assert torch.allclose(folded, weight.double() @ values.double().T, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_awq_errs_less_than_no_scaling_where_few_inputs_carry_the_activation(seed):
    values, weight = inputs_of(seed=seed), weights(seed=seed)
    found = awq([weight], moment_of(values), int3)
    assert found.exponent > 0
    assert found.note == ""
    assert len(found.errors) == len(EXPONENTS)
    plain, scaled = (
        (values @ (approximation - weight).T).square().sum(1).mean()
        for approximation in (int3(weight), int3(weight * found.scale) / found.scale)
    )
    assert scaled < 0.7 * plain
    # the errors that the search saw are those of the outputs
    assert found.errors[0] == pytest.approx(plain.item(), rel=1e-3)
    assert min(found.errors) == pytest.approx(scaled.item(), rel=1e-3)


def test_awq_is_never_worse_than_no_scaling():
    found = awq([weights()], torch.eye(64), int3)
    assert (found.scale, found.exponent) == (pytest.approx(torch.ones(64)), 0.0)


def test_layers_that_share_inputs_share_the_scale_that_suits_them_together():
    values = inputs_of()
    first, second = weights(), weights(seed=2)
    together = awq([first, second], moment_of(values), int3).errors
    alone = [awq([weight], moment_of(values), int3).errors for weight in (first, second)]
    assert together == pytest.approx([one + other for one, other in zip(*alone, strict=True)])


def test_awq_takes_the_mean_magnitude_where_it_is_given():
    values = inputs_of()
    found = awq([weights()], moment_of(values), int3, magnitude=values.abs().mean(0), exponents=[0.5])
    expected = values.abs().mean(0).sqrt()
    assert torch.allclose(found.scale, expected / (expected.max() * expected.min()).sqrt())


def test_smooth_quant_is_its_formula_and_helps_where_activations_have_outliers():
    values, weight = inputs_of(), weights()
    found = smooth_quant([weight, 2 * weight], values.abs().amax(0), exponent=0.3)
    assert torch.allclose(found.scale, values.abs().amax(0) ** 0.3 / (2 * weight.abs().amax(0)) ** 0.7)

    def error(scale):
        rounded = quantize_per_token(values / scale, 8) @ dequantize(quantize(weight * scale, WeightFormat(8, None, symmetric=True))).T
        return (rounded - values @ weight.T).square().mean()

    assert error(smooth_quant([weight], values.abs().amax(0)).scale) < 0.5 * error(torch.ones(64))


def test_exponent_one_levels_the_activations_and_zero_the_weights():
    values, weight = inputs_of(), weights()
    largest = values.abs().amax(0)
    assert torch.allclose((values / smooth_quant([weight], largest, exponent=1).scale).abs().amax(0), torch.ones(64))
    assert torch.allclose((weight * smooth_quant([weight], largest, exponent=0).scale).abs().amax(0), torch.ones(64))


@pytest.mark.parametrize("weight", [torch.zeros(4, 8), torch.full((4, 8), 0.3), weights(4, 8).half()])
@pytest.mark.parametrize("active", [torch.zeros(8), torch.tensor([0.0, 1.0] * 4), torch.full((8,), 1e30)])
def test_degenerate_input_gives_finite_positive_scales(weight, active):
    for found in (
        smooth_quant([weight], active),
        awq([weight], torch.diag(active.clamp(max=1e15).square()), lambda weight: dequantize(quantize(weight, WeightFormat(4, None)))),
    ):
        assert torch.isfinite(found.scale).all()
        assert (found.scale > 0).all()
        assert found.note or (active > 0).all()


def test_mistakes_are_refused():
    with pytest.raises(ParedownError, match="one number of inputs"):
        awq([torch.ones(2, 4), torch.ones(2, 5)], torch.eye(4), int3)
    with pytest.raises(ParedownError, match="one number of inputs"):
        smooth_quant([], torch.ones(4))
    with pytest.raises(ParedownError, match="at least one exponent"):
        awq([torch.ones(2, 4)], torch.eye(4), int3, exponents=[])
    with pytest.raises(ParedownError, match="finite magnitude for each of the 4 inputs"):
        smooth_quant([torch.ones(2, 4)], torch.tensor([1.0, -1.0, 1.0, 1.0]))
    with pytest.raises(ParedownError, match="from 0 to 1"):
        smooth_quant([torch.ones(2, 4)], torch.ones(4), exponent=2)
