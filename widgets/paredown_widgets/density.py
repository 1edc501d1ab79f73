r"""A spectrum as a curve: how many eigenvalues there are around each value, and where the bulk ends.

The axis is `paredown.smoothing`'s: linear within \(\pm t\), a decade a unit beyond, both signs alike. The curve counts eigenvalues
per decade of it, so that one eigenvalue on its own is a bump of the same height in every layer, and a layer's size can be read off.

A Ritz value stands for the eigenvalues around it, so its bump reaches half-way to its neighbours; an eigenvalue's is narrow.

An outlier stands apart from the bulk: below it and the outliers with it lies a gap that chance does not explain. It is at least a factor
of `GAP`, and `UNLIKELY` times as wide as the median gap of the ten values that follow. Among values that fall at random a gap exceeds k
medians with a chance of 2⁻ᵏ. A Ritz value that stands for n eigenvalues stands for gaps n times as narrow.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from paredown.record import MatrixEstimates
from paredown.smoothing import smooth
from paredown.specs import SpectralDensity
from paredown_widgets import numbers

GAP = 2.0
"""Between the smallest outlier and the bulk."""
UNLIKELY = 8.0
"""Median gaps: less than one gap in 250 is as wide by chance."""
FLOOR = 0.1
"""Eigenvalues per decade; lower is the smoothing's tail."""
_WIDTHS = (0.07, 0.4)  # deviation of the smoothing, decades: of an eigenvalue, and the widest of a Ritz value
_REACH = 0.4  # of a Ritz value, deviation over the distance to its neighbours
_LOWEST = 1e-4  # eigenvalues per decade: far below the frame of any plot
_LARGEST = 20  # eigenvalues among which outliers are looked for
_FOLLOWING = (3, 10)  # gaps that one is compared with: at least, at most
_SMALLEST = 1e-12  # a spectrum of zeros still has an axis
_DECADES = 3  # shown between the linear part and the largest eigenvalue


@dataclass(frozen=True)
class SymlogAxis:
    """An axis of eigenvalues.

    Attributes:
        linear_within: t: linear between -t and t.
        low: Its left end, as a place.
        high: Its right end.
    """

    linear_within: float
    low: float
    high: float

    @classmethod
    def of(cls, known: Iterable[MatrixEstimates]) -> SymlogAxis:
        """An axis for these spectra; its ends stand on a grid, so that it moves only when a value leaves it."""
        values = [value for each in known for value in extremes(each)] or [1.0]
        top, bottom = max(max(map(abs, values)), _SMALLEST), min(values)
        exponent = math.floor(math.log10(top)) - _DECADES
        if bottom < 0:  # room for two decades of negative curvature, but no more than five of the positive side
            exponent = max(min(exponent, math.floor(math.log10(-bottom)) - 1), exponent - 2)
        empty = cls(10.0**exponent, 0.0, 0.0)
        low, high = min(-0.5, empty.place(bottom) - 0.3), empty.place(max(values)) + 0.3
        return cls(empty.linear_within, math.floor(low / 0.25) * 0.25, math.ceil(high / 0.25) * 0.25)

    def place(self, value: float) -> float:
        """Where a value stands."""
        return math.asinh(value / (2 * self.linear_within)) / math.log(10)

    def value(self, place: float) -> float:
        """The value that stands there."""
        return 2 * self.linear_within * math.sinh(place * math.log(10))

    def ticks(self, every: int = 1) -> tuple[list[float], list[str]]:
        """Places and words of zero and the decades on both sides."""
        exponent = round(math.log10(self.linear_within))
        powers = range(exponent + 1, exponent + 2 + math.ceil(max(self.high, -self.low)), every)
        values = [0.0, *(sign * 10.0**power for power in powers for sign in (1, -1))]
        inside = sorted(value for value in values if self.low <= self.place(value) <= self.high)
        return [self.place(value) for value in inside], [decade(value) for value in inside]


def decade(value: float) -> str:
    """A power of ten as a tick: plain between 10⁻³ and 10⁴.

    Example:
        >>> [decade(value) for value in (-0.01, 0.0, 1.0, 1e-4, 1e6)]
        ['−0.01', '0', '1', '10⁻⁴', '10⁶']
    """
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:g}".replace("-", numbers.MINUS)
    sign = numbers.MINUS if value < 0 else ""
    return f"{sign}10{str(round(math.log10(abs(value)))).translate(numbers.RAISED)}"


def extremes(known: MatrixEstimates) -> list[float]:
    """Smallest and largest values of a spectrum, as far as they are known."""
    values = [node for probe in known.density.nodes for node in (min(probe), max(probe))] if known.density else []
    if known.eigenvalues:
        values += [*known.eigenvalues.top[:1], *known.eigenvalues.bottom[:1]]
    return values


@dataclass(frozen=True, eq=False)
class Curve:
    """Eigenvalues per decade along an axis.

    Attributes:
        places: Along the axis, [points].
        count: Mean over the probes, positive, [points].
        deviation: Its standard error over the probes; zeros for an exact spectrum and for a single probe, [points].
    """

    places: np.ndarray
    count: np.ndarray
    deviation: np.ndarray


@lru_cache(maxsize=2048)
def curve(density: SpectralDensity, axis: SymlogAxis, points: int = 200) -> Curve:
    """The curve of one density; about a millisecond, kept for as long as nothing changes."""
    places = np.linspace(axis.low, axis.high, points)
    values = 2 * axis.linear_within * np.sinh(places * math.log(10))
    widths = [_widths(nodes, axis, density.exact) for nodes in density.nodes]
    mean, deviation = smooth(density.nodes, density.weights, values, widths, linear_within=axis.linear_within)
    count, deviation = mean * density.dimension, deviation * density.dimension
    return Curve(places, np.maximum(count, _LOWEST), deviation)


def _widths(nodes: Sequence[float], axis: SymlogAxis, exact: bool) -> list[float]:
    """Deviation of each node's bump."""
    if exact or len(nodes) < 2:
        return [_WIDTHS[0]] * len(nodes)
    places = [axis.place(node) for node in nodes]
    gaps = [right - left for left, right in pairwise(places)]
    near = [gaps[0], *((left + right) / 2 for left, right in pairwise(gaps)), gaps[-1]]
    return [min(max(_REACH * gap, _WIDTHS[0]), _WIDTHS[1]) for gap in near]


@dataclass(frozen=True)
class Outliers:
    """Eigenvalues apart from the bulk, on one side of zero.

    Attributes:
        count: How many.
        edge: A value between them and the bulk; None where there are none.
    """

    count: int = 0
    edge: float | None = None


def outliers(known: MatrixEstimates, sign: int = 1) -> Outliers:
    """The outliers above the bulk, or with ``sign=-1`` those below it."""
    found: list[Outliers] = []
    if known.eigenvalues:
        values = known.eigenvalues.top if sign > 0 else known.eigenvalues.bottom
        found.append(_apart([(sign * value, 1.0) for value in values if sign * value > 0]))
    if (density := known.density) is not None:
        each = [
            sorted(((sign * x, w * density.dimension) for x, w in zip(*probe, strict=True) if sign * x > 0), reverse=True)
            for probe in zip(density.nodes, density.weights, strict=True)
        ]
        found.append(min((_apart(ranked) for ranked in each), key=lambda outliers: outliers.count))  # what every probe finds
    return max(found, key=lambda outliers: outliers.count, default=Outliers())


def _apart(ranked: Sequence[tuple[float, float]]) -> Outliers:
    """What lies above the lowest gap that chance does not explain, given falling values and how many eigenvalues each stands for."""
    gaps = [math.log(higher / lower) for (higher, _), (lower, _) in pairwise(ranked)]
    usual = [gap / max(1.0, n) for gap, (_, n) in zip(gaps, ranked, strict=False)]
    for last in range(min(_LARGEST, len(gaps) - _FOLLOWING[0]) - 1, -1, -1):
        if gaps[last] >= max(math.log(GAP), UNLIKELY * statistics.median(usual[last + 1 : last + 1 + _FOLLOWING[1]])):
            return Outliers(last + 1, math.sqrt(ranked[last][0] * ranked[last + 1][0]))
    return Outliers()
