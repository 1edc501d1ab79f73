from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods.codebooks import normal_float
from paredown.methods.normal_float import NormalFloatFormat, dequantize_normal_float, quantize_normal_float
from reference.floats import normal_float_tensor


def weights(out=12, inputs=128, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, inputs, generator=generator) * torch.rand(out, 1, generator=generator)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize(("scale_bits", "scale_group"), [(8, 256), (4, 16), (2, 5)])
def test_values_are_those_of_the_slow_loop(bits, scale_bits, scale_group):
    weight = weights()
    found = dequantize_normal_float(quantize_normal_float(weight, NormalFloatFormat(bits, 32, scale_bits, scale_group)))
    slow = torch.from_numpy(normal_float_tensor(weight.numpy(), normal_float(bits).tolist(), 32, scale_bits, scale_group))
    assert (found - slow).abs().max() < 1e-6


def test_storage_is_the_published_formula():
    assert NormalFloatFormat(4).bits_per_weight == 4 + 8 / 64 + 32 / (64 * 256)
    assert round(NormalFloatFormat(4).bits_per_weight, 3) == 4.127
    assert round(NormalFloatFormat(3).bits_per_weight, 3) == 3.127
    assert NormalFloatFormat(2, 16, 3, 64, "bfloat16").bits_per_weight == 2 + 3 / 16 + 16 / (16 * 64)


@given(
    st.integers(1, 9), st.integers(1, 6), st.sampled_from([16, 32, 64]), st.sampled_from([2, 3, 4]), st.integers(2, 8), st.integers(1, 40)
)
def test_storage_counts_what_is_held(out, groups, group, bits, scale_bits, scale_group):
    format = NormalFloatFormat(bits, group, scale_bits, scale_group, "float16")
    weight = weights(out, groups * group)
    held = quantize_normal_float(weight, format)
    exact = format.storage_bits(*weight.shape)
    assert exact == held.codes.numel() * bits + held.scale_codes.numel() * scale_bits + held.scale_scales.numel() * 16 + 32
    assert int(held.scale_codes.max()) < 2**scale_bits
    short = -held.scale_codes.numel() % scale_group  # the formula is exact where no block is short
    assert math.isclose(exact - 32 - 16 * short / scale_group, weight.numel() * format.bits_per_weight)


@pytest.mark.parametrize("type", ["float32", "float16", "bfloat16"])
def test_eight_bit_scales_lose_next_to_nothing(type):
    weight = weights(64, 256)
    groups = weight.view(64, 4, 64)
    scale = groups.abs().amax(-1)
    held = quantize_normal_float(weight, NormalFloatFormat(4, 64, 8, 32, type))
    assert ((held.scales - scale).abs() <= scale.max() * (1 / 2 / 255 + 2**-8)).all()


def test_exact_zeros_stay():
    weight = weights()
    weight[torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5] = 0
    assert (dequantize_normal_float(quantize_normal_float(weight, NormalFloatFormat(3)))[weight == 0] == 0).all()


@pytest.mark.parametrize(
    "weight",
    [
        pytest.param(torch.zeros(3, 64), id="zeros"),
        pytest.param(torch.full((3, 64), -0.3), id="constant"),
        pytest.param(torch.cat([torch.zeros(1, 64), torch.ones(1, 64), torch.full((1, 64), 1e-9)]), id="a row of zeros and a tiny one"),
        pytest.param(torch.full((2, 64), 3e38), id="near the end of float32"),
        pytest.param(torch.tensor([[1.0, 6e4] * 32], dtype=torch.float16), id="half"),
    ],
)
@pytest.mark.parametrize("type", ["float32", "float16"])
def test_odd_weights_give_finite_values(weight, type):
    back = dequantize_normal_float(quantize_normal_float(weight, NormalFloatFormat(4, 64, 8, 256, type)))
    assert torch.isfinite(back).all()
    assert (back[weight == 0] == 0).all()


def test_mistakes_are_refused():
    with pytest.raises(ParedownError, match="NaN or infinite"):
        quantize_normal_float(torch.full((2, 64), torch.inf, dtype=torch.bfloat16), NormalFloatFormat())
    with pytest.raises(ParedownError, match="group size 64 does not divide the 96 inputs"):
        quantize_normal_float(torch.ones(2, 96), NormalFloatFormat())
    with pytest.raises(ParedownError, match="scale_bits must be 2 to 8"):
        NormalFloatFormat(scale_bits=9)
    with pytest.raises(ParedownError, match="scale_type"):
        NormalFloatFormat(scale_type="float8")
