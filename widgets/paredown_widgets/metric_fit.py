"""The task's metric as a function of the KL: what a predicted KL would mean for accuracy, read off the plans measured so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from paredown.specs import Measurement

_FEWEST = 5  # measured plans; with fewer a line through them says more about chance than about the model


@dataclass(frozen=True)
class MetricFit:
    """A monotone curve of the metric against the KL.

    Attributes:
        kl: Measured KL of the plans, rising, nats per unit.
        metric: Fitted metric at those.
        deviation: Standard deviation of the measured metric around the curve.
    """

    kl: tuple[float, ...]
    metric: tuple[float, ...]
    deviation: float

    def at(self, kl: float) -> float | None:
        """The metric at a KL; None beyond the largest one measured, where nothing was seen."""
        if not math.isfinite(kl) or kl > self.kl[-1]:
            return None
        return float(np.interp(max(kl, 0.0), self.kl, self.metric))


def fit_metric(measurements: Sequence[Measurement], baseline: Measurement | None) -> MetricFit | None:
    """Isotonic regression (pool adjacent violators; Barlow et al., 1972) of the metric on the KL; the original stands at 0.

    Args:
        measurements: Measured plans, the original among them or not.
        baseline: The original, measured.

    Returns:
        The curve, or None while fewer than five plans are measured or the task has no KL.
    """
    original = baseline.plan_digest if baseline else None
    points = sorted((m.kl, m.metric.value) for m in measurements if m.kl is not None and m.plan_digest != original)
    if len(points) < _FEWEST:
        return None
    if baseline is not None:
        points.insert(0, (0.0, baseline.metric.value))
    kl, metric = np.array(points).T
    increasing = not measurements[0].metric.higher_is_better
    fitted = isotonic_regression(metric, increasing=increasing).x
    deviation = float(np.sqrt(((metric - fitted) ** 2).sum() / max(1, len(points) - 2)))
    return MetricFit(tuple(map(float, kl)), tuple(map(float, fitted)), deviation)
