"""Q-BERT's groups of output neurons (Shen et al. 2020): one range for a run of rows and all inputs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.methods.hqq import quantize_hqq
from paredown.methods.quantize import dequantize, quantize
from paredown.sizes import layer_bytes
from paredown.specs import LayerRef, Scheme, WeightFormat
from reference.quantization import quantize_group


def weights(out=24, inputs=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, inputs, generator=generator) * torch.rand(out, 1, generator=generator).exp()


def in_groups(bits: int, count: int) -> WeightFormat:
    return WeightFormat(bits, None, neuron_groups=count)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("count", [1, 4, 8, 24])
def test_codes_are_those_of_the_slow_loop(bits, count):
    weight = weights()
    found = quantize(weight, in_groups(bits, count))
    assert found.zero_points is not None
    for index in range(count):
        rows = slice(index * 24 // count, (index + 1) * 24 // count)
        codes, scale, zero = quantize_group(weight[rows].flatten().tolist(), bits, symmetric=False)
        assert found.codes[rows].flatten().tolist() == codes
        assert (found.scales[index].item(), found.zero_points[index].item()) == (scale, zero)


@given(st.integers(0, 2**16), st.sampled_from([2, 3, 4, 8]), st.sampled_from([(1, 2), (1, 12), (2, 4), (4, 12), (3, 6), (6, 24)]))
def test_no_step_rises_when_groups_are_refined(seed, bits, counts):
    weight = weights(seed=seed)
    coarse, fine = (quantize(weight, in_groups(bits, count)).scales.repeat_interleave(24 // count) for count in counts)
    assert (fine <= coarse).all()


@pytest.mark.parametrize("make", [quantize, quantize_hqq, lambda w, f: quantize(w, f, "mse")])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_falls_with_every_refinement_of_the_papers_table(make, seed):
    weight = weights(96, 64, seed)
    errors = [(dequantize(make(weight, in_groups(3, count))) - weight).square().sum().item() for count in (1, 6, 24, 96)]
    assert errors == sorted(errors, reverse=True)
    assert torch.equal(dequantize(make(weight, in_groups(3, 96))), dequantize(make(weight, WeightFormat(3, None))))


# BERT-base: 30522 + 512 + 2 embeddings of width 768 with a LayerNorm; 12 blocks with biases and LayerNorms; no pooler
EMBEDDING = (30522 + 512 + 2 + 2) * 768
MATRICES = 12 * (4 * 768**2 + 2 * 768 * 3072)
ENCODER = MATRICES + 12 * ((4 + 1 + 4) * 768 + 3072)


def published_mebibytes(parameters: dict[float, int]) -> float:
    """The paper's convention: numbers of parameters by bits, nothing else, in 2^20 bytes."""
    return sum(bits * count for bits, count in parameters.items()) / 8 / 2**20


@pytest.mark.parametrize(
    ("weight_bits", "embedding_bits", "whole", "encoder"),
    [(32, 32, 415.4, 324.5), (8, 8, 103.8, 81.1), (4, 8, 63.3, 40.6), (3, 8, 53.2, 30.4), (2.5, 8, 48.1, 25.3), (2, 8, 43.0, 20.3)],
)
def test_the_size_column_of_the_paper(weight_bits, embedding_bits, whole, encoder):
    sizes: dict[float, int] = {weight_bits: ENCODER}
    assert published_mebibytes(sizes) == pytest.approx(encoder, abs=0.1)
    sizes[embedding_bits] = sizes.get(embedding_bits, 0) + EMBEDDING
    assert published_mebibytes(sizes) == pytest.approx(whole, abs=0.1)


def test_the_honest_size_of_the_matrices_is_a_hundredth_of_a_bit_above_the_papers():
    square, up, down = (LayerRef("layer", "linear", "fc1", "", shape, "float32") for shape in ((768, 768), (3072, 768), (768, 3072)))
    scheme = Scheme.parse("int4n128")
    honest = 12 * (4 * layer_bytes(square, scheme) + layer_bytes(up, scheme) + layer_bytes(down, scheme))
    assert 8 * honest / MATRICES == pytest.approx(4.008, abs=0.005)  # scales, zero points, and entries in the file's header
    assert honest / 2**20 == pytest.approx(published_mebibytes({4: MATRICES}), abs=0.1)


@pytest.mark.parametrize("weight", [torch.zeros(6, 4), torch.full((6, 4), 0.7), torch.full((6, 4), -3e38), weights(6, 4).half()])
def test_odd_weights_give_finite_values_and_zeros_stay(weight):
    back = dequantize(quantize(weight, in_groups(3, 2)))
    assert torch.isfinite(back).all()
    assert (back[weight == 0] == 0).all()
