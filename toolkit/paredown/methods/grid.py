"""The integer grid of a group of weights: the scale and zero point that span a range, and the codes on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_SMALLEST_NORMAL = torch.finfo(torch.float16).smallest_normal
_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True, slots=True)
class Grid:
    """Codes 0 .. 2^bits - 1, with a zero point of their own or, where symmetric, the middle 2^(bits-1)."""

    bits: int
    symmetric: bool

    @property
    def largest(self) -> int:
        """The largest code, which is the number of steps that the range is divided into."""
        return (1 << self.bits) - 1

    def span(self, groups: Tensor, keep: float = 1.0) -> tuple[Tensor, Tensor]:
        """Scale and zero point of each group.

        Args:
            groups: float32 [rows, groups, group size].
            keep: Share of the range that the grid covers; what lies outside is clipped.

        Returns:
            Scale (exact in float16) and zero point (whole), each float32 [rows, groups, 1].
        """
        return self.cover(*ends(groups), keep)

    def cover(self, low: Tensor, high: Tensor, keep: float = 1.0) -> tuple[Tensor, Tensor]:
        """Scale and zero point for the ranges [keep low, keep high], each widened to hold zero."""
        if self.symmetric:
            # division first: twice a float32 maximum would overflow
            scale = to_half(torch.maximum(-low, high) * (keep / (self.largest / 2)))
            return scale, torch.full_like(scale, 1 << (self.bits - 1))
        low, high = low.clamp(max=0) * keep, high.clamp(min=0) * keep
        exact = high / self.largest - low / self.largest
        scale = to_half(exact)
        # a scale that was cut saturates both ends alike, which the zero point of the cut scale would not
        return scale, (-low / torch.where(exact > _LARGEST, exact, scale)).round_().clamp_(0, self.largest)

    def encode(self, groups: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """The nearest code of each weight, as whole float32 of the shape of ``groups``; halves go to the even code."""
        return (groups / scale).round_().add_(zero).clamp_(0, self.largest)


def ends(groups: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the largest number of each group, [..., 1] each; in two passes, that take a tenth of the time of torch.aminmax."""
    return groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)


def to_half(scale: Tensor) -> Tensor:
    """The scale that float16 will hold, as float32: 1 for 0, rounded up below the normal range, cut at 65504."""
    half = scale.clamp(max=_LARGEST).to(torch.float16)
    short = (half < _SMALLEST_NORMAL) & (half.to(torch.float32) < scale)
    half = torch.where(short, (half.view(torch.int16) + 1).view(torch.float16), half)  # the next number up
    return torch.where(scale == 0, 1.0, half.to(torch.float32))
