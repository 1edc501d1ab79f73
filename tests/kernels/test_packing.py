from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.kernels import pack, pack_codes, reference, unpack, unpack_codes
from paredown.methods import compress, dequantize
from paredown.sizes import fit
from paredown.specs import BITS, LayerRef, Scheme, WeightFormat
from reference.quantization import pack_row
from seen_layers import seen
from some_schemes import any_schemes


@st.composite
def codes_of_some_width(draw):
    bits = draw(st.integers(1, 8))
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 100))
    seed = draw(st.integers(0, 2**32))
    codes = torch.randint(0, 1 << bits, (rows, columns), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return bits, codes


@given(codes_of_some_width())
def test_packing_is_undone_by_unpacking(case):
    bits, codes = case
    assert torch.equal(unpack_codes(pack_codes(codes, bits), bits, codes.shape[1]), codes)


@given(codes_of_some_width())
def test_words_are_those_of_the_slow_loop(case):
    bits, codes = case
    assert pack_codes(codes, bits).tolist() == [pack_row(row, bits) for row in codes.tolist()]


@given(codes_of_some_width())
def test_words_are_those_of_compressed_tensors(case):
    bits, codes = case
    signed = (codes.to(torch.int16) - (1 << (bits - 1))).to(torch.int8)
    words = pack_codes(codes, bits)
    assert torch.equal(words, pack_to_int32(signed, bits))
    assert torch.equal(unpack_from_int32(words, bits, codes.shape), signed)


@pytest.mark.parametrize("bits", BITS)
def test_no_bit_is_wasted(bits):
    assert pack_codes(torch.zeros(3, 64, dtype=torch.uint8), bits).nbytes * 8 == 3 * 64 * bits


def test_codes_that_need_more_bits_are_refused():
    with pytest.raises(ParedownError, match="the code 8 does not fit into 3 bits; expected at most 7"):
        pack_codes(torch.tensor([[1, 8]], dtype=torch.uint8), 3)


def test_other_dtypes_are_refused():
    with pytest.raises(ParedownError, match="expected codes of dtype uint8"):
        pack_codes(torch.zeros(2, 2, dtype=torch.int8), 4)


def test_words_that_are_too_few_are_refused():
    with pytest.raises(ParedownError, match=r"shape \[rows, 3\] for 30 codes of 3 bits"):
        unpack_codes(torch.zeros(2, 2, dtype=torch.int32), 3, 30)


@pytest.fixture(
    params=[(bits, symmetric) for bits in BITS for symmetric in (True, False)], ids=lambda case: f"int{case[0]}{'sym' * case[1]}"
)
def case(request):
    bits, symmetric = request.param
    weight = torch.randn(37, 96, generator=torch.Generator().manual_seed(bits))
    made = compress(weight, Scheme(WeightFormat(bits, 32, symmetric)))
    return made.numbers, pack(made)


def test_a_whole_weight_comes_back(case):
    quantized, packed = case
    found = unpack(packed).numbers
    assert torch.equal(found.codes, quantized.codes)
    assert torch.equal(found.scales, quantized.scales)
    assert found.zero_points is quantized.zero_points is None or torch.equal(found.zero_points, quantized.zero_points)
    assert torch.equal(reference.dequantize(packed), dequantize(quantized))


def test_linear_multiplies_by_the_dequantized_weight(case):
    quantized, packed = case
    x, bias = torch.randn(2, 3, 96), torch.randn(37)
    assert torch.equal(reference.linear(x, packed, bias), torch.nn.functional.linear(x, dequantize(quantized), bias))
    assert reference.linear(x.half(), packed).dtype is torch.float16


def test_embedding_looks_up_the_dequantized_rows(case):
    quantized, packed = case
    ids = torch.tensor([[0, 5, 36], [36, 36, 1]])
    assert torch.equal(reference.embedding(ids, packed), dequantize(quantized)[ids])


def made_of(scheme, out, inputs, seed):
    generator = torch.Generator().manual_seed(seed)
    layer = LayerRef("layer", "linear", "fc1", "", (out, inputs), "float32")
    return compress(torch.randn(out, inputs, generator=generator), fit(scheme, layer)[0], seen(out, inputs, seed=seed))


@settings(deadline=None)
@given(any_schemes(), st.integers(1, 20), st.integers(1, 150), st.integers(0, 9))
def test_every_scheme_comes_back_and_computes(scheme, out, inputs, seed):
    made = made_of(scheme, out, inputs, seed)
    packed, weight = pack(made), dequantize(made)
    found = unpack(packed)
    assert torch.equal(dequantize(found), weight)
    assert found.mask is made.mask is None or torch.equal(found.mask, made.mask)
    assert torch.equal(reference.dequantize(packed), weight)
    x, ids = torch.randn(3, inputs), torch.tensor([0, out - 1])
    assert (packed.round_inputs is None) == (scheme.activation is None)
    rounded = x if made.round_inputs is None else made.round_inputs(x)
    torch.testing.assert_close(reference.linear(x, packed), rounded @ weight.T, rtol=1e-4, atol=1e-4)
    assert torch.equal(reference.embedding(ids, packed), weight[ids])


def test_offsets_say_where_each_row_of_an_unstructured_weight_begins():
    made = made_of(Scheme.parse("int4g16+70%"), 6, 48, 0)
    tensors = pack(made).tensors
    codes = unpack_codes(tensors["weight_packed"], 4, int(made.mask.sum()))[0]
    for row, start in enumerate(tensors["weight_offsets"].tolist()):
        own = made.numbers.codes[row][made.mask[row]]
        assert torch.equal(codes[start : start + len(own)], own)


def test_four_bits_at_two_of_four_are_three_bits_a_weight():
    tensors = pack(made_of(Scheme.parse("int4g64sym+2:4"), 32, 128, 0)).tensors
    numbers = tensors["weight_packed"].nbytes + tensors["weight_mask"].nbytes
    assert 8 * numbers == 3 * 32 * 128
