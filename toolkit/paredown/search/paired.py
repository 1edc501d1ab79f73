"""Two plans on the same samples: sample for sample their losses are subtracted, so that what makes a sample hard for every plan drops out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

RESAMPLES = 2000
"""Bootstrap resamples of an interval."""

FEW = 30
"""An interval over fewer samples is wide, and its level only about what it says."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What one plan does beyond another, on the same samples.

    Attributes:
        value: Mean difference per unit; below 0 where the first does less.
        low: Lower end of its 95 % interval.
        high: Upper end; both are NaN where there are fewer than two samples.
        samples: Number of samples.
        sd: Its standard error; infinite where there are fewer than two samples.
    """

    value: float
    low: float
    high: float
    samples: int
    sd: float

    @property
    def decided(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0 or self.high < 0

    @property
    def wide(self) -> bool:
        """Whether there are so few samples that the interval says little."""
        return self.samples < FEW


def difference(one: np.ndarray, other: np.ndarray, units: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """The difference of two plans with its paired percentile-bootstrap interval (Efron, 1979): whole samples are drawn, both plans' at once.

    Args:
        one: Loss of each sample, summed over its units, [n].
        other: The other plan's, [n].
        units: Of each sample, [n].
        seed: Seed of the bootstrap.
        resamples: Number of resamples.
    """
    gaps, n = one - other, len(one)
    value, sd = float(gaps.sum() / units.sum()), standard_error(gaps, units, math.inf)
    if n < 2:
        return Difference(value, math.nan, math.nan, n, sd)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    low, high = np.quantile(counts @ gaps / np.maximum(counts @ units, np.finfo(float).tiny), (0.025, 0.975))
    return Difference(value, float(low), float(high), n, sd)


def standard_error(gaps: np.ndarray, units: np.ndarray, population: float) -> float:
    """Standard error of the mean difference per unit, of n samples drawn without replacement from a population; infinite for one.

    Args:
        gaps: Difference on each sample, summed over its units, [n].
        units: Of each sample, [n].
        population: N.
    """
    n = len(gaps)
    if n < 2:
        return 0.0 if n == population else float("inf")
    residuals = gaps - gaps.sum() / units.sum() * units
    return float(np.sqrt(n / (n - 1) * (1 - n / population) * np.square(residuals).sum()) / units.sum())


def lower_bound(gaps: np.ndarray, units: np.ndarray, population: int, level: float) -> tuple[float, float]:
    r"""The mean difference per unit and its one-sided lower confidence bound.

    \(\bar d - s \sqrt n\, g^{-1}(t_{\text{level}, n - 1} / \sqrt n)\) with s from `standard_error`. g is the identity, or where few
    samples speak strongly for the first (skewness \(\gamma < 0\)), for which Student's t is wrong far too often, the transformation that
    takes the skewness out (Hall, 1992): \(g(x) = x + \gamma x^2 / 3 + \gamma^2 x^3 / 27 + \gamma / (6 n)\).

    Args:
        gaps: Difference on each sample, summed over its units, [n].
        units: Of each sample, [n].
        population: N, samples that the n were drawn from without replacement.
        level: Confidence level.
    """
    n = len(gaps)
    mean = gaps.sum() / units.sum()
    residuals = gaps - mean * units
    squares = np.square(residuals).mean()
    reach = student.ppf(level, n - 1) / np.sqrt(n)
    skewness = min(0.0, (residuals**3).mean() / squares**1.5) if squares else 0.0
    if skewness:
        reach = 3 / skewness * (np.cbrt(1 + skewness * (reach - skewness / (6 * n))) - 1)
    return float(mean), float(mean - standard_error(gaps, units, population) * np.sqrt(n) * reach)
