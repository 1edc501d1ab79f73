"""One scheme on one weight: the order of its parts, and what is said of the inputs."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods import compress, dequantize, quantize
from paredown.methods.compress import pattern_of
from paredown.methods.masks import follows
from paredown.sizes import fit
from paredown.specs import LayerRef, Scheme
from seen_layers import seen
from some_schemes import any_schemes

OUT, IN = 24, 64


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def of_inputs(x):
    return seen(OUT, x.shape[1], x=x)


@pytest.fixture(scope="module")
def weight():
    return noise(OUT, IN)


@pytest.fixture(scope="module")
def inputs():
    return of_inputs(noise(400, IN, seed=1) @ noise(IN, IN, seed=2))


def output_error(weight, made, inputs):
    change = (dequantize(made) - weight).double()
    return float((change @ inputs.moment.double() * change).sum())


def made(weight, text, inputs=None):
    return compress(weight, Scheme.parse(text), inputs)


@settings(deadline=None, max_examples=60)
@given(any_schemes(), st.integers(1, 12), st.integers(1, 70), st.integers(0, 9))
def test_pruned_weights_are_exact_zeros_whatever_rounds_the_others(scheme, out, width, seed):
    layer = LayerRef("layer", "linear", "fc1", "", (out, width), "float32")
    scheme, weight = fit(scheme, layer)[0], noise(out, width, seed=seed)
    compressed = compress(weight, scheme, seen(out, width, seed=seed + 1))
    assert dequantize(compressed).isfinite().all()
    assert (compressed.mask is None) == (scheme.sparsity is None)
    if compressed.mask is not None:
        assert follows(compressed.mask, pattern_of(scheme.sparsity))
        numbers = compress(weight, replace(scheme, low_rank=None), seen(out, width, seed=seed + 1))
        assert torch.equal(numbers.mask, compressed.mask)
        assert not dequantize(numbers)[~numbers.mask].any()


def test_plain_schemes_are_what_quantize_makes(weight):
    for text, solver in (("int3g32", "rtn"), ("int3g32-mse", "mse")):
        scheme = Scheme.parse(text)
        assert torch.equal(dequantize(compress(weight, scheme)), dequantize(quantize(weight, scheme.weight, solver)))


def test_kept_numbers_without_a_format_are_those_of_the_checkpoint(weight):
    half = compress(weight.bfloat16().float(), Scheme.parse("2:4"), dtype=torch.bfloat16)
    assert half.numbers.dtype is torch.bfloat16
    assert torch.equal(dequantize(half)[half.mask], weight.bfloat16().float()[half.mask])


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("int3g32-gptq", "int3g32"),
        ("2:4-wanda", "2:4"),
        ("2:4-sparsegpt", "2:4-wanda"),
        ("int4g32-gptq+2:4", "int4g32+2:4-sparsegpt"),
        ("int4g32+2:4-sparsegpt", "int4g32+2:4"),
        ("int3g32+eora8", "int3g32+svd8"),
        ("int3g32+svd8", "int3g32"),
        ("int3g32+eora8", "int3g32+eora8:8"),
        ("int3g32-gptq+eora8", "int3g32-gptq"),
        ("int4g32+2:4+eora8:8", "int4g32+2:4"),
        ("eora24", "eora8"),
        ("eora8", "svd8"),
        ("int3g32-signround", "int3g32-mse"),
        ("int3g32-gptq+2:4-wanda", "int3g32+2:4-wanda"),
        ("int3g32-signround+2:4-wanda", "int3g32+2:4-wanda"),
        ("int3g32-gptq+2:4-mfac", "int3g32+2:4-mfac"),
        ("int3g32-gptq+2:4", "int3g32-gptq+2:4-magnitude"),
        ("int3n6-gptq", "int3n6-mse"),
        ("int8a8static", "int4a8static"),
    ],
)
def test_what_looks_at_the_inputs_serves_the_outputs_better(weight, inputs, better, worse):
    assert output_error(weight, made(weight, better, inputs), inputs) < output_error(weight, made(weight, worse, inputs), inputs)


@pytest.mark.parametrize("text", ["int4g32-gptq", "2:4-wanda", "50%-sparsegpt", "nf4g64+eora4"])
def test_schemes_that_need_the_inputs_say_so(weight, text):
    assert Scheme.parse(text).needs_calibration
    with pytest.raises(ParedownError, match=f"{re.escape(text)} is found with what calibration sees of the layer, which is not at hand"):
        made(weight, text)
