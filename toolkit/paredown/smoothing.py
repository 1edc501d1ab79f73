r"""How a spectral density is drawn: smoothed on an axis that is linear around zero and logarithmic beyond.

The axis is \(s(\lambda) = \mathrm{arsinh}(\lambda / 2t) / \ln 10\): linear within \(\pm t\), one unit a decade far outside, both signs alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FLOOR = 1e-12
"""Densities below it are drawn as it, so that their logarithm exists."""


def symlog(values: np.ndarray | float, linear_within: float) -> np.ndarray:
    """Place of eigenvalues on the axis."""
    return np.arcsinh(np.asarray(values, float) / (2 * linear_within)) / math.log(10)


def from_symlog(places: np.ndarray | float, linear_within: float) -> np.ndarray:
    """Eigenvalues at places of the axis; the inverse of `symlog`."""
    return 2 * linear_within * np.sinh(np.asarray(places, float) * math.log(10))


def symlog_grid(nodes: Sequence[Sequence[float]], *, linear_within: float, points: int = 240, margin: float = 0.5) -> np.ndarray:
    """Eigenvalues, evenly spaced on the axis, from below the smallest node to above the largest.

    Args:
        nodes: One sequence a probe.
        linear_within: t; eigenvalues inside are spread linearly.
        points: How many.
        margin: Room at both ends, in decades.
    """
    places = symlog(np.concatenate([np.asarray(each, float) for each in nodes]), linear_within)
    return from_symlog(np.linspace(places.min() - margin, places.max() + margin, points), linear_within)


def smooth(
    nodes: Sequence[Sequence[float]],
    weights: Sequence[Sequence[float]],
    grid: np.ndarray,
    bandwidth: float | Sequence[Sequence[float]],
    *,
    linear_within: float,
) -> tuple[np.ndarray, np.ndarray]:
    r"""The density on a grid: a Gaussian of the bandwidth for every node, on the symmetric-logarithmic axis.

    It is a density per decade of the axis, so its area there is 1 (where the grid covers it), and far tails stay above `FLOOR`.

    Args:
        nodes: One sequence a probe.
        weights: One sequence a probe.
        grid: Eigenvalues [points], as of `symlog_grid`.
        bandwidth: Deviation of the Gaussian, in decades: one for all nodes, or one for each, a sequence a probe.
        linear_within: t of the axis.

    Returns:
        Mean over the probes, and standard error of the mean (zero for one probe: an exact spectrum, or no band to show), each [points].
    """
    at = symlog(grid, linear_within)
    each = []
    widths = bandwidth if isinstance(bandwidth, Sequence) else [[bandwidth]] * len(nodes)
    for x, w, width in zip(nodes, weights, widths, strict=True):
        distance = (at[:, None] - symlog(np.asarray(x, float), linear_within)) / width
        each.append(np.exp(-0.5 * distance**2) @ (np.asarray(w, float) / np.asarray(width) / math.sqrt(2 * math.pi)))
    stacked = np.stack(each)
    error = stacked.std(0, ddof=1) / len(stacked) ** 0.5 if len(stacked) > 1 else np.zeros(len(at))
    return np.maximum(stacked.mean(0), FLOOR), error
