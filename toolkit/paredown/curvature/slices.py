r"""How much a layer's curvature differs between slices of the data: \(\Omega = |\mathrm{mean}(\lambda)| + \mathrm{sd}(\lambda)\) (Q-BERT, Shen et al., 2020).

Layers whose top eigenvalue is large, or unstable from slice to slice, are given more bits.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch

from paredown.curvature.surface import LossSurface
from paredown.errors import ParedownError


def slices(surface: LossSurface, count: int = 10) -> tuple[LossSurface, ...]:
    """Disjoint slices of nearly equal size: the samples are dealt out in the order of their ids.

    Args:
        surface: The loss.
        count: How many; Q-BERT took ten.

    Raises:
        ParedownError: If there are fewer samples than slices.
    """
    if not 1 <= count <= surface.samples:
        raise ParedownError(f"expected 1 to {surface.samples} slices, one sample each at least, got {count}")
    order = torch.tensor([i for batch in surface.batches for i in batch.ids]).argsort()
    return tuple(surface.take(order[start::count]) for start in range(count))


def slice_statistic(values: Sequence[float]) -> float:
    r"""\(\Omega = |\mathrm{mean}| + \mathrm{sd}\) of the slices' values; the deviation is that of a sample (divided by one less).

    Args:
        values: Such as the largest eigenvalue of each slice.

    Raises:
        ParedownError: If there are fewer than two.
    """
    if len(values) < 2:
        raise ParedownError(f"expected the values of at least two slices, got {len(values)}")
    return abs(statistics.fmean(values)) + statistics.stdev(values)
