r"""Tables of values that are not evenly spaced, and the nearest entry of each number.

- NormalFloat (Dettmers et al., QLoRA, 2023): quantiles of a normal distribution, so that normal weights use all codes alike. The
  generator for any width is that of LQ-LoRA (Guo et al., 2024): \(2^{b-1}\) quantiles of \([1 - o, 1/2]\) and \(2^{b-1} + 1\) of
  \([1/2, o]\), \(o = 0.9677083\), divided by the largest; zero is an entry. At 4 bits that is QLoRA's NF4.
- E2M1 (OCP Microscaling Formats 1.0, 2023): the floats of 4 bits, 0 to 6 with a sign.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from paredown.errors import ParedownError

OFFSET = 0.9677083
"""The largest quantile of NormalFloat, as published: about (1 - 1/32 + 1 - 1/30) / 2."""

E2M1_LARGEST = 6.0

_MANY = 32  # edges from which on a search is faster than comparing with each


@functools.cache
def _normal_float(bits: int) -> tuple[float, ...]:
    half = 1 << (bits - 1)

    def quantiles(count: int) -> Tensor:
        # the published table was made from quantiles in float32
        return torch.special.ndtri(torch.linspace(OFFSET, 0.5, count).to(torch.float64))[:-1]

    above, below = quantiles(half + 1), -quantiles(half)
    table = torch.cat([below, torch.zeros(1, dtype=torch.float64), above.flip(0)])
    return tuple((table / table[-1]).tolist())


def normal_float(bits: int) -> Tensor:
    """The NormalFloat table: float32 [2^bits], ascending from -1 to 1, with an exact zero.

    Raises:
        ParedownError: If the width is not 2, 3 or 4.
    """
    if bits not in (2, 3, 4):
        raise ParedownError(f"NormalFloat has 2, 3 or 4 bits, got {bits}")
    return torch.tensor(_normal_float(bits))


def nearest(values: Tensor, table: Tensor) -> Tensor:
    """Index of the nearest entry of each value, ties to the lower one; uint8 of the shape of ``values``.

    Args:
        values: Floating type of the table.
        table: At most 256 ascending entries.
    """
    edges = (table[1:] + table[:-1]) / 2
    if len(edges) >= _MANY:
        return torch.bucketize(values, edges, out_int32=True).to(torch.uint8)
    passed = torch.zeros_like(values, dtype=torch.uint8)
    for edge in edges:
        passed += values > edge
    return passed


def round_to_e2m1(values: Tensor) -> Tensor:
    """The nearest E2M1 float, ties to the even mantissa, cut at ±6; an infinity becomes ±6, NaN stays NaN.

    The spacing is 1/2 below 2, 1 below 4, 2 above: on each stretch that is rounding to a whole number of steps, half to even.
    """
    values = values.clamp(-E2M1_LARGEST, E2M1_LARGEST)
    size = values.abs()
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return (values / step).round_().mul_(step)


_E2M1_CODES = torch.tensor([0, 1, 2, 3, 4, 0, 5, 0, 6, 0, 0, 0, 7], dtype=torch.uint8)  # by twice the size


def e2m1_codes(rounded: Tensor) -> Tensor:
    """Bits of E2M1 floats, sign first: uint8 below 16. Zero has the code 0, never that of -0."""
    size = _E2M1_CODES.to(rounded.device)[(rounded.abs() * 2).to(torch.int32)]
    return size + 8 * (rounded < 0).to(torch.uint8)


def e2m1_values(codes: Tensor) -> Tensor:
    """The floats of E2M1 codes, float32."""
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6], device=codes.device)
    return torch.cat([table, -table])[codes.to(torch.int32)]
