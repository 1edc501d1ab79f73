"""Our own kernels against the dequantized weight in float64, on every instruction set that this machine has."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from packed_weights import magnitudes, packed
from paredown.errors import ParedownError
from paredown.kernels import reference
from paredown.kernels.cpu import library
from paredown.kernels.cpu.weight import KernelWeight, refusal
from some_schemes import any_schemes

LIBRARY, REASON = library.load()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason=REASON or "no kernels")
ISAS = [isa.name for isa in LIBRARY.isas if isa.supported] if LIBRARY else []
PRECISIONS = ("float32", "bf16", "int8")
STEP = {"float32": 0.0, "bf16": 2.0**-7}  # bf16: half a unit in the last place of inputs, and as much of a table


def largest_error(weight, packed, x, precision, bits=8):
    """What rounding the inputs may do to each result, and float32's own rounding."""
    dense = magnitudes(packed)
    x = x.double().abs()
    if precision == "int8":
        part = min(weight.group, 64)
        padded = torch.nn.functional.pad(x, (0, weight.groups * weight.group - x.shape[1])).view(
            len(x), weight.groups * weight.group // part, part
        )
        step = padded.amax(-1, keepdim=True) / ((1 << (bits - 1)) - 1)
        rounding = (step / 2).expand_as(padded).reshape(len(x), weight.groups * weight.group)[:, : x.shape[1]]
        return rounding @ dense.T * 1.001 + 1e-5 * (x @ dense.T)
    return (STEP[precision] + 1e-5) * (x @ dense.T)


@settings(max_examples=150, deadline=None)
@given(
    scheme=any_schemes(), out=st.integers(1, 70), inputs=st.integers(1, 200), tokens=st.integers(0, 14), isa=st.sampled_from(ISAS or ["none"]),
    precision=st.sampled_from(PRECISIONS), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_scheme_at_any_shape_is_the_dequantized_product(scheme, out, inputs, tokens, isa, precision, dtype, seed):
    held = packed(scheme, (out, inputs), seed)
    if refusal(held):
        with pytest.raises(ParedownError, match="use the reference"):
            KernelWeight(held, isa)
        return
    weight = KernelWeight(held, isa)
    if precision == "int8" and "table" in weight.tensors:
        precision = "bf16"
    x = torch.randn(tokens, inputs, generator=torch.Generator().manual_seed(seed)).to(dtype)
    bias = torch.linspace(-1, 1, out)
    found = weight.linear(x, bias, precision=precision)
    expected = x.double() @ reference.dequantize(held).double().T
    assert found.dtype is dtype
    slack = {torch.float32: 0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[dtype] * (expected + bias).abs() + 1e-5
    assert bool(((found.double() - bias - expected).abs() <= largest_error(weight, held, x, precision) + slack).all())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("tokens", [*range(1, 14), 40, 300])
def test_every_number_of_tokens_gives_what_one_at_a_time_does(isa, precision, tokens):
    weight = KernelWeight(packed("int4g32", (48, 96)), isa)
    x = torch.randn(tokens, 96)
    together = weight.linear(x, precision=precision)
    alone = torch.cat([weight.linear(row[None], precision=precision) for row in x])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("scheme", ["int2g128", "int4g32", "int6g64", "int8g128", "int4g128+2:4", "int8g64+80%"])
def test_a_weight_wider_than_a_panel_is_the_dequantized_product(isa, precision, scheme):
    held = packed(scheme, (40, 1216))  # three panels at 8 bits, an odd number of blocks
    weight, x = KernelWeight(held, isa), torch.randn(29, 1216)  # tiles of several widths
    expected = x.double() @ reference.dequantize(held).double().T
    found = weight.linear(x, precision=precision)
    assert bool(((found - expected).abs() <= largest_error(weight, held, x, precision) + 1e-5).all())
    torch.testing.assert_close(weight.linear(x[20:], precision=precision), found[20:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu", "relu"])
def test_the_activation_is_torchs(isa, activation):
    weight = KernelWeight(packed("int8g32", (33, 64)), isa)
    x, bias = torch.randn(7, 64) * 3, torch.randn(33)
    expected = weight.linear(x, bias)
    functions = {
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda y: torch.nn.functional.gelu(y, approximate="tanh"),
        "silu": torch.nn.functional.silu,
        "relu": torch.relu,
    }
    torch.testing.assert_close(weight.linear(x, bias, activation), functions[activation](expected), rtol=2e-6, atol=3e-6)


@pytest.mark.parametrize("isa", ISAS)
def test_gelu_is_float64s_to_8e_7_and_above_minus_1_to_a_few_millionths(isa):
    """|error| <= 8e-7 in [-10, 10] and <= 2.5e-6 |gelu| above -1; what is larger gives itself or 0, what is not finite nothing finite."""
    small = torch.logspace(-30, 0, 2001)
    tiny = torch.tensor([0.0, -0.0, 1e-40, -1e-40])
    near = torch.cat([torch.linspace(-10, 10, 20001), small, -small, tiny])
    far = torch.logspace(2, 38, 37)
    values = torch.cat([near, far, -far, torch.tensor([float("nan"), float("inf"), -float("inf")])])
    weight = KernelWeight(packed("int8g32", (len(values), 32)), isa)
    found = weight.linear(torch.zeros(1, 32), values, "gelu")[0]  # of the bias alone
    expected = torch.nn.functional.gelu(near.double())
    error = (found[: len(near)].double() - expected).abs()
    assert bool((error <= 8e-7).all())
    assert bool((error <= 2.5e-6 * expected.abs() + 1e-44)[near > -1].all())
    assert torch.equal(found[len(near) : -3], torch.cat([far, torch.zeros(37)]))
    assert not found[-3:].isfinite().any()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_inputs_that_are_not_finite_give_results_that_are_not_and_harm_no_other_token(isa, precision, bad, dtype):
    weight = KernelWeight(packed("int4g32", (20, 64)), isa)
    x = torch.randn(6, 64, dtype=dtype)
    clean = weight.linear(x, precision=precision)
    x[2, 37] = bad
    found = weight.linear(x, activation="gelu", precision=precision)
    assert not found[2].isfinite().any()
    kept = torch.tensor([0, 1, 3, 4, 5])
    assert found[kept].isfinite().all()
    torch.testing.assert_close(weight.linear(x, precision=precision)[kept], clean[kept])


@pytest.mark.parametrize("isa", ISAS)
def test_unaligned_strided_and_empty_inputs_work(isa):
    weight = KernelWeight(packed("int3g32+2:4", (20, 64)), isa)
    x = torch.randn(5, 64)
    expected = weight.linear(x, precision="int8")
    shifted = torch.empty(5 * 64 + 3)[3:].view(5, 64).copy_(x)
    strided = torch.empty(5, 2 * 64 + 1)[:, 1:65].copy_(x)
    turned = x.T.contiguous().T
    for same in (shifted, strided, turned, x.view(1, 5, 1, 64)):
        assert torch.equal(weight.linear(same, precision="int8").view(5, 20), expected)
    for shape in ((0, 64), (3, 0, 64)):
        assert weight.linear(torch.empty(shape)).shape == (*shape[:-1], 20)
    torch.testing.assert_close(weight.linear(x[0], precision="int8"), expected[0], rtol=1e-5, atol=1e-5)


def test_tokens_of_zeros_and_of_the_smallest_numbers_give_the_bias():
    weight = KernelWeight(packed("int4g32", (20, 64)))
    bias = torch.randn(20)
    x = torch.stack([torch.zeros(64), torch.full((64,), 1e-40)])
    for precision in PRECISIONS:
        torch.testing.assert_close(weight.linear(x, bias, precision=precision), bias.expand(2, 20))


def test_inputs_of_four_bits_are_rounded_to_seven_steps_either_side():
    held = packed("int4g32", (20, 64))
    weight, x = KernelWeight(held), torch.randn(9, 64)
    found = weight.linear(x, precision="int8", input_bits=4)
    expected = x.double() @ reference.dequantize(held).double().T
    assert bool(((found - expected).abs() <= largest_error(weight, held, x, "int8", 4)).all())
    assert (found - expected).norm() > 0.02 * expected.norm()


@pytest.mark.parametrize("isa", ISAS)
def test_more_threads_compute_the_same(isa):
    weight = KernelWeight(packed("int4g64+eora5", (200, 128)), isa)
    x = torch.randn(70, 128)
    alone = weight.linear(x, precision="int8")
    try:
        torch.set_num_threads(3)
        for _ in range(20):
            assert torch.equal(weight.linear(x, precision="int8"), alone)
    finally:
        torch.set_num_threads(1)


def test_a_copy_keeps_its_instruction_set():
    weight = KernelWeight(packed("int4g32", (20, 64)), "scalar")
    assert copy.copy(weight).isa.name == copy.deepcopy(weight).isa.name == "scalar"


@pytest.mark.parametrize("scheme", ["nf2g32", "nf3g32", "nf4g32", "mxfp4", "nvfp4"])
def test_a_table_loses_little_in_bfloat16(scheme):
    held = packed(scheme, (64, 128))
    x = torch.randn(32, 128).bfloat16()
    exact = x.double() @ reference.dequantize(held).double().T
    found = KernelWeight(held).linear(x.float(), precision="bf16").double()
    assert (found - exact).norm() <= 1e-3 * exact.norm()


def test_a_weight_can_be_copied_and_written():
    weight, x = KernelWeight(packed("nf4g64+50%", (20, 64))), torch.randn(3, 64)
    file = io.BytesIO()
    torch.save(weight, file)
    file.seek(0)
    for other in (copy.deepcopy(weight), torch.load(file, weights_only=False)):
        assert torch.equal(other.linear(x), weight.linear(x))


@pytest.mark.parametrize(("bits", "largest"), [(2, 2.3), (3, 3.3), (4, 4.3), (8, 8.3)])
def test_the_layout_takes_few_bits_a_weight(bits, largest):
    weight = KernelWeight(packed(f"int{bits}g128", (256, 512)))
    assert weight.bytes * 8 / (256 * 512) <= largest


def test_other_inputs_are_refused_with_what_was_expected():
    weight = KernelWeight(packed("nf4g32", (20, 64)))
    for x in (torch.randn(3, 63), torch.randn(3, 64, dtype=torch.float64), torch.tensor(1.0)):
        with pytest.raises(ParedownError, match=r"expected inputs \[\.\.\., 64\] of float32"):
            weight.linear(x)
    with pytest.raises(ParedownError, match="take bf16 or float32"):
        weight.linear(torch.randn(3, 64), precision="int8")
