from __future__ import annotations

import ml_dtypes
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods.microscaling import BLOCK, dequantize_microscaling, quantize_microscaling, storage_bits
from reference.floats import mxfp4_block, nvfp4_tensor

KINDS = list(BLOCK)


def weights(out=5, inputs=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, inputs, generator=generator) * torch.randn(out, 1, generator=generator).exp()


def back(weight, kind):
    return dequantize_microscaling(quantize_microscaling(weight, kind))


def test_mxfp4_is_that_of_the_slow_loop():
    weight = weights()
    slow = [mxfp4_block(block) for block in weight.view(-1, 32).tolist()]
    assert torch.equal(back(weight, "mxfp4").view(-1, 32), torch.tensor(slow))


def test_nvfp4_is_that_of_the_slow_loop():
    weight = weights(seed=1)
    assert torch.equal(back(weight, "nvfp4"), torch.tensor(nvfp4_tensor(weight.tolist())))


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=32, max_size=32))
def test_any_block_is_that_of_the_slow_loop(values):
    smallest = 2.0**-100
    values = [value if abs(value) > smallest else 0.0 for value in values]
    assert back(torch.tensor([values]), "mxfp4")[0].tolist() == mxfp4_block(values)


def test_scales_are_powers_of_two_with_the_bias_of_e8m0():
    held = quantize_microscaling(weights(), "mxfp4")
    scales = held.scales.numpy().view(ml_dtypes.float8_e8m0fnu).astype("float32")
    largest = weights().view(5, 3, 32).abs().amax(-1).numpy()
    assert (largest / scales >= 4).all()
    assert (largest / scales < 8).all()


@pytest.mark.parametrize("kind", KINDS)
@given(out=st.integers(1, 7), inputs=st.integers(1, 100))
def test_storage_counts_what_is_held_with_the_padding(kind, out, inputs):
    held = quantize_microscaling(weights(out, inputs), kind)
    assert held.codes.shape == (out, inputs)
    block = BLOCK[kind]
    codes = held.scales.numel() * block * 4
    assert storage_bits(kind, out, inputs) == codes + held.scales.numel() * 8 + (32 if kind == "nvfp4" else 0)


@pytest.mark.parametrize(("kind", "bits"), [("mxfp4", 4.25), ("nvfp4", 4.5)])
def test_bits_per_weight_are_those_of_the_formats(kind, bits):
    assert storage_bits(kind, 1536, 384) / (1536 * 384) == pytest.approx(bits, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_on_the_grid_comes_back_exactly(kind):
    once = back(weights(), kind)
    if kind == "mxfp4":  # saturation may lower a block's power of two, but what it holds stays on the finer grid
        assert torch.equal(back(once, kind), once)
    assert int(quantize_microscaling(once, kind).codes.max()) < 16


@pytest.mark.parametrize("kind", KINDS)
def test_exact_zeros_stay(kind):
    weight = weights()
    weight[:, ::3] = 0
    assert (back(weight, kind)[:, ::3] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "weight",
    [
        pytest.param(torch.zeros(3, 64), id="zeros"),
        pytest.param(torch.full((3, 40), -0.3), id="constant"),
        pytest.param(torch.cat([torch.full((1, 64), 1e-38), torch.ones(1, 64)]), id="a tiny row"),
        pytest.param(torch.full((2, 64), 1e-44), id="subnormal"),
        pytest.param(torch.full((2, 64), 3e38), id="near the end of float32"),
    ],
)
def test_odd_weights_give_finite_values(weight, kind):
    assert torch.isfinite(back(weight, kind)).all()


def test_a_block_far_below_the_others_is_kept_as_well_as_the_format_can():
    weight = torch.cat([torch.full((1, 16), 448.0), torch.full((1, 16), 4e-4)])
    assert (back(weight, "nvfp4")[1] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_infinities_are_refused(kind):
    with pytest.raises(ParedownError, match="NaN or infinite"):
        quantize_microscaling(torch.full((2, 32), torch.inf, dtype=torch.float16), kind)


def test_another_kind_is_refused():
    with pytest.raises(ParedownError, match="expected mxfp4 or nvfp4"):
        quantize_microscaling(torch.ones(2, 32), "mxfp6")
