from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown import sizes
from paredown.errors import ParedownError
from paredown.export.checkpoint import layer_state
from paredown.methods import compress
from paredown.specs import BITS, GROUP_SIZES, KEEP, LayerRef, Scheme, WeightFormat
from seen_layers import seen
from some_schemes import any_schemes


def layer(out=8, inputs=96, *, kind="linear", dtype="float32", tied_to=()):
    return LayerRef("block.0.fc", kind, "fc1", "block.0", (out, inputs), dtype, tied_to)


schemes = st.builds(Scheme, st.builds(WeightFormat, st.sampled_from(BITS), st.sampled_from([*GROUP_SIZES, None]), st.booleans()))


@given(st.integers(1, 40), st.integers(1, 200), any_schemes(), st.sampled_from(["linear", "conv1d", "embedding"]), st.booleans())
def test_bytes_are_those_of_what_is_packed(out, inputs, scheme, kind, tied):
    ref = layer(out, inputs, kind=kind, tied_to=("head",) if tied else ())
    made = layer_state(ref, compress(torch.randn(out, inputs), sizes.fit(scheme, ref)[0], seen(out, inputs)))
    described = sizes.layer_tensors(ref, scheme)
    assert {stored.name: (stored.dtype, stored.shape) for stored in described} == {
        name: (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in made.items()
    }
    entries = sum(map(sizes.entry_bytes, described))
    assert sizes.layer_bytes(ref, scheme) == sum(tensor.nbytes for tensor in made.values()) + entries


@given(st.integers(1, 400), schemes)
def test_what_fits_divides_and_is_never_coarser(inputs, scheme):
    effective, reason = sizes.fit(scheme, layer(4, inputs))
    group = effective.weight.group_size
    assert group is None or inputs % group == 0
    assert (effective == scheme) == (reason == "")
    assert sizes.fit(effective, layer(4, inputs)) == (effective, "")
    if group is not None:
        assert group <= scheme.weight.group_size
    assert effective.weight.bits == scheme.weight.bits
    assert effective.weight.symmetric == scheme.weight.symmetric
    assert effective.rounding == scheme.rounding


@pytest.mark.parametrize(
    ("inputs", "asked", "given_", "reason"),
    [
        (128, "int4g64", "int4g64", ""),
        (96, "int4g128", "int4g32", "the group size 128 does not divide the 96 inputs; 32 is used"),
        (48, "int3g64sym-mse", "int3g16sym-mse", "the group size 64 does not divide the 48 inputs; 16 is used"),
        (100, "int2g16", "int2", "the group size 16 does not divide the 100 inputs; one scale for each output channel is used"),
        (100, "int2", "int2", ""),
        (100, "keep", "keep", ""),
    ],
)
def test_a_group_size_that_does_not_divide_has_a_rule(inputs, asked, given_, reason):
    assert sizes.fit(Scheme.parse(asked), layer(4, inputs)) == (Scheme.parse(given_), reason)


@pytest.mark.parametrize(
    ("scheme", "bits"), [("int4g64", 4 + 20 / 64), ("int4g64sym", 4 + 16 / 64), ("int3g32", 3 + 19 / 32), ("int8", 8), ("keep", 32)]
)
def test_bits_a_weight_of_a_large_layer(scheme, bits):
    large = layer(4096, 4096)
    assert sizes.layer_bytes(large, Scheme.parse(scheme)) * 8 / large.parameters == pytest.approx(bits, abs=0.01)


def test_a_kept_layer_takes_the_checkpoints_dtype():
    data = {dtype: sizes.layer_tensors(layer(dtype=dtype), KEEP)[0].bytes for dtype in ("float32", "bfloat16", "float16")}
    assert data == {"float32": 4 * 8 * 96, "bfloat16": 2 * 8 * 96, "float16": 2 * 8 * 96}


def test_a_dtype_that_no_file_holds_is_refused():
    with pytest.raises(ParedownError, match=r"block\.0\.fc\.weight has dtype complex64"):
        sizes.layer_bytes(layer(dtype="complex64"), KEEP)


def test_what_plans_decide_is_not_fixed():
    bias, weight = sizes.StoredTensor("block.0.fc.bias", "float32", (8,)), sizes.StoredTensor("block.0.fc.weight", "float32", (8, 96))
    head = sizes.StoredTensor("head.weight", "float32", (8, 96))
    fixed = sizes.fixed_bytes([bias, weight, head], [layer(tied_to=("head",))])
    assert fixed == sizes.frame_bytes() + bias.bytes + sizes.entry_bytes(bias)


def test_wider_codes_and_smaller_groups_take_more():
    ref = layer(64, 256)
    by_bits = [sizes.layer_bytes(ref, Scheme(WeightFormat(bits, 64))) for bits in BITS]
    by_group = [sizes.layer_bytes(ref, Scheme(WeightFormat(4, group))) for group in GROUP_SIZES]
    assert by_bits == sorted(by_bits)
    assert by_group == sorted(by_group, reverse=True)
    assert by_bits[-1] < sizes.layer_bytes(ref, KEEP)


def test_no_torch_is_imported():
    program = "import sys, paredown.sizes; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("scheme", "bits"),
    [
        ("int4g64sym+2:4", 3 + 16 / 64),
        ("nf4g64", 4.127),
        ("nf3g64", 3.127),
        ("2:4", 17),
        ("int4g64sym+50%", 3 + 16 / 64 + 32 / 4096),
        ("int3g64sym+eora64", 3 + 16 / 64 + 16 * 2 * 64 / 4096),
        ("svd64:8", (8 + 24 / 64) * 2 * 64 / 4096),
    ],
)
def test_bits_a_weight_of_pruned_and_corrected_layers(scheme, bits):
    large = layer(4096, 4096)
    assert sizes.layer_bytes(large, Scheme.parse(scheme)) * 8 / large.parameters == pytest.approx(bits, abs=0.002)


@pytest.mark.parametrize(
    ("kind", "asked", "given_", "reason"),
    [
        ("linear", "int3g64+eora200", "int3g32+eora4", r"rank 200 is more than \[4, 96\] has; 4 is used; the group size 64"),
        ("embedding", "int4g32-gptq", "int4g32-mse", "no input second moment; mse instead"),
        ("embedding", "2:4-sparsegpt+eora2", "2:4+svd2", "magnitude and svd instead"),
        ("embedding", "nf4g32+eora2:8", "nf4g32+svd2:8", "svd instead"),
        ("embedding", "int8a8", "int8", "no inputs to round"),
        ("conv1d", "nf4g64-rtn", "nf4g32", "the group size 64"),
    ],
)
def test_what_a_layer_can_not_have_is_replaced_with_a_reason(kind, asked, given_, reason):
    found, why = sizes.fit(Scheme.parse(asked.replace("-rtn", "")), layer(4, 96, kind=kind))
    assert str(found) == given_
    assert re.search(reason, why)
    assert sizes.fit(found, layer(4, 96, kind=kind)) == (found, "")
