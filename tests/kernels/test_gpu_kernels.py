"""The Triton kernels against the dequantized weight in float64; interpreted on a CPU, compiled where TRITON_INTERPRET=0 and a GPU are."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from packed_weights import magnitudes, packed
from paredown.errors import ParedownError
from paredown.kernels import pack, reference
from paredown.kernels.gpu.layout import lay_out
from paredown.kernels.gpu.tiles import Tiles, tiles
from paredown.kernels.gpu.weight import TritonWeight
from paredown.kernels.packing import Packed, unpack
from paredown.methods import Compressed, Quantized, compress
from paredown.methods.activations import quantize_per_token
from paredown.specs import Scheme, WeightFormat
from some_schemes import any_schemes

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in")  # the interpreter's NumPy, where exp overflows and infinities meet
DEVICE = torch.device("cuda" if os.environ["TRITON_INTERPRET"] == "0" else "cpu")
PROCESSORS = 8
# of a table's numbers in each type; on a GPU also of the correction's tf32
STEP = {torch.float32: 2.0**-8, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}
# of results; the interpreter cuts bfloat16 where a GPU rounds
RESULT = {torch.float32: 0.0, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-11}


def triton_weight(held, processors=PROCESSORS):
    return TritonWeight(Packed({name: tensor.to(DEVICE) for name, tensor in held.tensors.items()}, held.scheme, held.shape), processors)


def multiplied(held, x, *arguments, processors=PROCESSORS, **options):
    arguments = [each.to(DEVICE) if isinstance(each, torch.Tensor) else each for each in arguments]
    return triton_weight(held, processors).linear(x.to(DEVICE), *arguments, **options).cpu()


def as_multiplied(held, x, precision):
    """The inputs as the product takes them, float64."""
    if precision == "int8":
        x = x.float()
        return (held.round_inputs(x) if held.round_inputs else quantize_per_token(x, 8)).double()
    return (x.bfloat16() if precision == "bf16" and x.dtype is torch.float32 else x).double()


@settings(max_examples=20, deadline=None)
@given(
    scheme=any_schemes(), out=st.integers(1, 70), inputs=st.integers(1, 200), tokens=st.integers(1, 20), processors=st.sampled_from([1, 100]),
    precision=st.sampled_from(["float32", "bf16", "int8"]), dtype=st.sampled_from(sorted(STEP, key=str)), seed=st.integers(0, 99),
)  # fmt: skip
def test_any_scheme_at_any_shape_is_the_dequantized_product(scheme, out, inputs, tokens, processors, precision, dtype, seed):
    held = packed(scheme, (out, inputs), seed)
    if held.scheme.weight is None and held.scheme.sparsity is not None:
        with pytest.raises(ParedownError, match="its kept weights have no number format"):
            triton_weight(held)
        return
    x = torch.randn(tokens, inputs, generator=torch.Generator().manual_seed(seed)).to(dtype)
    bias = torch.linspace(-1, 1, out)
    bits = 8 if held.scheme.activation is None else held.scheme.activation.bits
    found = multiplied(held, x, bias, precision=precision, input_bits=bits, processors=processors)
    given = as_multiplied(held, x, precision)
    expected = given @ reference.dequantize(held).double().T + bias
    step = 0.0 if precision == "float32" else 2.0**-8 if precision == "int8" else STEP[dtype]
    allowed = (step + 1e-5) * (given.abs() @ magnitudes(held).T) + RESULT[dtype] * expected.abs() + 1e-5
    assert found.dtype is dtype
    assert bool(((found.double() - expected).abs() <= allowed).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    "scheme",
    ["int2g16", "int3g64sym", "int4g32", "int8g128", "int5", "int4n6", "nf3g32", "nf4g64", "mxfp4", "nvfp4", "int3g32+2:4", "nf4g32+60%",
     "int4g32+svd8", "int4g32+svd7:4", "int4g32+2:4+svd5:8", "svd40"],
)  # fmt: skip
def test_sixteen_bit_inputs_lose_at_most_a_thousandth(scheme, dtype):
    held, x = packed(scheme, (64, 256)), torch.randn(16, 256).to(dtype)
    exact = as_multiplied(held, x, "bf16") @ reference.dequantize(held).double().T
    assert (multiplied(held, x).double() - exact).norm() <= 1e-3 * exact.norm()


@pytest.mark.parametrize("scheme", ["int4g64a8", "int8a8", "int4g32a4", "int4g32a8static", "nf4g64a8"])
def test_rounded_inputs_give_what_the_reference_gives(scheme):
    held, x, bias = packed(scheme, (40, 128)), torch.randn(3, 5, 128), torch.randn(40)
    torch.testing.assert_close(
        multiplied(held, x, bias, precision="int8", input_bits=held.scheme.activation.bits), reference.linear(x, held, bias),
        rtol=1e-5, atol=0.05 if scheme.startswith("nf") else 1e-4,
    )  # fmt: skip


@pytest.mark.parametrize("scheme", ["int3g64+svd20", "nf4g32+50%"])
def test_every_cut_of_a_product_gives_the_same(scheme, monkeypatch):
    held, x, bias = packed(scheme, (20, 390)), torch.randn(18, 390), torch.randn(20)
    found = []
    for cut in (Tiles(32, 32, 1, 4, 2), Tiles(16, 16, 1, 4, 2), Tiles(32, 32, 2, 4, 2), Tiles(32, 64, 4, 4, 2)):
        monkeypatch.setattr("paredown.kernels.gpu.launch.tiles", lambda *_, cut=cut: cut)
        found.append(multiplied(held, x, bias, "silu", precision="float32"))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-4)


def test_few_tokens_split_the_inputs_and_many_do_not():
    assert [tiles(tokens, 4096, 32, 132).splits for tokens in (1, 16, 64, 1024)] == [8, 8, 4, 1]
    assert tiles(1, 4096, 2, 132).splits == 1


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "silu", "relu"])
def test_the_activation_is_torchs(activation):
    functions = {
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda y: torch.nn.functional.gelu(y, approximate="tanh"),
        "silu": torch.nn.functional.silu,
        "relu": torch.relu,
    }
    held, x, bias = packed("int8g32"), torch.randn(5, 64), torch.randn(48)
    plain = multiplied(held, x, bias, precision="float32")
    torch.testing.assert_close(
        multiplied(held, x, bias, activation, precision="float32"), functions[activation](plain), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("scheme", "precision"), [("int4g32", "bf16"), ("int4g32", "int8"), ("int4g32", "float32"), ("nf4g32+2:4", "bf16"), ("svd6", "bf16")]
)
def test_inputs_that_are_not_finite_give_results_that_are_not_and_harm_no_other_token(scheme, precision, bad):
    held, x = packed(scheme), torch.randn(4, 64)
    clean = multiplied(held, x, precision=precision)
    x[2, 37] = bad
    found = multiplied(held, x, None, "gelu", precision=precision)
    kept = torch.tensor([0, 1, 3])
    assert not found[2].isfinite().any()
    assert found[kept].isfinite().all()
    assert torch.equal(multiplied(held, x, precision=precision)[kept], clean[kept])


def test_strided_and_empty_inputs_and_single_tokens_work():
    held, x = packed("int3g32+2:4"), torch.randn(3, 64)
    expected = multiplied(held, x)
    for same in (torch.empty(3, 129)[:, 1:65].copy_(x), x.T.contiguous().T, x.view(1, 3, 1, 64)):
        assert torch.equal(multiplied(held, same).view(3, 48), expected)
    assert torch.equal(multiplied(held, x[0]), expected[0])
    for shape in ((0, 64), (3, 0, 64)):
        assert multiplied(held, torch.empty(shape)).shape == (*shape[:-1], 48)


@pytest.mark.parametrize(("bits", "largest"), [(2, 2.3), (3, 3.3), (4, 4.3), (8, 8.3)])
def test_the_layout_takes_few_bits_a_weight(bits, largest):
    assert lay_out(unpack(packed(f"int{bits}g128", (64, 512)))).bytes * 8 / (64 * 512) <= largest


def test_a_pruned_weight_takes_its_kept_codes_a_mask_and_offsets():
    layout = lay_out(unpack(packed("int4g128+2:4", (64, 512))))
    assert layout.bytes * 8 / (64 * 512) == 4 / 2 + 1 + 32 / 128 + (16 + 8) / 128


def test_groups_that_sixteen_does_not_divide_are_refused():
    numbers = Quantized(torch.zeros(4, 48, dtype=torch.uint8), torch.ones(4, 2).half(), None, WeightFormat(4, None, symmetric=True))
    with pytest.raises(ParedownError, match="its groups have 24 inputs, and the kernels take multiples of 16"):
        lay_out(Compressed(Scheme(numbers.format), (4, 48), numbers))


def test_other_inputs_are_refused_with_what_was_expected():
    weight = triton_weight(pack(compress(torch.randn(20, 64), Scheme.parse("nf4g32"))))
    for x in (torch.randn(3, 63), torch.randn(3, 64, dtype=torch.float64), torch.tensor(1.0)):
        with pytest.raises(ParedownError, match=r"expected inputs \[\.\.\., 64\] of float32"):
            weight.linear(x)
