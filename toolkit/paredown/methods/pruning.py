"""A pruned weight: its values, and the mask that says which of them are kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.methods import checks
from paredown.methods.masks import Pattern, select
from paredown.methods.saliency import Saliency


@dataclass(frozen=True, eq=False, slots=True)
class Pruned:
    """A weight with exact zeros.

    Attributes:
        weight: Float32 [out, in], zero where the mask is False.
        mask: Bool [out, in], True where kept.
        loss_increase: What the criterion's own quadratic model expects of the pruning; None where it has no unit of loss.
        note: What was done about degenerate input; empty where nothing was.
    """

    weight: Tensor
    mask: Tensor
    loss_increase: float | None = None
    note: str = ""


def prune(weight: Tensor, saliency: Saliency, pattern: Pattern) -> Pruned:
    """Drop the least salient weights and leave the others as they are.

    Args:
        weight: [out, in].
        saliency: Of the same weight.
        pattern: What may be pruned, and how much of it.
    """
    weight = checks.finite(checks.matrix(weight))
    mask = select(saliency.values, pattern)
    return Pruned(torch.where(mask, weight, 0.0), mask, note=saliency.note)
