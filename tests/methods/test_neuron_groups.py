from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods.hqq import quantize_hqq
from paredown.methods.neuron_groups import (
    buckets,
    dequantize_neuron_groups,
    published_mebibytes,
    quantize_neuron_groups,
    storage_bits,
)
from paredown.methods.quantize import dequantize, quantize
from paredown.specs import WeightFormat
from reference.quantization import quantize_group


def weights(out=24, inputs=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, inputs, generator=generator) * torch.rand(out, 1, generator=generator).exp()


def test_buckets_are_consecutive_and_stay_within_heads():
    assert buckets(12, heads=3, neurons=3).tolist() == [0, 0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5]
    assert buckets(6, heads=2).tolist() == [0, 0, 0, 1, 1, 1]
    assert buckets(4).tolist() == [0, 0, 0, 0]
    assert buckets(4, neurons=1).tolist() == [0, 1, 2, 3]
    assert buckets(4, heads=2, neurons=9).tolist() == [0, 0, 1, 1]


def test_the_papers_counts_of_groups():
    def count(**how):
        return int(buckets(768, **how)[-1]) + 1

    assert (count(), count(heads=12), count(neurons=1)) == (1, 12, 768)
    assert (count(neurons=6), count(heads=12, neurons=6)) == (128, 132)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("how", [{}, {"heads": 4}, {"heads": 4, "neurons": 4}, {"neurons": 1}])
def test_codes_are_those_of_the_slow_loop(bits, how):
    weight = weights()
    bucket = buckets(24, **how)
    found = quantize_neuron_groups(weight, bits, bucket)
    for index in range(int(bucket[-1]) + 1):
        codes, scale, zero = quantize_group(weight[bucket == index].flatten().tolist(), bits, symmetric=False)
        assert found.codes[bucket == index].flatten().tolist() == codes
        assert (found.scales[index].item(), found.zero_points[index].item()) == (scale, zero)


@given(st.integers(0, 2**16), st.sampled_from([2, 3, 4, 8]), st.sampled_from([(1, None), (1, 6), (4, None), (4, 4), (4, 3)]))
def test_no_step_rises_when_groups_are_refined(seed, bits, coarse):
    weight = weights(seed=seed)
    heads, neurons = coarse
    before = quantize_neuron_groups(weight, bits, buckets(24, heads=heads, neurons=neurons))
    chains = {(1, None): [(4, None), (1, 6), (1, 1)], (1, 6): [(4, None), (1, 3), (1, 2)], (4, None): [(4, 3), (4, 2), (1, 1)]}
    for finer_heads, finer_neurons in chains.get(coarse, [(1, 1)]):
        after = quantize_neuron_groups(weight, bits, buckets(24, heads=finer_heads, neurons=finer_neurons))
        assert (after.scales[after.buckets] <= before.scales[before.buckets]).all()


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_falls_with_every_refinement_of_the_papers_table(bits, seed):
    weight = weights(96, 64, seed)
    errors = []
    for how in ({}, {"heads": 6}, {"heads": 6, "neurons": 4}, {"neurons": 1}):
        back = dequantize_neuron_groups(quantize_neuron_groups(weight, bits, buckets(96, **how)))
        errors.append((back - weight).square().sum().item())
    assert errors == sorted(errors, reverse=True)


# BERT-base: 30522 + 512 + 2 embeddings of width 768 with a LayerNorm; 12 blocks with biases and LayerNorms; no pooler
EMBEDDING = (30522 + 512 + 2 + 2) * 768
ENCODER = 12 * (4 * 768**2 + 2 * 768 * 3072 + (4 + 1 + 4) * 768 + 3072)


@pytest.mark.parametrize(
    ("weight_bits", "embedding_bits", "whole", "encoder"),
    [(32, 32, 415.4, 324.5), (8, 8, 103.8, 81.1), (4, 8, 63.3, 40.6), (3, 8, 53.2, 30.4), (2.5, 8, 48.1, 25.3), (2, 8, 43.0, 20.3)],
)
def test_the_size_column_of_the_paper(weight_bits, embedding_bits, whole, encoder):
    sizes = {weight_bits: ENCODER}
    assert published_mebibytes(sizes) == pytest.approx(encoder, abs=0.1)
    sizes[embedding_bits] = sizes.get(embedding_bits, 0) + EMBEDDING
    assert published_mebibytes(sizes) == pytest.approx(whole, abs=0.1)


def test_the_honest_size_counts_what_is_held():
    bucket = buckets(768, heads=12, neurons=6)
    held = quantize_neuron_groups(weights(768, 16), 4, bucket)
    assert held.scales.shape == held.zero_points.shape == (132,)
    assert storage_bits(768, 16, 4, 132) == held.codes.numel() * 4 + held.scales.numel() * 16 + held.zero_points.numel() * 8
    # beside 768 inputs the ranges are next to nothing: what the paper leaves out is small
    assert storage_bits(768, 768, 4, 132) / (768 * 768) == pytest.approx(4.0054, abs=1e-4)


@pytest.mark.parametrize("weight", [torch.zeros(6, 4), torch.full((6, 4), 0.7), torch.full((6, 4), -3e38), weights(6, 4).half()])
def test_odd_weights_give_finite_values_and_zeros_stay(weight):
    back = dequantize_neuron_groups(quantize_neuron_groups(weight, 3, buckets(6, heads=2, neurons=2)))
    assert torch.isfinite(back).all()
    assert (back[weight == 0] == 0).all()


def test_mistakes_are_refused():
    with pytest.raises(ParedownError, match="5 heads do not divide 12 rows"):
        buckets(12, heads=5)
    with pytest.raises(ParedownError, match="at least 1"):
        buckets(12, neurons=0)
    with pytest.raises(ParedownError, match="a bucket for each of 6 rows"):
        quantize_neuron_groups(torch.ones(6, 4), 4, buckets(5))
    with pytest.raises(ParedownError, match="bits must be 2 to 8"):
        quantize_neuron_groups(torch.ones(6, 4), 1, buckets(6))
    with pytest.raises(ParedownError, match="NaN or infinite"):
        quantize_neuron_groups(torch.full((6, 4), torch.nan), 4, buckets(6))


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 40), st.sampled_from([2, 3, 4, 8]), st.integers(0, 99))
def test_a_format_with_neuron_groups_rounds_as_equal_buckets_do(count, neurons, inputs, bits, seed):
    weight = torch.randn(count * neurons, inputs, generator=torch.Generator().manual_seed(seed))
    found = quantize(weight, WeightFormat(bits, None, neuron_groups=count))
    expected = quantize_neuron_groups(weight, bits, buckets(count * neurons, neurons=neurons))
    assert torch.equal(dequantize(found), dequantize_neuron_groups(expected))


@pytest.mark.parametrize("make", [quantize, quantize_hqq, lambda w, f: quantize(w, f, "mse")])
def test_finer_neuron_groups_of_a_format_err_less(make):
    weight = torch.randn(48, 96, generator=torch.Generator().manual_seed(1)) * torch.arange(1, 49)[:, None]
    errors = [
        float((dequantize(make(weight, WeightFormat(3, None, neuron_groups=count))) - weight).square().sum()) for count in (1, 4, 12, 48)
    ]
    assert errors == sorted(errors, reverse=True)
    alone = dequantize(make(weight, WeightFormat(3, None)))
    assert torch.equal(dequantize(make(weight, WeightFormat(3, None, neuron_groups=48))), alone)
