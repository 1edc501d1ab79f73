"""Search, for each group, the clipping range that leaves the smallest squared error."""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.methods.grid import Grid, ends

LEAST = {2: 0.36, 3: 0.48, 4: 0.6, 5: 0.72, 6: 0.8, 8: 0.92}
"""Smallest share of the range that is tried, by bits: the more codes, the less is gained by clipping."""

STEP = 0.04


def shares(bits: int) -> tuple[float, ...]:
    """Shares of the range that are tried. The whole range is the first, so that the result is never worse than rounding to it."""
    return tuple(1 - STEP * step for step in range(round((1 - LEAST[bits]) / STEP) + 1))


def find(grid: Grid, groups: Tensor, importance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each group with the smallest ‖w - s (q - z)‖² over the ranges of `shares`.

    Both ends of the range shrink together. A symmetric grid has one more code below zero than above it, so that each range is
    tried with a negative scale too, which puts that code on the other side. A grid search finds no exact optimum, and the error
    that it minimises is that of the weights, not of the layer's outputs, unless an importance stands for those.

    Args:
        grid: Bits and symmetry.
        groups: float32 [rows, groups, group size].
        importance: What a squared error costs, broadcast against ``groups``; None where all cost the same.

    Returns:
        Scale (exact in float16, negative where that is better) and zero point (whole), each float32 [rows, groups, 1].
    """
    low, high = ends(groups)
    scale, zero = grid.cover(low, high)
    least = _error(grid, groups, scale, zero, importance)
    for keep in shares(grid.bits):
        positive, tried_zero = grid.cover(low, high, keep)
        for tried in (positive, -positive) if grid.symmetric else (positive,):
            error = _error(grid, groups, tried, tried_zero, importance)
            better = error < least
            scale = torch.where(better, tried, scale)
            zero = torch.where(better, tried_zero, zero)
            least = torch.minimum(error, least)
    return scale, zero


def _error(grid: Grid, groups: Tensor, scale: Tensor, zero: Tensor, importance: Tensor | None) -> Tensor:
    squares = grid.encode(groups, scale, zero).sub_(zero).mul_(scale).sub_(groups).square_()
    if importance is not None:
        squares *= importance
    return squares.sum(dim=-1, keepdim=True, dtype=torch.float64)
