"""The predicted front, thinned for drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paredown.search import Problem, pareto_front

_POINTS = 120  # as many as a chart of 500 pixels can show


@dataclass(frozen=True)
class FrontLine:
    """Points of the front: bytes, predicted loss increase and its standard error, nats per unit."""

    bytes: tuple[int, ...]
    loss_increase: tuple[float, ...]
    loss_increase_sd: tuple[float, ...]


def front_line(problem: Problem) -> FrontLine:
    """The Pareto front of what is predicted."""
    front = pareto_front(problem, tolerance=0.01)  # finer than a chart of 500 pixels shows
    predicted = [problem.predict(front.schemes(index)) for index in _spread([float(size) for size in front.bytes])]
    return FrontLine(
        tuple(p.bytes for p in predicted), tuple(p.loss_increase for p in predicted), tuple(p.loss_increase_sd for p in predicted)
    )


def _spread(values: Sequence[float]) -> list[int]:
    """Indices of at most `_POINTS` of rising positive values, evenly in their logarithm, the ends included."""
    if len(values) <= _POINTS:
        return list(range(len(values)))
    import numpy as np

    wanted = np.geomspace(values[0], values[-1], _POINTS)
    found = np.clip(np.searchsorted(np.asarray(values), wanted), 0, len(values) - 1)
    return sorted({0, len(values) - 1, *map(int, found)})
