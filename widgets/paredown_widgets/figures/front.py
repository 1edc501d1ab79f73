"""The Pareto front: size or latency against KL, metric or loss. Predicted as a line with its band, measured as points with their errors."""

from __future__ import annotations

import math
from typing import Any

from paredown.specs import Measurement, Plan
from paredown_widgets import numbers
from paredown_widgets.budget import uniform_plans
from paredown_widgets.figures.front_traces import line_traces, points_trace, stairs, stars, trail
from paredown_widgets.figures.scales import (
    FLOOR,
    Extent,
    Point,
    Quantity,
    Resource,
    Scale,
    decade_ticks,
    ends,
    extent_of,
    fitted_range,
    on_edge,
    scale_of,
)
from paredown_widgets.figures.style import axis, escape, layout, log_range, note, rounded, size_ticks, token
from paredown_widgets.history import found_words
from paredown_widgets.improvements import is_refined
from paredown_widgets.model import ExplorerModel

Json = dict[str, Any]


def options(model: ExplorerModel) -> list[dict[str, str]]:
    """What the vertical axis may show, the quantity that is minimised first."""
    info, baseline = model.record.info, model.record.baseline
    listed: list[dict[str, str]] = []
    if info is None or info.loss == "kl":
        listed.append({"id": "kl", "label": "KL"})
    listed.append({"id": "metric", "label": numbers.capital(info.metric) if info else "Metric"})
    if baseline is None or baseline.loss is not None:
        listed.append({"id": "loss", "label": "Loss"})
    return listed


def x_options(model: ExplorerModel) -> list[dict[str, str]]:
    """What the horizontal axis may show: latency where the candidates were timed."""
    return [{"id": "bytes", "label": "Size"}, *([{"id": "seconds", "label": "Latency"}] if model.front_by_seconds else [])]


def view(model: ExplorerModel, y: str | None = None, x: Resource | None = None) -> Json:
    """State of the `front` trait; with y = ``metric`` that of `accuracy`."""
    wanted = y or model.y
    resource: Resource = "seconds" if (x or model.x) == "seconds" and model.front_by_seconds else "bytes"
    shown = options(model)
    quantity: Any = wanted if wanted in [option["id"] for option in shown] else shown[0]["id"]
    ready = model.record.info is not None and (model.front is not None or model.measurements > 0)
    return {
        "figure": front_figure(model, quantity, resource) if ready else {"data": [], "layout": layout()},
        "count": f"{model.measurements} measured",
        "y": quantity,
        "y_options": shown,
        "x": resource,
        "x_options": x_options(model),
        "refined": any(is_refined(model.record.plans[digest]) for digest in model.measured_plans()),
        "label": _sentence(model, quantity, resource) if ready else "",
        "empty": "" if ready else "The front appears here, plan by plan, while the study runs.",
    }


def front_figure(model: ExplorerModel, quantity: Quantity, resource: Resource = "bytes") -> Json:
    """Plotly JSON of the front.

    Args:
        model: The view model; model and task must be known.
        quantity: What the vertical axis shows.
        resource: What the horizontal axis shows.

    Returns:
        ``data`` and ``layout``. Traces by `uid`: band, front, begun (the measured front before refinement), best (that of all that was measured), trail (from a refined
        plan to the one that replaced it), measured, uniform, refined, link, was, plan. Points of `measured`, `uniform` and `refined` carry the plan's digest as `customdata`.
    """
    scale, extent = scale_of(model, quantity), extent_of(model, resource)
    measured = _measured(model, scale, extent)
    uniform = [point for point in measured.values() if point.text]
    refined = [point for digest, point in measured.items() if is_refined(model.record.plans[digest])]
    searched = [point for digest, point in measured.items() if not point.text and not is_refined(model.record.plans[digest])]
    here, was = _plan_points(model, scale, extent)
    widest = _widest(model, extent, [*measured.values(), *here, *was])
    line = [point for point in _predicted_line(model, scale, extent) if point[0] <= widest]
    y_range = fitted_range(model, scale, searched, uniform, line, here, refined)
    x_range = log_range([p.x for p in measured.values()] + [x for x, *_ in line] + [p.x for p in (*here, *was)] or [1.0, 10.0], 0.05)
    higher = quantity == "metric" and _higher(model)
    replaced = [(model.history.before(digest), point) for digest, point in measured.items()]
    pairs = [(measured[before.digest], point) for before, point in replaced if before is not None and before.digest in measured]
    data = [
        *line_traces(line, y_range, scale),
        *(stairs([*searched, *uniform], "begun", "front before refinement", y_range, scale, {"color": token("measured", 0.5), "width": 1, "dash": "dot"}, higher=higher) if refined else []),
        *stairs(list(measured.values()), "best", "front of the measured plans", y_range, scale, {"color": token("measured", 0.8), "width": 1.2}, higher=higher),
        *trail(pairs, y_range, scale),
        points_trace(searched, "measured", "measured", y_range, scale, {"symbol": "circle", "size": 7, "color": token("measured"), "line": {"width": 1, "color": token("surface")}}),
        points_trace(uniform, "uniform", "uniform", y_range, scale, {"symbol": "diamond", "size": 10, "color": token("surface"), "line": {"width": 1.6, "color": token("uniform")}}),
        *([points_trace(refined, "refined", "refined", y_range, scale, {"symbol": "square", "size": 8, "color": token("measured"), "line": {"width": 1.5, "color": token("ink")}})] if refined else []),
        *stars(here, was, y_range, scale),
    ]  # fmt: skip
    shapes, notes = _furniture(model, scale, extent, here, y_range, x_range)
    ticks = size_ticks(10 ** x_range[0], 10 ** x_range[1])
    x_axis = axis(extent.title, type="log", range=x_range, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks], showgrid=False)
    y_axis = axis(scale.title, type="log" if scale.log else "linear", range=y_range, showline=False, ticks="", nticks=8)
    if scale.log:
        y_axis |= decade_ticks(y_range)
    return {"data": data, "layout": layout(xaxis=x_axis, yaxis=y_axis, shapes=shapes, annotations=notes)}


def _widest(model: ExplorerModel, extent: Extent, points: list[Point]) -> float:
    """Where the chart ends: behind the widest uniform plan and all points. Layers that are kept would stretch it to the original."""
    ruler = [extent.of(plan.bytes, plan.seconds_per_token) for plan in uniform_plans(model).values()]
    return max([*(place for place in ruler if place is not None), *(point.x for point in points)], default=float("inf")) * 1.01


def _hover(model: ExplorerModel, m: Measurement, *name: str, plan: Plan | None = None) -> str:
    lines = [*name[:-1], f"{name[-1]}, measured", numbers.size(m.bytes)]
    if plan is not None and plan.seconds_per_token is not None:
        lines[-1] += f", layers {numbers.latency(plan.seconds_per_token)} per token"
    if m.kl is not None:
        lines.append(f"KL {numbers.quantity(m.kl, m.kl_sd)}")
    predicted = None if plan is None else plan.loss_increase
    if plan is not None and predicted is not None:
        what = "KL" if model.record.info is None or model.record.info.loss == "kl" else "loss increase"
        lines.append(f"{what} {numbers.quantity(predicted, plan.loss_increase_sd)} predicted")
    interval = numbers.metric_interval(m.metric)
    lines.append(f"{m.metric.name} {numbers.metric_text(m.metric)}" + (f" (95 %: {interval})" if interval else ""))
    if m.flips is not None:
        lines.append(f"flipped {numbers.fixed(100 * m.flips, 1)}{numbers.SPACE}%")
    if m.loss is not None:
        lines.append(f"loss {numbers.significant(m.loss)}")
    return "<br>".join(escape(line) for line in lines)


def _measured(model: ExplorerModel, scale: Scale, extent: Extent) -> dict[str, Point]:
    """Plan digest to its point, in the order measured."""
    points: dict[str, Point] = {}
    for digest, m in model.measured_plans().items():
        plan = model.record.plans[digest]
        value, place = scale.of(m), extent.of(m.bytes, _seconds(model, plan))
        if value is None or place is None:
            continue
        bits = model.uniform_bits(digest)
        found = [f"Uniform W{bits}"] if bits else [*found_words(model, plan), f"Plan {digest[:6]}"]
        points[digest] = Point(place, value[0], value[1], _hover(model, m, *found, plan=plan), digest, f"W{bits}" if bits else "")
    return points


def _seconds(model: ExplorerModel, plan: Plan) -> float | None:
    """As the study predicted it; of a plan of before the layers were timed as they are now."""
    if plan.seconds_per_token is not None or model.front_by_seconds is None:
        return plan.seconds_per_token
    prediction = model.predict(plan.schemes)
    return prediction.seconds_per_token if prediction else None


def _predicted_line(model: ExplorerModel, scale: Scale, extent: Extent) -> list[tuple[float, float, float]]:
    """(place, value, standard error) along the predicted front; the metric through its fit to the measured plans."""
    front = model.front if extent.resource == "bytes" else model.front_by_seconds
    info, baseline = model.record.info, model.record.baseline
    if front is None or info is None:
        return []
    taken = front.bytes if extent.resource == "bytes" else front.seconds
    rows = [(amount / extent.unit, *row) for amount, *row in zip(taken, front.loss_increase, front.loss_increase_sd, strict=True)]
    if scale.quantity == "kl" and info.loss == "kl":
        return [(place, max(loss, FLOOR), deviation) for place, loss, deviation in rows]
    if scale.quantity == "loss" and info.loss == "loss" and baseline is not None and baseline.loss is not None:
        return [(place, baseline.loss + loss, deviation) for place, loss, deviation in rows]
    if scale.quantity == "metric" and info.loss == "kl" and model.fit is not None:
        fitted = [(place, model.fit.at(loss)) for place, loss, _ in rows]
        return [(place, value * scale.factor, model.fit.deviation * scale.factor) for place, value in fitted if value is not None]
    return []


def _plan_points(model: ExplorerModel, scale: Scale, extent: Extent) -> tuple[list[Point], list[Point]]:
    """The user's plan: where it is now, and where it was when it was measured, if it was edited since."""
    prediction, measured, before, info, baseline = (
        model.predict(),
        model.measurement(),
        model.last_measurement(),
        model.record.info,
        model.record.baseline,
    )
    here: list[Point] = []
    now = extent.of(prediction.bytes, prediction.seconds_per_token) if prediction else None
    if measured is not None and extent.resource == "bytes":
        now = extent.of(measured.bytes, None)
    if measured is not None and now is not None and (value := scale.of(measured)) is not None:
        return [Point(now, *value, _hover(model, measured, "This plan", plan=model.plan))], []
    if prediction is not None and now is not None and info is not None:
        value = None
        if scale.quantity == "kl" and info.loss == "kl":
            value = (max(prediction.loss_increase, FLOOR), prediction.loss_increase_sd)
        elif scale.quantity == "metric" and model.fit is not None and (fitted := model.fit.at(prediction.loss_increase)) is not None:
            value = (fitted * scale.factor, model.fit.deviation * scale.factor)
        elif scale.quantity == "loss" and info.loss == "loss" and baseline is not None and baseline.loss is not None:
            value = (baseline.loss + prediction.loss_increase, prediction.loss_increase_sd)
        if value is not None:
            hover = f"This plan, predicted<br>{numbers.size(prediction.bytes)}<br>{numbers.quantity(*value)}"
            here = [Point(now, *value, hover, measured=False)]
    was = []
    then = None if before is None else extent.of(before.bytes, _seconds(model, model.record.plans[before.plan_digest]))
    if before is not None and then is not None and (value := scale.of(before)) is not None:
        was = [Point(then, *value, _hover(model, before, "This plan before the edits"))]
    return here, was


def _higher(model: ExplorerModel) -> bool:
    return model.record.info is not None and model.record.info.higher_is_better


def _furniture(
    model: ExplorerModel, scale: Scale, extent: Extent, here: list[Point], y_range: list[float], x_range: list[float]
) -> tuple[list[Json], list[Json]]:
    """Budget, the foot of the plan's star, and the original with its band."""
    shapes: list[Json] = []
    notes: list[Json] = []
    low, _ = ends(y_range, scale)
    for point in here:
        shapes.append(
            {
                "type": "line",
                "x0": point.x,
                "x1": point.x,
                "y0": low,
                "y1": on_edge(point.y, y_range, scale)[0],
                "layer": "below",
                "line": {"color": token("plan"), "width": 1, "dash": "2px,2px"},
            }
        )
    if model.budget is not None and extent.resource == "bytes" and x_range[0] <= math.log10(model.budget / 1e6) <= x_range[1]:
        at = rounded(model.budget / 1e6)
        shapes.append(
            {
                "type": "line",
                "x0": at,
                "x1": at,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "layer": "below",
                "line": {"color": token("ink"), "width": 1},
            }
        )
        notes.append(
            note(
                f"budget {model.budget / 1e6:.2f}",
                "ink",
                x=math.log10(at),
                y=1,
                yref="paper",
                yanchor="top",
                xanchor="left",
                xshift=3,
                yshift=3,
            )
        )
    baseline = model.record.baseline
    original = scale.of(baseline) if baseline and scale.quantity != "kl" else None
    if original is not None:
        value, error = original
        shapes.append(
            {
                "type": "rect",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": value - error,
                "y1": value + error,
                "fillcolor": token("base-band"),
                "line": {"width": 0},
                "layer": "below",
            }
        )
        shapes.append(
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": value,
                "y1": value,
                "layer": "below",
                "line": {"color": token("base"), "width": 1, "dash": "4px,3px"},
            }
        )
        notes.append(
            note(f"original {numbers.significant(value)}", "base", xref="paper", x=0.005, xanchor="left", y=value, yanchor="bottom")
        )
    elif scale.quantity == "kl":
        notes.append(note("original: 0 ↓", "base", xref="paper", x=0.005, xanchor="left", y=0, yref="paper", yanchor="bottom"))
    return shapes, notes


def _sentence(model: ExplorerModel, quantity: Quantity, resource: Resource) -> str:
    """The chart in one sentence, for those who can't see it."""
    what = {"kl": "KL to the original", "metric": "task metric", "loss": "loss"}[quantity]
    prediction = model.predict()
    plan = (
        f" This plan: {numbers.size(prediction.bytes)}, predicted loss increase {numbers.significant(prediction.loss_increase)} nats."
        if prediction
        else ""
    )
    count = sum(is_refined(model.record.plans[digest]) for digest in model.measured_plans())
    refined = f", {count} of them refined" if count else ""
    return f"{numbers.capital(what)} against {'size' if resource == 'bytes' else 'latency'}, {model.measurements} plans measured{refined}.{plan}"
