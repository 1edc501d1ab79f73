"""Which backend serves a weight, why, and that all of them compute the same."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.kernels import embedding, linear, pack, prepare, reference
from paredown.kernels.cpu import library
from paredown.kernels.cpu.weight import KernelWeight
from paredown.kernels.dispatch import Backend
from paredown.methods import compress
from paredown.specs import BITS, Scheme, WeightFormat
from seen_layers import seen

LIBRARY, REASON = library.load()
needs_library = pytest.mark.skipif(LIBRARY is None, reason=REASON or "no kernels")


def packed(text, shape=(48, 64)):
    torch.manual_seed(1)
    return pack(compress(torch.randn(shape), Scheme.parse(text), seen(*shape)))


@pytest.fixture
def without_our_kernels(monkeypatch):
    monkeypatch.setattr("paredown.kernels.dispatch.load", lambda: (None, "there is no compiler"))


@needs_library
@pytest.mark.parametrize(
    ("scheme", "precision"),
    [
        ("int4g64", "bf16"),
        ("int4g64a8", "int8"),
        ("int4g64a4", "int8"),
        ("nf4g64", "bf16"),
        ("nf4g64a8", "bf16"),
        ("int4g64a8static", "bf16"),
    ],
)
def test_a_scheme_that_rounds_inputs_gets_integer_inputs_and_any_other_sixteen_bits(scheme, precision):
    chosen = prepare(packed(scheme))
    assert chosen.backend == "ours"
    assert chosen.precision == (precision if LIBRARY.isa().bf16 or precision == "int8" else "float32")
    assert prepare(packed(scheme), "float32").precision == "float32"


def prepared(held, backend):
    """By a backend, with inputs as fine as it takes them; None where it can't serve."""
    precision, dtype = ("bf16", torch.bfloat16) if backend == "int4pack" else ("float32", torch.float32)
    try:
        return prepare(held, precision, backend=backend, dtype=dtype)
    except ParedownError:
        return None


@pytest.mark.parametrize(
    "scheme",
    ["int4g64", "int2g16sym", "nf3g32", "int8g64a8", "int4g32a8static", "int4n6", "mxfp4", "int4g32+2:4", "int4g32+svd4:8", "50%", "svd8"],
)
def test_every_backend_that_serves_a_weight_computes_what_the_reference_does(scheme):
    held, x, bias = packed(scheme), torch.randn(2, 3, 64), torch.randn(48)
    expected = torch.nn.functional.gelu(reference.linear(x, held, bias))
    served = {name: kernel for name in get_args(Backend) if (kernel := prepared(held, name)) is not None}
    assert set(served) >= {"dense", "reference"} | ({"ours"} if LIBRARY and scheme != "50%" else set())
    assert ("int4pack" in served) == (scheme == "int4g64")
    for name, kernel in served.items():
        loose = name == "int4pack" or (name == "ours" and scheme.endswith("a8"))
        torch.testing.assert_close(linear(x, kernel, bias, "gelu"), expected, rtol=2e-2 if loose else 1e-5, atol=0.3 if loose else 1e-5)


@needs_library
@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from(BITS), group=st.sampled_from([16, 32, None]), symmetric=st.booleans(), rows=st.integers(1, 80), dim=st.integers(1, 9),
    ids=st.lists(st.integers(0, 10**6), max_size=9),
)  # fmt: skip
def test_rows_of_an_embedding_are_those_of_the_reference_bit_for_bit(bits, group, symmetric, rows, dim, ids):
    held = pack(compress(torch.randn(rows, dim * (group or 1)), Scheme(WeightFormat(bits, group, symmetric))))
    asked = torch.tensor([each % rows for each in ids], dtype=torch.int64)
    assert torch.equal(embedding(asked, held), reference.embedding(asked, held))


@needs_library
@pytest.mark.parametrize("bad", [-1, 48])
def test_an_id_that_is_no_row_is_refused(bad):
    with pytest.raises(ParedownError, match="expected ids from 0 to 47"):
        embedding(torch.tensor([3, bad]), packed("int4g64"))


def test_a_weight_that_was_not_prepared_is_multiplied_by_the_reference():
    held, x = packed("int3g32"), torch.randn(5, 64)
    assert torch.equal(linear(x, held, activation="relu"), torch.relu(reference.linear(x, held)))


def test_without_our_kernels_torch_serves_and_says_why(without_our_kernels):
    half = prepare(packed("int4g64"), dtype=torch.bfloat16)
    assert (half.backend, half.passed_over) == ("int4pack", (("ours", "there is no compiler"),))
    single = prepare(packed("int3g64"))
    assert single.backend == "dense"
    assert str(single) == (
        "torch, dequantized when loaded: no smaller, no faster; not ours: there is no compiler; not int4pack: it takes plain integers of 4 bits"
    )


@pytest.mark.parametrize(
    ("scheme", "dtype", "why"),
    [
        ("int4g16", torch.bfloat16, r"it takes groups of 32, 64, 128, 256 and outputs that 16 divides, not 16 and 48"),
        ("int4g64", torch.float32, r"it takes bfloat16 inputs"),
        ("int4g64+2:4", torch.bfloat16, r"it takes plain integers of 4 bits"),
    ],
)
def test_a_forced_backend_that_can_not_serve_says_why(scheme, dtype, why):
    with pytest.raises(ParedownError, match=why):
        prepare(packed(scheme), backend="int4pack", dtype=dtype)


def test_kept_values_without_a_number_format_go_to_torch():
    chosen = prepare(packed("2:4"))
    assert chosen.backend == "dense"
    assert LIBRARY is None or chosen.passed_over[0] == ("ours", "its kept weights have no number format, and the kernels multiply codes")


def test_an_unknown_backend_is_refused_with_those_that_there_are():
    with pytest.raises(
        ParedownError, match="one of ours, int4pack, dense, reference, triton, tinygemm, int_mm, semi_structured, got 'cuda'"
    ):
        prepare(packed("int4g64"), backend="cuda")


@needs_library
@pytest.mark.parametrize("scheme", [*(f"int{bits}g32" for bits in (2, 3, 4, 5, 6, 8)), "int4g16sym", "int8", "nf4g64", "nf2g32", "mxfp4"])
@pytest.mark.parametrize("shape", [(1, 64), (37, 96), (16, 192)])
def test_rows_out_of_a_kernels_layout_are_those_of_the_reference(scheme, shape):
    if shape[1] % 64 and scheme == "nf4g64":
        pytest.skip("its groups don't divide the width")
    held = pack(compress(torch.randn(shape, generator=torch.Generator().manual_seed(0)), Scheme.parse(scheme)))
    asked = torch.tensor([[0, shape[0] - 1], [shape[0] // 2, 0]])
    rounding = 0 if scheme.startswith("int") else 1e-6  # numbers of a table are rounded with their scale, here or before
    torch.testing.assert_close(KernelWeight(held).rows(asked), reference.dequantize(held)[asked], rtol=rounding, atol=0)
    assert KernelWeight(held).rows(torch.empty(0, 3, dtype=torch.int64)).shape == (0, 3, shape[1])
    for bad in (-1, shape[0]):
        with pytest.raises(ParedownError, match=f"expected ids from 0 to {shape[0] - 1}, got"):
            KernelWeight(held).rows(torch.tensor([0, bad]))


@needs_library
@pytest.mark.parametrize("scheme", ["int4g32+2:4", "int4g32+svd4"])
def test_rows_of_sparse_weights_and_of_those_with_factors_are_refused(scheme):
    held = pack(compress(torch.randn(32, 64, generator=torch.Generator().manual_seed(0)), Scheme.parse(scheme)))
    with pytest.raises(ParedownError, match="expected a dense weight without low-rank factors"):
        KernelWeight(held).rows(torch.tensor([0]))
