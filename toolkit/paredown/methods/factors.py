"""Low-rank factors, and how a file holds them: in float16, or on the integer grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from paredown import sizes
from paredown.errors import ParedownError
from paredown.methods import checks
from paredown.methods.quantize import Quantized, dequantize, quantize

Bits = Literal[16, 8, 4]

_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True, eq=False, slots=True)
class LowRank:
    """A correction of a weight as a product B A. Paired columns of B and rows of A have equal norms.

    Attributes:
        left: B, float32 [out, rank].
        right: A, float32 [rank, in].
        singular_values: σ of the corrected error in the norm that was minimised, float64 [min(out, in)], descending. The squared
            error that a rank leaves is the sum of σ² beyond it.
        note: What was done about degenerate input; empty where nothing was.
    """

    left: Tensor
    right: Tensor
    singular_values: Tensor
    note: str = ""

    def dense(self) -> Tensor:
        """B A, [out, in]."""
        return self.left @ self.right


@dataclass(frozen=True, eq=False, slots=True)
class StoredFactors:
    """Both factors with the rank first, so that each singular direction has scales of its own.

    Attributes:
        left: Bᵀ, [rank, out]; float16, or its codes.
        right: A, [rank, in]; likewise.
    """

    left: Tensor | Quantized
    right: Tensor | Quantized

    def dense(self) -> Tensor:
        """B A as a reader of the file computes it in float32, [out, in]."""
        return dense_factor(self.left).T @ dense_factor(self.right)


def store(factors: LowRank, bits: Bits) -> StoredFactors:
    """The factors at a width of 16, 8 or 4 bits.

    At 8 and 4 bits they are rounded to the asymmetric grid in groups of 64, or of what divides a side (`paredown.sizes.fit`), with
    the clipping range of the least error. In float16 what lies beyond 65504 saturates.

    Args:
        factors: B and A.
        bits: Width of a number.

    Raises:
        ParedownError: If the width is another one.
    """
    _check(bits)
    return StoredFactors(_write(factors.left.T.contiguous(), bits), _write(factors.right, bits))


def stored_bytes(shape: tuple[int, int], rank: int, bits: Bits) -> int:
    """Bytes of the numbers of both factors in a file, scales and zero points included, header entries not.

    Args:
        shape: [out, in] of the corrected weight.
        rank: Of the correction.
        bits: Width of a number.

    Example:
        >>> stored_bytes((1536, 384), 16, 16)
        61440
    """
    _check(bits)
    return sum(tensor.bytes for side in shape for tensor in sizes.factor_tensors("factor", (rank, side), bits))


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with equal norms of each column of B and row of A, so that both round alike; float32."""
    norms = left.norm(dim=0).sqrt(), right.norm(dim=1).sqrt()
    ratio = torch.where((norms[0] > 0) & (norms[1] > 0), norms[1] / norms[0], 0.0)
    inverse = torch.where(ratio > 0, 1 / ratio, 0.0)
    return (left * ratio).float(), (right * inverse[:, None]).float()


def check_rank(rank: int, shape: tuple[int, ...]) -> tuple[int, str]:
    """The rank that a matrix can have, and a note where it is less than was asked.

    Raises:
        ParedownError: If it is not at least 1.
    """
    if rank < 1:
        raise ParedownError(f"expected a rank of at least 1, got {rank}; leave the correction out instead")
    full = min(shape)
    return (rank, "") if rank <= full else (full, f"rank {rank} is more than the weight has; {full} is used")


def _check(bits: int) -> None:
    if bits not in (16, 8, 4):
        raise ParedownError(f"expected factors of 16, 8 or 4 bits, got {bits}")


def _write(factor: Tensor, bits: Bits) -> Tensor | Quantized:
    format = sizes.factor_format((factor.shape[0], factor.shape[1]), bits)
    if format is None:
        return checks.finite(factor).clamp(-_LARGEST, _LARGEST).half()
    return quantize(factor, format, "mse")


def dense_factor(factor: Tensor | Quantized) -> Tensor:
    """The numbers of a stored factor, float32 [rank, out or in]."""
    return factor.float() if isinstance(factor, Tensor) else dequantize(factor)
