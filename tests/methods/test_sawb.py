from __future__ import annotations

import pytest
import torch

from paredown.errors import ParedownError
from paredown.methods import dequantize
from paredown.methods.sawb import COEFFICIENTS, ZERO_PRESERVING, clip, quantize_sawb, round_to_levels, sawb
from paredown.specs import WeightFormat

COUNT = 100_000
QUANTILES = (torch.arange(COUNT, dtype=torch.float64) + 0.5) / COUNT  # data without sampling error
DATA = {
    "normal": torch.special.ndtri(QUANTILES),
    "laplace": -torch.sign(QUANTILES - 0.5) * torch.log1p(-2 * (QUANTILES - 0.5).abs()),
    "uniform": 2 * QUANTILES - 1,
    "logistic": torch.logit(QUANTILES),
}


def squared_error(data, clips, levels):
    return (round_to_levels(data, clips, levels) - data).square().mean().item()


@pytest.mark.parametrize("levels", COEFFICIENTS)
@pytest.mark.parametrize("name", DATA)
def test_the_clip_is_next_to_the_best_one(name, levels):
    data = DATA[name].float().unsqueeze(0)
    shares = torch.linspace(0.05, 1, 96) * data.max()
    best = min(squared_error(data, share.view(1, 1), levels) for share in shares)
    allowed = 1.016 if (name, levels) == ("uniform", 16) else 1.01
    assert squared_error(data, clip(data, levels), levels) <= allowed * best


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 200, generator=generator) * torch.rand(6, 1, generator=generator)


@pytest.mark.parametrize("levels", COEFFICIENTS)
def test_levels_are_even_from_clip_to_clip(levels):
    clips = torch.tensor([[1.5]])
    found = round_to_levels(torch.linspace(-3, 3, 5001).unsqueeze(0), clips, levels).unique()
    assert torch.allclose(found, torch.linspace(-1.5, 1.5, levels), atol=1e-6)
    assert (0 in found) == bool(levels % 2)


def test_a_clip_of_the_whole_tensor_is_one_number_that_scales_with_it():
    weight = weights()
    whole = clip(weight, 15, per_channel=False)
    assert whole.shape == (1, 1)
    assert torch.allclose(clip(weight * 1e30, 15, per_channel=False), whole * 1e30)
    assert torch.allclose(clip(weight, 15)[2], clip(weight[2:3], 15)[0])


@pytest.mark.parametrize("bits", ZERO_PRESERVING)
def test_a_mask_survives_quantizing_and_a_step_of_training(bits):
    weight = weights()
    kept = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    quantized = quantize_sawb(weight * kept, WeightFormat(bits, None, True))
    assert (dequantize(quantized)[~kept] == 0).all()
    assert quantized.codes.min() >= 1  # as many codes below zero as above

    trained = (weight * kept).requires_grad_()
    result = sawb(trained, clip(trained, ZERO_PRESERVING[bits]), ZERO_PRESERVING[bits])
    result.square().sum().backward()
    assert trained.grad is not None
    stepped = (trained - 0.1 * trained.grad).detach()
    assert (stepped[~kept] == 0).all()
    assert (dequantize(quantize_sawb(stepped, WeightFormat(bits, None, True)))[~kept] == 0).all()


@pytest.mark.parametrize("bits", ZERO_PRESERVING)
def test_codes_stand_for_the_rounded_levels(bits):
    weight = weights(2)
    levels = ZERO_PRESERVING[bits]
    rounded = round_to_levels(weight, clip(weight, levels), levels)
    step = clip(weight, levels) / (levels // 2)
    # the file's scale is rounded to float16, which may turn a tie
    difference = (dequantize(quantize_sawb(weight, WeightFormat(bits, None, True))) - rounded).abs() / step
    assert ((difference < 0.01) | ((difference - 1).abs() < 0.01)).all()
    assert (difference < 0.01).float().mean() > 0.99


def test_the_gradient_goes_straight_through_everywhere_or_inside_the_clip_alone():
    weight = weights(3)
    clips = clip(weight, 3)
    upstream = torch.randn(weight.shape, generator=torch.Generator().manual_seed(4))
    inside = weight.abs() <= clips
    assert not inside.all()
    for plus, expected in ((True, upstream), (False, upstream * inside)):
        leaf = weight.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((sawb(leaf, clips, 3, plus=plus) * upstream).sum(), leaf)
        assert torch.equal(gradient, expected)


@pytest.mark.parametrize("bits", ZERO_PRESERVING)
@pytest.mark.parametrize(
    "weight",
    [
        pytest.param(torch.zeros(2, 8), id="zeros"),
        pytest.param(torch.full((2, 8), 0.3), id="constant"),
        pytest.param(torch.full((2, 8), -3e38), id="near the end of float32"),
        pytest.param(torch.tensor([[1e-8, -1e-8]], dtype=torch.bfloat16), id="tiny"),
    ],
)
def test_odd_weights_give_finite_values_of_the_right_sign(weight, bits):
    back = dequantize(quantize_sawb(weight, WeightFormat(bits, None, True)))
    assert torch.isfinite(back).all()
    assert (back * weight.float().sign() >= 0).all()
    assert (back[weight == 0] == 0).all()


def test_mistakes_are_refused():
    with pytest.raises(ParedownError, match="coefficients for 3, 4, 8, 15, 16 levels, got 7"):
        clip(torch.ones(2, 2), 7)
    with pytest.raises(ParedownError, match="2 or 4 bits, got int8sym"):
        quantize_sawb(torch.ones(2, 2), WeightFormat(8, None, True))
    with pytest.raises(ParedownError, match="NaN or infinite"):
        quantize_sawb(torch.full((2, 2), torch.inf), WeightFormat(4, None, True))
