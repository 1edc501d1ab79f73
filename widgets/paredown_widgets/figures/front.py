"""The Pareto front: size or latency against KL, metric or loss. Predicted as a line with its band, measured as points with their errors.

It is made of two parts: the ground, which is what the study knows and changes with each measurement, and the user's plan on it, which changes with
each edit. A browser gets them apart, so that an edit need not send thousands of points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from paredown.specs import Measurement, Plan
from paredown_widgets import numbers
from paredown_widgets.budget import uniform_plans
from paredown_widgets.figures.front_compared import compared_traces
from paredown_widgets.figures.front_traces import line_traces, points_trace, stairs, stars, thinned, trail
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
    predicted,
    scale_of,
)
from paredown_widgets.figures.style import axis, escape, layout, log_range, note, rounded, size_ticks, token
from paredown_widgets.filling import limit
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
    """The whole front: the ground's state with the plan drawn on it."""
    below, plan = ground(model, y, x), plan_on_it(model, y, x)
    figure = below["figure"]
    layout_ = {**figure["layout"], "shapes": plan["shapes"], "annotations": plan["annotations"]}
    return {**below, "figure": {"data": [*figure["data"], *plan["data"]], "layout": layout_}, "label": plan["label"]}


def ground(model: ExplorerModel, y: str | None = None, x: Resource | None = None) -> Json:
    """State of the `front` trait: everything but the user's plan; made anew only when something of it changed."""
    sight = _sight(model, y, x)
    if sight is None:
        shown = options(model)
        return {
            "figure": {"data": [], "layout": layout()}, "count": f"{model.measurements} measured", "y": shown[0]["id"], "y_options": shown, "x": "bytes",
            "x_options": x_options(model), "refined": False, "empty": "The front appears here, plan by plan, while the study runs.",
        }  # fmt: skip
    key = (
        model.measurement_events,
        model.priced,
        model.history.tried,
        len(model.history.improvements),
        id(model.record.baseline),
        sight.y_range,
        sight.x_range,
    )
    name = f"front {sight.known.scale.quantity} {sight.known.extent.resource}"
    return model.kept(name, key, lambda: _ground(model, sight))


def plan_on_it(model: ExplorerModel, y: str | None = None, x: Resource | None = None) -> Json:
    """State of the `front_plan` trait: traces, shapes and notes of the user's plan, those it is compared with and the budget, and the chart in one sentence."""
    sight = _sight(model, y, x)
    if sight is None:
        return {"data": [], "shapes": [], "annotations": [], "label": "", "compared": ""}
    compared = compared_traces(model, sight.known.scale, sight.known.extent, sight.y_range, sight.x_range)
    shapes, notes = _furniture(model, sight.known.scale, sight.known.extent, sight.here, sight.y_range, sight.x_range)
    return {
        "data": compared + stars(sight.here, sight.was, sight.y_range, sight.known.scale),
        "shapes": shapes,
        "annotations": notes,
        "label": _sentence(model, sight),
        "compared": "".join(trace["uid"][-1] for trace in compared),
    }


def front_figure(model: ExplorerModel, quantity: Quantity, resource: Resource = "bytes") -> Json:
    """Plotly JSON of the front.

    Args:
        model: The view model; model and task must be known.
        quantity: What the vertical axis shows.
        resource: What the horizontal axis shows.

    Returns:
        ``data`` and ``layout``. Traces by `uid`: band, front, begun (the measured front before refinement), best (that of all that was measured), trail (from a refined
        plan to the one that replaced it), measured, uniform, refined, compared B to D, link, was, plan. Points of `measured`, `uniform` and `refined` carry the plan's digest as `customdata`.
    """
    return view(model, quantity, resource)["figure"]


@dataclass(frozen=True)
class _Sight:
    """Points and axes; `line` is that of `known`, cut off where the chart ends."""

    known: _Known
    line: list[tuple[float, float, float]]
    here: list[Point]
    was: list[Point]
    y_range: list[float]
    x_range: list[float]


def _sight(model: ExplorerModel, y: str | None, x: Resource | None) -> _Sight | None:
    """What is to be drawn, and where it begins and ends; None until something is known. Both parts of the chart ask for it."""
    if model.record.info is None or (model.front is None and not model.measurements):
        return None
    wanted = y or model.y
    shown = [option["id"] for option in options(model)]
    quantity: Any = wanted if wanted in shown else shown[0]
    resource: Resource = "seconds" if (x or model.x) == "seconds" and model.front_by_seconds else "bytes"
    key = (quantity, resource, model.record.sequence, model.priced, model.editor.schemes, model.reference)
    return model.kept("sight", key, lambda: _looked(model, quantity, resource))


@dataclass(frozen=True)
class _Known:
    """What of the sight no edit of the plan changes; `widest` is where the chart ends without the plan."""

    scale: Scale
    extent: Extent
    measured: dict[str, Point]
    line: list[tuple[float, float, float]]
    searched: list[Point]
    uniform: list[Point]
    refined: list[Point]
    widest: float
    measured_x: tuple[float, ...]


def _known(model: ExplorerModel, quantity: Quantity, resource: Resource) -> _Known:
    scale, extent = scale_of(model, quantity), extent_of(model, resource)
    measured = _measured(model, scale, extent)
    points = list(measured.values())
    searched = [point for point in points if not point.text and not point.refined]
    uniform, refined = [point for point in points if point.text], [point for point in points if point.refined]
    ends = (min(point.x for point in points), max(point.x for point in points)) if points else ()
    return _Known(
        scale, extent, measured, _predicted_line(model, scale, extent), searched, uniform, refined, _widest(model, extent, points), ends
    )


def _looked(model: ExplorerModel, quantity: Quantity, resource: Resource) -> _Sight:
    name, key = f"known {quantity} {resource}", (model.record.sequence, model.priced)
    known: _Known = model.kept(name, key, lambda: _known(model, quantity, resource))
    scale, extent = known.scale, known.extent
    here, was = _plan_points(model, scale, extent)
    own = [point.x for point in (*here, *was)]
    widest = max([known.widest, *(1.01 * x for x in own)])
    line = [point for point in known.line if point[0] <= widest]
    places = [*own, *(x for x, *_ in line), *known.measured_x]
    y_range = fitted_range(model, scale, known.searched, known.uniform, line, here, known.refined)
    x_range = log_range(places or [1.0, 10.0], 0.05)
    return _Sight(known, line, here, was, y_range, x_range)


def _ground(model: ExplorerModel, sight: _Sight) -> Json:
    known, y_range, x_range = sight.known, sight.y_range, sight.x_range
    scale, extent, searched, uniform, refined = known.scale, known.extent, known.searched, known.uniform, known.refined
    higher = scale.quantity == "metric" and _higher(model)
    best = stairs(list(known.measured.values()), "best", "front of the measured plans", y_range, scale, {"color": token("measured", 0.8), "width": 1.2}, higher=higher)  # fmt: skip
    drawn = thinned(searched, best, y_range, x_range, scale)
    replaced = [(model.history.before(point.digest), point) for point in (*drawn, *refined)]
    pairs = [(known.measured[before.digest], point) for before, point in replaced if before is not None and before.digest in known.measured]
    drawn, uniform, refined = (_described(model, points) for points in (drawn, uniform, refined))
    data = [
        *line_traces(sight.line, y_range, scale),
        *(stairs([*searched, *uniform], "begun", "front before refinement", y_range, scale, {"color": token("measured", 0.5), "width": 1, "dash": "dot"}, higher=higher) if refined else []),
        *best,
        *trail(pairs, y_range, scale),
        points_trace(drawn, "measured", "measured", y_range, scale, {"symbol": "circle", "size": 7, "color": token("measured"), "line": {"width": 1, "color": token("surface")}}),
        points_trace(uniform, "uniform", "uniform", y_range, scale, {"symbol": "diamond", "size": 10, "color": token("surface"), "line": {"width": 1.6, "color": token("uniform")}}),
        *([points_trace(refined, "refined", "refined", y_range, scale, {"symbol": "square", "size": 8, "color": token("measured"), "line": {"width": 1.5, "color": token("ink")}})] if refined else []),
    ]  # fmt: skip
    ticks = size_ticks(10 ** x_range[0], 10 ** x_range[1])
    x_axis = axis(extent.title, type="log", range=x_range, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks], showgrid=False)
    y_axis = axis(scale.title, type="log" if scale.log else "linear", range=y_range, showline=False, ticks="", nticks=8)
    if scale.log:
        y_axis |= decade_ticks(y_range)
    left_out = len(searched) - len(drawn)
    return {
        "figure": {"data": data, "layout": layout(xaxis=x_axis, yaxis=y_axis)},
        "count": f"{model.measurements:,} measured" + (f", {model.measurements - left_out:,} drawn" if left_out else ""),
        "y": scale.quantity,
        "y_options": options(model),
        "x": extent.resource,
        "x_options": x_options(model),
        "refined": bool(refined),
        "empty": "",
    }


def _widest(model: ExplorerModel, extent: Extent, points: list[Point]) -> float:
    """Where the chart ends: behind the widest uniform plan and all points. Layers that are kept would stretch it to the original."""
    ruler = [extent.of(plan.bytes, plan.seconds_per_token) for plan in uniform_plans(model).values()]
    return max([*(place for place in ruler if place is not None), *(point.x for point in points)], default=float("inf")) * 1.01


def _hover(model: ExplorerModel, m: Measurement, *name: str, plan: Plan | None = None) -> str:
    lines = [*name[:-1], f"{name[-1]}, measured", numbers.size(m.bytes)]
    if plan is not None and plan.seconds_per_token is not None:
        lines[-1] += f", layers {numbers.latency(plan.seconds_per_token, plan.seconds_per_token_sd)} per token"
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
    """Plan digest to its point, in the order measured; what hovering says is left out. Each is made once for a measurement."""
    name, key = f"points {scale.quantity} {extent.resource}", (model.priced, id(model.record.baseline))
    points: dict[str, tuple[Measurement, Point | None]] = model.kept(name, key, dict)
    for digest, m in model.measured_plans().items():
        if digest not in points or points[digest][0] is not m:
            value, place = scale.of(m), extent.of(m.bytes, _seconds(model, model.record.plans[digest]))
            bits = model.uniform_bits(digest)
            refined = is_refined(model.record.plans[digest])
            point = (
                None if value is None or place is None else Point(place, *value, "", digest, f"W{bits}" if bits else "", refined=refined)
            )
            points[digest] = m, point
    return {digest: point for digest, (_, point) in points.items() if point is not None}


def _described(model: ExplorerModel, points: list[Point]) -> list[Point]:
    """The same with what hovering says."""
    described = []
    for point in points:
        plan = model.record.plans[point.digest]
        found = [f"Uniform {point.text}"] if point.text else [*found_words(model, plan, point.digest), f"Plan {point.digest[:6]}"]
        described.append(replace(point, hover=_hover(model, model.record.measurements[point.digest], *found, plan=plan)))
    return described


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
    prediction, measured, before = model.predict(), model.measurement(), model.last_measurement()
    here: list[Point] = []
    now = extent.of(prediction.bytes, prediction.seconds_per_token) if prediction else None
    if measured is not None and extent.resource == "bytes":
        now = extent.of(measured.bytes, None)
    if measured is not None and now is not None and (value := scale.of(measured)) is not None:
        return [Point(now, *value, _hover(model, measured, "This plan", plan=model.plan))], []
    if prediction is not None and now is not None:
        value = predicted(model, scale, prediction.loss_increase, prediction.loss_increase_sd)
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
    limited, budget = limit(model)
    if budget is not None and limited == extent.resource and x_range[0] <= math.log10(budget / extent.unit) <= x_range[1]:
        at = rounded(budget / extent.unit)
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
                f"budget {f'{at:.2f}' if limited == 'bytes' else numbers.significant(at)}",
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


def _sentence(model: ExplorerModel, sight: _Sight) -> str:
    """The chart in one sentence, for those who can't see it."""
    what = {"kl": "KL to the original", "metric": "task metric", "loss": "loss"}[sight.known.scale.quantity]
    prediction = model.predict()
    plan = (
        f" This plan: {numbers.size(prediction.bytes)}, predicted loss increase {numbers.significant(prediction.loss_increase)} nats."
        if prediction
        else ""
    )
    refined = f", {len(sight.known.refined)} of them refined" if sight.known.refined else ""
    others = [f"{entry.letter} {entry.name}, {numbers.size(entry.plan.bytes)}" for entry in model.comparison.entries(model)[1:]]
    beside = f" Compared with {'; '.join(others)}." if others else ""
    return f"{numbers.capital(what)} against {'size' if sight.known.extent.resource == 'bytes' else 'latency'}, {model.measurements} plans measured{refined}.{plan}{beside}"
