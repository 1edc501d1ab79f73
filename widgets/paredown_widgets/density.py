r"""A spectrum as a curve: how many eigenvalues there are around each value, and where the bulk ends.

The axis is `paredown.curvature.smoothing`'s: linear within \(\pm t\), a decade a unit beyond, both signs alike. The curve counts eigenvalues
per decade of it, so that one eigenvalue on its own is a bump of the same height in every layer, and a layer's size can be read off.

The bulk is the stretch around zero where more than `CROWD` eigenvalues share a decade. What lies beyond it stands alone and is called an
outlier: an eigenvalue that is known, or a Ritz value, which the Lanczos process only finds there because nothing else is near.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from paredown.record import MatrixEstimates
from paredown.specs import SpectralDensity
from paredown_widgets import numbers

if TYPE_CHECKING:
    import numpy as np

CROWD = 10.0
"""Eigenvalues per decade of the axis; an eigenvalue alone makes a bump of at most 6."""
FLOOR = 0.1
"""Eigenvalues per decade; lower is the smoothing's tail."""
_WIDTH = 0.07  # deviation of the smoothing of an eigenvalue that stands alone, decades
_WIDEST = 0.22  # of a Ritz value that stands for many: half the distance to its neighbours, at most this
_LOWEST = 1e-4  # eigenvalues per decade: far below the frame of any plot
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
        top, bottom = max(map(abs, values)) or 1.0, min(values)
        exponent = math.floor(math.log10(top)) - _DECADES
        if bottom < 0:  # room for two decades of negative curvature, but no more than five of the positive side
            exponent = max(min(exponent, math.floor(math.log10(-bottom)) - 1), exponent - 2)
        empty = cls(10.0**exponent, 0.0, 0.0)
        low, high = min(-0.5, empty.place(bottom) - 0.2), empty.place(max(values)) + 0.25
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
        bulk: Where the bulk begins and ends, values; None where nothing is crowded.
    """

    places: np.ndarray
    count: np.ndarray
    deviation: np.ndarray
    bulk: tuple[float, float] | None


@lru_cache(maxsize=2048)
def curve(density: SpectralDensity, axis: SymlogAxis, points: int = 200) -> Curve:
    """The curve of one density; about a millisecond, kept for as long as nothing changes."""
    import numpy as np

    from paredown.curvature.smoothing import smooth  # here, since it brings torch along

    places = np.linspace(axis.low, axis.high, points)
    values = 2 * axis.linear_within * np.sinh(places * math.log(10))
    each = []  # one curve a probe
    for nodes, weights in zip(density.nodes, density.weights, strict=True):
        parts = _alone_and_many(nodes, weights, density, axis)
        each.append(sum(smooth([x], [w], values, width, linear_within=axis.linear_within)[0] for x, w, width in parts if x))
    stacked = np.stack(each) * density.dimension
    count = stacked.mean(0)
    deviation = stacked.std(0, ddof=1) / len(each) ** 0.5 if len(each) > 1 else np.zeros(points)
    crowded = count > CROWD
    peak = int(count.argmax())
    bulk = None
    if crowded[peak]:
        left = int(np.flatnonzero(~crowded[: peak + 1])[-1]) if not crowded[: peak + 1].all() else 0
        right = peak + int((~crowded[peak:]).argmax()) if not crowded[peak:].all() else points - 1
        bulk = (axis.value(float(places[left])), axis.value(float(places[right])))
    return Curve(places, np.maximum(count, _LOWEST), deviation, bulk)


def _alone_and_many(
    nodes: Sequence[float], weights: Sequence[float], density: SpectralDensity, axis: SymlogAxis
) -> list[tuple[list[float], list[float], float]]:
    """Nodes, weights and width of two parts: what stands for few eigenvalues is drawn narrow; Ritz values that stand for many are joined."""
    if density.exact:
        return [(list(nodes), list(weights), _WIDTH)]
    few = [weight * density.dimension <= CROWD for weight in weights]
    alone, many = ([(x, w) for x, w, is_few in zip(nodes, weights, few, strict=True) if is_few == wanted] for wanted in (True, False))
    places = [axis.place(x) for x, _ in many]
    gaps = sorted(right - left for left, right in pairwise(places))
    width = min(max(gaps[len(gaps) // 2] / 2, _WIDTH), _WIDEST) if gaps else _WIDTH
    return [([x for x, _ in part], [w for _, w in part], spread) for part, spread in ((alone, _WIDTH), (many, width))]


def outliers(known: MatrixEstimates, bulk: tuple[float, float] | None) -> tuple[int, int]:
    """How many eigenvalues are known below the bulk, and above it."""
    if bulk is None:
        return 0, 0
    density, ends = known.density, known.eigenvalues
    found = [[*ends.bottom, *ends.top]] if ends else []
    if density is not None:
        found += [_repeated(probe, weights, density) for probe, weights in zip(density.nodes, density.weights, strict=True)]
    below = max(sum(value < bulk[0] for value in values) for values in found)
    above = max(sum(value > bulk[1] for value in values) for values in found)
    return below, above


def _repeated(nodes: Sequence[float], weights: Sequence[float], density: SpectralDensity) -> list[float]:
    """The nodes, each as often as it is an eigenvalue; Ritz values once. Zeros are left out."""
    if not density.exact:
        return list(nodes)
    return [x for x, w in zip(nodes, weights, strict=True) if x for _ in range(max(1, round(w * density.dimension)))]


def negative_share(density: SpectralDensity) -> float:
    """Sum of the negative eigenvalues over the sum of all magnitudes, mean over the probes."""
    shares = []
    for nodes, weights in zip(density.nodes, density.weights, strict=True):
        whole = sum(w * abs(x) for x, w in zip(nodes, weights, strict=True))
        shares.append(sum(-w * x for x, w in zip(nodes, weights, strict=True) if x < 0) / whole if whole else 0.0)
    return sum(shares) / len(shares)
