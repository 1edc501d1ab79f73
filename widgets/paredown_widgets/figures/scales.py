"""The vertical axis of the front: what it shows, where it begins and ends, and where a point outside of it is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from paredown.specs import Measurement
from paredown_widgets import numbers
from paredown_widgets.figures.style import linear_range, log_range, rounded
from paredown_widgets.model import ExplorerModel

Quantity = Literal["kl", "metric", "loss"]
Resource = Literal["bytes", "seconds"]
Json = dict[str, Any]
FLOOR = 1e-6
"""Nats; below it a logarithmic axis would show rounding errors."""


@dataclass(frozen=True)
class Scale:
    """What the vertical axis shows."""

    quantity: Quantity
    title: str
    log: bool
    factor: float

    def of(self, m: Measurement) -> tuple[float, float] | None:
        """Value and standard error of a measurement in the axis's units; None where it was not measured."""
        if self.quantity == "kl":
            return None if m.kl is None else (max(m.kl, FLOOR), m.kl_sd or 0.0)
        if self.quantity == "metric":
            return m.metric.value * self.factor, (numbers.metric_error(m.metric) or 0.0) * self.factor
        return None if m.loss is None else (m.loss, 0.0)


def scale_of(model: ExplorerModel, quantity: Quantity) -> Scale:
    """The axis of one quantity; model and task must be known."""
    info = model.record.info
    assert info is not None
    if quantity == "kl":
        return Scale("kl", f"KL to the original, nats per {info.unit} (log)", True, 1.0)
    if quantity == "metric":
        unit = ", %" if numbers.is_share(info.metric) else ""
        return Scale("metric", numbers.capital(info.metric) + unit, False, numbers.scale(info.metric))
    return Scale("loss", f"Loss, nats per {info.unit}", False, 1.0)


def predicted(model: ExplorerModel, scale: Scale, loss_increase: float | None, deviation: float | None) -> tuple[float, float] | None:
    """Value and standard error of a prediction in the axis's units, the metric through its fit to the measured plans; None where that is not known."""
    info, baseline = model.record.info, model.record.baseline
    if info is None or loss_increase is None:
        return None
    if scale.quantity == "kl" and info.loss == "kl":
        return max(loss_increase, FLOOR), deviation or 0.0
    if scale.quantity == "metric" and model.fit is not None and (fitted := model.fit.at(loss_increase)) is not None:
        return fitted * scale.factor, model.fit.deviation * scale.factor
    if scale.quantity == "loss" and info.loss == "loss" and baseline is not None and baseline.loss is not None:
        return baseline.loss + loss_increase, deviation or 0.0
    return None


@dataclass(frozen=True)
class Extent:
    """What the horizontal axis shows: what a plan takes."""

    resource: Resource
    title: str
    unit: float

    def of(self, size: float, seconds: float | None) -> float | None:
        """Place of a plan of so many bytes and seconds a token; None where it was not timed."""
        taken = size if self.resource == "bytes" else seconds
        return taken / self.unit if taken else None


def extent_of(model: ExplorerModel, resource: Resource) -> Extent:
    """The axis of one resource; the unit of a latency is that of the largest plan, so that it stays while plans come."""
    if resource == "bytes":
        return Extent("bytes", "Size, MB (log)", 1e6)
    line = model.front_by_seconds
    slow = line is not None and max(line.seconds or (0.0,)) >= 1e-3
    return Extent("seconds", f"Latency of the layers, {'ms' if slow else 'µs'} per token (log)", 1e-3 if slow else 1e-6)


@dataclass(frozen=True)
class Point:
    """A plan in the chart: place on the horizontal axis, value and its standard error, what hovering says, the plan's digest, and whether a refinement found it."""

    x: float
    y: float
    error: float
    hover: str
    digest: str = ""
    text: str = ""
    measured: bool = True
    refined: bool = False


def fitted_range(
    model: ExplorerModel,
    scale: Scale,
    searched: list[Point],
    uniform: list[Point],
    line: list[tuple[float, float, float]],
    here: list[Point],
    refined: list[Point],
) -> list[float]:
    """Fits the front and the original; what lies outside sits on the edge. A refined plan widens it and never narrows it."""
    if scale.log:
        values = [p.y for p in (*searched, *uniform, *here, *refined)]
        alone = not (
            searched or uniform or refined
        )  # until something is measured the line has the chart for itself; later it may leave at the top
        roof = math.inf if alone else 3 * max(values)
        values += [value for _, value, _ in line if value <= roof]
        low, high = log_range(values or [1e-3, 1.0])
        return [max(low, high - 6), high]
    baseline = model.record.baseline
    points = [*searched, *here] or uniform
    values = [p.y - p.error for p in points] + [p.y + p.error for p in points]
    original = scale.of(baseline) if baseline else None
    if original is not None:
        values += [original[0] - 1.2 * original[1], original[0] + 1.2 * original[1]]
    if not values:
        return [0.0, 1.0]
    best = original[0] if original is not None else sorted(values)[len(values) // 2]
    near = sorted(abs(value - best) for value in values)[int(0.8 * (len(values) - 1))]
    values += [p.y - p.error for p in refined] + [p.y + p.error for p in refined]
    reach = max(4 * near, 1e-6 * abs(best) + 1e-9)  # one plan gone wrong does not flatten the rest
    return linear_range(max(min(values), best - reach), min(max(values), best + reach))


def ends(y_range: list[float], scale: Scale) -> tuple[float, float]:
    """Lowest and highest value of an axis."""
    return (10 ** y_range[0], 10 ** y_range[1]) if scale.log else (y_range[0], y_range[1])


def on_edge(value: float, y_range: list[float], scale: Scale) -> tuple[float, str]:
    """Where a point is drawn, and an arrow where it really lies outside."""
    low, high = ends(y_range, scale)
    inset = (y_range[1] - y_range[0]) * 0.03
    if value < low:
        return (10 ** (y_range[0] + inset) if scale.log else low + inset), "↓"
    if value > high:
        return (10 ** (y_range[1] - inset) if scale.log else high - inset), "↑"
    return value, ""


def decade_ticks(y_range: list[float]) -> Json:
    """Ticks of a logarithmic axis without plotly's own exponents."""
    decades = range(math.ceil(y_range[0]), math.floor(y_range[1]) + 1)
    marks = (1, 2, 5) if y_range[1] - y_range[0] < 2 else (1,)
    values = (
        [m * 10.0**d for d in range(math.floor(y_range[0]), math.ceil(y_range[1]) + 1) for m in marks]
        if len(marks) > 1
        else [10.0**d for d in decades]
    )
    inside = [rounded(v) for v in values if y_range[0] <= math.log10(v) <= y_range[1]]
    return {
        "tickvals": inside,
        "ticktext": [
            f"{v:g}"
            if v >= 1e-3
            else "10" + str(round(math.log10(v))).translate(numbers.RAISED)
            if marks == (1,)
            else f"{v:.6f}".rstrip("0")
            for v in inside
        ],
    }
