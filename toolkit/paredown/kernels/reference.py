"""What every packed kernel must compute, in plain torch: dequantize, then multiply or look up."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from paredown import methods
from paredown.kernels.packing import Packed, pack_codes, unpack, unpack_codes
from paredown.methods.factors import dense_factor


def dequantize(packed: Packed) -> Tensor:
    """The weight that the tensors stand for, float32 [out, in]."""
    return methods.dequantize(unpack(packed))


def linear(x: Tensor, packed: Packed, bias: Tensor | None = None) -> Tensor:
    """X Wᵀ + bias; low-rank factors are multiplied one after the other, X Aᵀ Bᵀ, and never with each other.

    Where the scheme rounds the inputs, X is first put on its grid, each token's own or the static one; the product is computed in floats, which an integer
    kernel would do exactly and scale after.

    Args:
        x: [..., in].
        packed: The weight [out, in].
        bias: [out] or None.

    Returns:
        [..., out], of the dtype of ``x``.
    """
    if (rounded := packed.round_inputs) is not None:
        x = rounded(x)
    made = unpack(packed)
    if made.factors is None:
        return functional.linear(x, methods.dequantize(made).to(x.dtype), bias)
    left, right = (dense_factor(factor).to(x.dtype) for factor in (made.factors.left, made.factors.right))
    low_rank = functional.linear(functional.linear(x, right), left.T, bias)
    if made.numbers is None:
        return low_rank
    return low_rank + functional.linear(x, methods.dequantize(replace(made, factors=None)).to(x.dtype))


def embedding(ids: Tensor, packed: Packed) -> Tensor:
    """The rows of the weight; of plain codes only those that are asked for are unpacked.

    Args:
        ids: Whole numbers of any shape [...].
        packed: The weight [rows, dim].

    Returns:
        float32 [..., dim].
    """
    if not packed.scheme.is_plain:
        return dequantize(packed)[ids]
    rows, place = torch.unique(ids, return_inverse=True)
    return dequantize(_rows(packed, rows))[place]


def _rows(packed: Packed, rows: Tensor) -> Packed:
    """Some rows of a plain weight."""
    assert packed.scheme.weight is not None
    tensors = {name: packed.tensors[name][rows] for name in ("weight_packed", "weight_scale")}
    if not packed.scheme.weight.symmetric:  # zero points are packed down the columns
        bits = packed.scheme.weight.bits
        zero_points = unpack_codes(packed.tensors["weight_zero_point"].T, bits, packed.shape[0])[:, rows]
        tensors["weight_zero_point"] = pack_codes(zero_points, bits).T
    return Packed(tensors, packed.scheme, (len(rows), packed.shape[1]))
