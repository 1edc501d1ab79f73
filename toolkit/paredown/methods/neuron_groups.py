r"""One range for several output neurons: Q-BERT's groups (Shen et al., 2020).

The rows of a matrix are cut into heads, and each head into buckets of consecutive neurons; a bucket of n rows and all inputs has
one scale and one zero point. Buckets never cross a head, so that those of n neurons refine those of a multiple of n, and all
refine the heads: the step of the grid never rises as groups are refined. (The largest error is half a step; a single squared
error may still rise by chance.) The paper counts 12 · 64 / 6 = 128 buckets of 6 neurons for heads of 64, which 6 does not divide:
within heads there are 132, while ``heads=1`` has the 128.

The paper's sizes count the codes alone, in MiB of 2^20 bytes: `published_mebibytes`. `storage_bits` counts the ranges too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks
from paredown.methods.grid import Grid


@dataclass(frozen=True, eq=False, slots=True)
class NeuronGroups:
    """A weight in codes with one range a bucket.

    Attributes:
        codes: uint8 [out, in].
        scales: float16 [buckets].
        zero_points: uint8 [buckets], the code of zero.
        buckets: int64 [out], bucket of each row; not stored, for heads and neurons give it.
        bits: Width of a code.
    """

    codes: Tensor
    scales: Tensor
    zero_points: Tensor
    buckets: Tensor
    bits: int


def buckets(out: int, *, heads: int = 1, neurons: int | None = None) -> Tensor:
    """The bucket of each output row, int64 [out], ascending.

    Args:
        out: Rows.
        heads: How many equal parts they form; must divide them.
        neurons: Rows of a bucket, of which the last of a head may have fewer; None makes a head one bucket.

    Raises:
        ParedownError: If the heads do not divide the rows.
    """
    if heads < 1 or out % heads:
        raise ParedownError(f"{heads} heads do not divide {out} rows; take a divisor, such as 1 for a matrix without heads")
    if neurons is not None and neurons < 1:
        raise ParedownError(f"neurons of a bucket must be at least 1, got {neurons}")
    row = torch.arange(out)
    size = out // heads
    neurons = min(neurons or size, size)
    return row // size * -(-size // neurons) + row % size // neurons


def quantize_neuron_groups(weight: Tensor, bits: int, bucket: Tensor) -> NeuronGroups:
    """Round a weight to the asymmetric grid over the range of each bucket; zero is on every grid.

    Args:
        weight: [out, in], any floating type.
        bits: 2 to 8.
        bucket: What `buckets` returned for its rows.

    Raises:
        ParedownError: If the weight is no matrix, holds NaN or infinite values, or the buckets are not of its rows.
    """
    if not 2 <= bits <= 8:
        raise ParedownError(f"bits must be 2 to 8, got {bits}")
    weight = checks.finite(checks.matrix(weight))
    if bucket.shape != weight.shape[:1]:
        raise ParedownError(f"expected a bucket for each of {weight.shape[0]} rows, got shape {list(bucket.shape)}")
    bucket = bucket.to(weight.device)
    low, high = torch.aminmax(weight, dim=1)
    empty = torch.zeros(int(bucket[-1]) + 1, device=weight.device)  # the range always holds zero
    low, high = empty.scatter_reduce(0, bucket, low, "amin"), empty.scatter_reduce(0, bucket, high, "amax")
    grid = Grid(bits, symmetric=False)
    scale, zero = grid.cover(low, high)
    codes = grid.encode(weight, scale[bucket, None], zero[bucket, None])
    return NeuronGroups(codes.to(torch.uint8), scale.to(torch.float16), zero.to(torch.uint8), bucket, bits)


def dequantize_neuron_groups(quantized: NeuronGroups) -> Tensor:
    """The weight that the codes stand for, float32 [out, in]."""
    zero = quantized.zero_points.to(torch.float32)[quantized.buckets, None]
    return (quantized.codes.to(torch.float32) - zero) * quantized.scales.to(torch.float32)[quantized.buckets, None]


def storage_bits(out: int, inputs: int, bits: int, count: int) -> int:
    """Bits of the codes and of the float16 scale and 8-bit zero point of each of ``count`` buckets."""
    return out * inputs * bits + count * (16 + 8)


def published_mebibytes(parameters: Mapping[float, int]) -> float:
    """Size in Q-BERT's convention: numbers of parameters by bits (an average for mixed precision), nothing else, in 2^20 bytes.

    Example:
        >>> encoder, embedding = 85_054_464, 23_837_184  # BERT-base without pooler; LayerNorm and biases take the bits of their part
        >>> round(published_mebibytes({4: encoder, 8: embedding}), 1)
        63.3
    """
    return sum(bits * count for bits, count in parameters.items()) / 8 / 2**20
