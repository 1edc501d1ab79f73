"""The predicted front, thinned for drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paredown.search import Problem, Resource, pareto_front

_POINTS = 120  # as many as a chart of 500 pixels can show


@dataclass(frozen=True)
class FrontLine:
    """Points of the front: bytes, predicted loss increase and its standard error, nats per unit, and seconds a token where they were timed."""

    bytes: tuple[int, ...]
    loss_increase: tuple[float, ...]
    loss_increase_sd: tuple[float, ...]
    seconds: tuple[float, ...] = ()


def front_line(problem: Problem, resource: Resource = "bytes") -> FrontLine:
    """The Pareto front of what is predicted, against bytes or seconds a token.

    Raises:
        ParedownError: If seconds are asked for and a candidate was not timed.
    """
    front = pareto_front(problem, resource=resource, tolerance=0.01)  # finer than a chart of 500 pixels shows
    predicted = [problem.predict(front.schemes(index)) for index in _spread([float(amount) for amount in front.amounts])]
    seconds = [p.seconds_per_token for p in predicted if p.seconds_per_token is not None]
    return FrontLine(
        tuple(p.bytes for p in predicted),
        tuple(p.loss_increase for p in predicted),
        tuple(p.loss_increase_sd for p in predicted),
        tuple(seconds) if len(seconds) == len(predicted) else (),
    )


def _spread(values: Sequence[float]) -> list[int]:
    """Indices of at most `_POINTS` of rising positive values, evenly in their logarithm, the ends included."""
    if len(values) <= _POINTS:
        return list(range(len(values)))
    import numpy as np

    wanted = np.geomspace(values[0], values[-1], _POINTS)
    found = np.clip(np.searchsorted(np.asarray(values), wanted), 0, len(values) - 1)
    return sorted({0, len(values) - 1, *map(int, found)})
