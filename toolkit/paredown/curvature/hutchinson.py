r"""The trace by random probes: \(E[v^\top A v] = \mathrm{tr}\, A\) for independent random signs v (Hutchinson, 1990).

One probe's variance is \(2 \sum_{i \ne j} A_{ij}^2\). The estimate is done when its standard error is small, never when it stops changing: two
probes that happen to agree end PyHessian's rule far from the trace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from paredown.curvature.operators import CurvatureOperator
from paredown.curvature.probes import generator_for
from paredown.errors import ParedownError

LEAST_PROBES = 10
"""Fewer don't tell their own spread: two agree within a tenth of it one time in twenty."""


class ProbedTrace(NamedTuple):
    """A trace and its probe error.

    Attributes:
        mean: The estimate.
        sd: Its standard error over the probes; infinite for one probe.
        values: Of each probe.
    """

    mean: float
    sd: float
    values: tuple[float, ...]


def hutchinson(operator: CurvatureOperator, probes: int, seed: int = 0) -> ProbedTrace:
    """The trace from a number of probes, one product each.

    Args:
        operator: The matrix.
        probes: How many.
        seed: Of the signs; the first probes of a longer run are the same.

    Raises:
        ParedownError: If there are no probes.
    """
    if probes < 1:
        raise ParedownError(f"expected at least one probe, got {probes}")
    return _estimate([_probe(operator, seed, probe) for probe in range(probes)])


def refined_trace(
    operator: CurvatureOperator, *, relative_error: float = 0.05, scale: float = 0.0, seed: int = 0, max_probes: int = 1000
) -> Iterator[ProbedTrace]:
    """The trace after each probe, until its standard error is small enough, but not before `LEAST_PROBES`.

    Args:
        operator: The matrix.
        relative_error: Standard error asked for, over the magnitude of the estimate.
        scale: A trace of a kindred matrix, such as the Gauss-Newton trace; errors are read against it where it is larger.
        seed: Of the signs.
        max_probes: When to give up; the last estimate's `sd` tells how far it came.

    Yields:
        The estimate from all probes so far.
    """
    values: list[float] = []
    for probe in range(max_probes):
        values.append(_probe(operator, seed, probe))
        found = _estimate(values)
        yield found
        if len(values) >= LEAST_PROBES and found.sd <= relative_error * max(abs(found.mean), scale):
            return


def _probe(operator: CurvatureOperator, seed: int, probe: int) -> float:
    signs = operator.signs(generator_for(seed, "hutchinson", (probe,)))
    return float((signs * (operator @ signs)).double().sum())


def _estimate(values: list[float]) -> ProbedTrace:
    count = len(values)
    mean = math.fsum(values) / count
    spread = math.fsum((value - mean) ** 2 for value in values)
    return ProbedTrace(mean, math.sqrt(spread / (count - 1) / count) if count > 1 else math.inf, tuple(values))
