"""Search, for each group, the clipping range that leaves the smallest squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.methods.grid import Grid

KEEP = tuple(1 - 0.04 * step for step in range(17))
"""Shares of the range that are tried, 1 to 0.36. The whole range is the first, so that the result is never worse than rounding to it."""


def find(grid: Grid, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each group with the smallest ‖w - s (q - z)‖² over the ranges of `KEEP`.

    Both ends of the range shrink together. A grid search finds no exact optimum, and the error that it minimises is that of
    the weights, not of the layer's outputs.

    Args:
        grid: Bits and symmetry.
        groups: float32 [rows, groups, group size].

    Returns:
        Scale (exact in float16) and zero point (whole), each float32 [rows, groups, 1].
    """
    low, high = torch.aminmax(groups, dim=-1, keepdim=True)
    scale, zero = grid.cover(low, high)
    least = _error(grid, groups, scale, zero)
    for keep in KEEP[1:]:
        tried_scale, tried_zero = grid.cover(low, high, keep)
        error = _error(grid, groups, tried_scale, tried_zero)
        better = error < least
        scale = torch.where(better, tried_scale, scale)
        zero = torch.where(better, tried_zero, zero)
        least = torch.minimum(error, least)
    return scale, zero


def _error(grid: Grid, groups: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    difference = grid.encode(groups, scale, zero).sub_(zero).mul_(scale).sub_(groups)
    return difference.square_().sum(dim=-1, keepdim=True, dtype=torch.float64)
