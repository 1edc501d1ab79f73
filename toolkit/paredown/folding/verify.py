"""Whether a folding really leaves a model's answers as they are: tried, not believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from paredown.folding.foldings import Folding, folded
from paredown.specs import LayerRef

Answers = Callable[[], Tensor]
"""Runs the model on some batch and returns what must not change: its logits, of any shape."""

TOLERANCE = 1e-4
"""Relative change of the answers, ‖Δ‖ / ‖answers‖, that float32 may make of a folding which is exact."""


def relative_change(before: Tensor, after: Tensor) -> float:
    """‖after - before‖ / ‖before‖ in float64; infinite where `after` is not finite."""
    before, after = before.double(), after.double()
    change = float((after - before).norm() / before.norm().clamp(min=torch.finfo(torch.float64).tiny))
    return change if math.isfinite(change) else math.inf


@torch.no_grad()
def verified(
    model: nn.Module, layers: Mapping[str, LayerRef], scales: Mapping[Folding, Tensor], answers: Answers, *, tolerance: float = TOLERANCE
) -> dict[Folding, float]:
    """Try every folding with its scale, then undo it.

    All are tried together first; where the answers change, each half by itself, down to the ones that do it. So a model in which all
    is well takes two forward passes, and one in which nothing folds two for each folding.

    Args:
        model: The model; left bit for bit as it was.
        layers: Its layers by name.
        scales: What is tried.
        answers: Runs it.
        tolerance: Relative change that is still rounding.

    Returns:
        The foldings that change the answers, and how much (relative); empty where all may stay.
    """
    reference = answers()
    changed: dict[Folding, float] = {}

    def divide(some: Sequence[Folding]) -> None:
        if not some:
            return
        with folded(model, layers, {folding: scales[folding] for folding in some}):
            change = relative_change(reference, answers())
        if change <= tolerance:
            return
        if len(some) == 1:
            changed[some[0]] = change
            return
        divide(some[: len(some) // 2])
        divide(some[len(some) // 2 :])

    divide(list(scales))
    return changed


def random_scales(foldings: Sequence[Folding], widths: Mapping[Folding, int]) -> dict[Folding, Tensor]:
    """Scales from 1/4 to 4 that no folding survives by accident; the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    scales: dict[Folding, Tensor] = {}
    for folding in foldings:
        index = folding.index(widths[folding])
        scales[folding] = (4 * torch.rand(int(index.max()) + 1, generator=generator) - 2).exp2()[index]
    return scales
