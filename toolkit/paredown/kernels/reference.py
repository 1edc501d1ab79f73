"""What every packed kernel must compute, in plain torch: dequantize, then multiply or look up."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from paredown.kernels.packing import Packed, unpack, unpack_codes


def dequantize(packed: Packed) -> Tensor:
    """The weight s (q - z), float32 [out, in]."""
    codes, scales, zero_points = unpack(packed)
    zero = float(1 << (packed.format.bits - 1)) if zero_points is None else zero_points.to(torch.float32).unsqueeze(-1)
    out, inputs = packed.shape
    groups = codes.reshape(out, scales.shape[1], -1).to(torch.float32)
    return groups.sub_(zero).mul_(scales.to(torch.float32).unsqueeze(-1)).reshape(out, inputs)


def linear(x: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """X Wᵀ + bias.

    Args:
        x: [..., in].
        packed: The weight [out, in].
        bias: [out] or None.

    Returns:
        [..., out], of the dtype of ``x``.
    """
    return functional.linear(x, dequantize(packed).to(x.dtype), bias)


def embedding(ids: Tensor, packed: Packed) -> Tensor:
    """The rows of the weight; only those that are asked for are unpacked.

    Args:
        ids: Whole numbers of any shape [...].
        packed: The weight [rows, dim].

    Returns:
        float32 [..., dim].
    """
    rows, place = torch.unique(ids, return_inverse=True)
    zero_points = None
    if packed.zero_points is not None:
        all_zero_points = unpack_codes(packed.zero_points.T, packed.format.bits, packed.shape[0]).T
        zero_points = all_zero_points[rows].to(torch.float32).unsqueeze(-1)
    codes = unpack_codes(packed.words[rows], packed.format.bits, packed.shape[1])
    groups = codes.reshape(len(rows), packed.scales.shape[1], -1).to(torch.float32)
    groups.sub_(float(1 << (packed.format.bits - 1)) if zero_points is None else zero_points)
    weight = groups.mul_(packed.scales[rows].to(torch.float32).unsqueeze(-1)).reshape(len(rows), -1)
    return weight[place]
