"""The Pareto front: size against KL, metric or loss. Predicted as a line with its band, measured as points with their errors."""

from __future__ import annotations

import math
from typing import Any

from paredown.search import measured_front
from paredown.specs import Measurement
from paredown_widgets import numbers
from paredown_widgets.budget import uniform_sizes
from paredown_widgets.figures.scales import FLOOR, Point, Quantity, Scale, decade_ticks, ends, fitted_range, on_edge, scale_of
from paredown_widgets.figures.style import axis, escape, layout, log_range, note, rounded, size_ticks, token
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


def view(model: ExplorerModel, y: str | None = None) -> Json:
    """State of the `front` trait; with y = ``metric`` that of `accuracy`."""
    wanted = y or model.y
    shown = options(model)
    quantity: Any = wanted if wanted in [option["id"] for option in shown] else shown[0]["id"]
    ready = model.record.info is not None and (model.front is not None or model.measurements > 0)
    return {
        "figure": front_figure(model, quantity) if ready else {"data": [], "layout": layout()},
        "count": f"{model.measurements} measured",
        "y": quantity,
        "y_options": shown,
        "label": _sentence(model, quantity) if ready else "",
        "empty": "" if ready else "The front appears here, plan by plan, while the study runs.",
    }


def front_figure(model: ExplorerModel, quantity: Quantity) -> Json:
    """Plotly JSON of the front.

    Args:
        model: The view model; model and task must be known.
        quantity: What the vertical axis shows.

    Returns:
        ``data`` and ``layout``. Traces by `uid`: band, front, best (the front of what was measured), measured, uniform, link, was, plan. Points of `measured` and
        `uniform` carry the plan's digest as `customdata`.
    """
    scale = scale_of(model, quantity)
    searched, uniform = _measured(model, scale)
    here, was = _plan_points(model, scale)
    widest = _widest(model, [*searched, *uniform, *here, *was])
    line = [point for point in _predicted_line(model, scale) if point[0] <= widest]
    y_range = fitted_range(model, scale, searched, uniform, line, here)
    x_range = log_range([p.x for p in (*searched, *uniform)] + [x for x, *_ in line] + [p.x for p in (*here, *was)] or [1.0, 10.0], 0.05)
    data = [
        *_line_traces(line, y_range, scale),
        *_measured_front([*searched, *uniform], y_range, scale, higher=quantity == "metric" and _higher(model)),
        _points(searched, "measured", "measured", y_range, scale, {"symbol": "circle", "size": 7, "color": token("measured"), "line": {"width": 1, "color": token("surface")}}),
        _points(uniform, "uniform", "uniform", y_range, scale, {"symbol": "diamond", "size": 10, "color": token("surface"), "line": {"width": 1.6, "color": token("uniform")}}),
        *_stars(here, was, y_range, scale),
    ]  # fmt: skip
    shapes, notes = _furniture(model, scale, here, y_range, x_range)
    ticks = size_ticks(10 ** x_range[0], 10 ** x_range[1])
    x_axis = axis("Size, MB (log)", type="log", range=x_range, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks], showgrid=False)
    y_axis = axis(scale.title, type="log" if scale.log else "linear", range=y_range, showline=False, ticks="", nticks=8)
    if scale.log:
        y_axis |= decade_ticks(y_range)
    return {"data": data, "layout": layout(xaxis=x_axis, yaxis=y_axis, shapes=shapes, annotations=notes)}


def _widest(model: ExplorerModel, points: list[Point]) -> float:
    """Where the chart ends, MB: behind the widest uniform plan and all points. Layers that are kept would stretch it to the original."""
    sizes = uniform_sizes(model).values()
    return max([*(size / 1e6 for size in sizes), *(point.x for point in points)], default=float("inf")) * 1.01


def _hover(model: ExplorerModel, m: Measurement, name: str) -> str:
    lines = [f"{name}, measured", numbers.size(m.bytes)]
    if m.kl is not None:
        lines.append(f"KL {numbers.quantity(m.kl, m.kl_sd)}")
    interval = numbers.metric_interval(m.metric)
    lines.append(f"{m.metric.name} {numbers.metric_text(m.metric)}" + (f" (95 %: {interval})" if interval else ""))
    if m.flips is not None:
        lines.append(f"flipped {numbers.fixed(100 * m.flips, 1)}{numbers.SPACE}%")
    if m.loss is not None:
        lines.append(f"loss {numbers.significant(m.loss)}")
    return "<br>".join(escape(line) for line in lines)


def _measured(model: ExplorerModel, scale: Scale) -> tuple[list[Point], list[Point]]:
    searched: list[Point] = []
    uniform: list[Point] = []
    for digest, m in model.measured_plans().items():
        value = scale.of(m)
        if value is None:
            continue
        bits = model.uniform_bits(digest)
        plan = model.record.plans[digest]
        name = f"Uniform W{bits}" if bits else f"Plan {digest[:6]} ({plan.found_by})"
        point = Point(m.bytes / 1e6, value[0], value[1], _hover(model, m, name), digest, f"W{bits}" if bits else "")
        (uniform if bits else searched).append(point)
    return searched, uniform


def _predicted_line(model: ExplorerModel, scale: Scale) -> list[tuple[float, float, float]]:
    """(MB, value, standard error) along the predicted front; the metric through its fit to the measured plans."""
    front, info, baseline = model.front, model.record.info, model.record.baseline
    if front is None or info is None:
        return []
    rows = list(zip(front.bytes, front.loss_increase, front.loss_increase_sd, strict=True))
    if scale.quantity == "kl" and info.loss == "kl":
        return [(size / 1e6, max(loss, FLOOR), deviation) for size, loss, deviation in rows]
    if scale.quantity == "loss" and info.loss == "loss" and baseline is not None and baseline.loss is not None:
        return [(size / 1e6, baseline.loss + loss, deviation) for size, loss, deviation in rows]
    if scale.quantity == "metric" and info.loss == "kl" and model.fit is not None:
        fitted = [(size / 1e6, model.fit.at(loss)) for size, loss, _ in rows]
        return [(size, value * scale.factor, model.fit.deviation * scale.factor) for size, value in fitted if value is not None]
    return []


def _plan_points(model: ExplorerModel, scale: Scale) -> tuple[list[Point], list[Point]]:
    """The user's plan: where it is now, and where it was when it was measured, if it was edited since."""
    prediction, measured, before, info, baseline = (
        model.predict(),
        model.measurement(),
        model.last_measurement(),
        model.record.info,
        model.record.baseline,
    )
    here: list[Point] = []
    if measured is not None and (value := scale.of(measured)) is not None:
        return [Point(measured.bytes / 1e6, *value, _hover(model, measured, "This plan"))], []
    if prediction is not None and info is not None:
        value = None
        if scale.quantity == "kl" and info.loss == "kl":
            value = (max(prediction.loss_increase, FLOOR), prediction.loss_increase_sd)
        elif scale.quantity == "metric" and model.fit is not None and (fitted := model.fit.at(prediction.loss_increase)) is not None:
            value = (fitted * scale.factor, model.fit.deviation * scale.factor)
        elif scale.quantity == "loss" and info.loss == "loss" and baseline is not None and baseline.loss is not None:
            value = (baseline.loss + prediction.loss_increase, prediction.loss_increase_sd)
        if value is not None:
            hover = f"This plan, predicted<br>{numbers.size(prediction.bytes)}<br>{numbers.quantity(*value)}"
            here = [Point(prediction.bytes / 1e6, *value, hover, measured=False)]
    was = []
    if before is not None and (value := scale.of(before)) is not None:
        was = [Point(before.bytes / 1e6, *value, _hover(model, before, "This plan before the edits"))]
    return here, was


def _error_bars(points: list[Point], y_range: list[float], scale: Scale, ink: str, alpha: float) -> Json:
    low, _ = ends(y_range, scale)
    outside = [bool(on_edge(p.y, y_range, scale)[1]) for p in points]
    return {
        "type": "data", "symmetric": False, "color": token(ink, alpha), "thickness": 1, "width": 0,
        "array": [0.0 if out else rounded(p.error) for p, out in zip(points, outside, strict=True)],
        "arrayminus": [0.0 if out else rounded(min(p.error, (p.y - low) * 0.999) if scale.log else p.error) for p, out in zip(points, outside, strict=True)],
    }  # fmt: skip


def _points(points: list[Point], uid: str, name: str, y_range: list[float], scale: Scale, marker: Json) -> Json:
    placed = [on_edge(p.y, y_range, scale) for p in points]
    texts = [
        p.text + (f" {numbers.significant(p.y)} {arrow}" if arrow and p.text else "") for p, (_, arrow) in zip(points, placed, strict=True)
    ]
    labelled = uid == "uniform"
    if not labelled:
        marker = {**marker, "symbol": [{"↓": "triangle-down", "↑": "triangle-up"}.get(arrow, marker["symbol"]) for _, arrow in placed]}
    trace: Json = {
        "type": "scatter", "uid": uid, "name": name, "meta": {"clickable": True}, "mode": "markers+text" if labelled else "markers",
        "x": [rounded(p.x) for p in points], "y": [rounded(y) for y, _ in placed], "customdata": [p.digest for p in points],
        "hovertext": [p.hover for p in points], "hoverinfo": "text", "marker": marker, "cliponaxis": False,
        "error_y": _error_bars(points, y_range, scale, uid, 0.45),
    }  # fmt: skip
    if labelled:
        trace |= {
            "text": texts,
            "textposition": ["top right" if scale.log or arrow == "↓" else "bottom left" for _, arrow in placed],
            "textfont": {"size": 11, "color": token("uniform")},
        }
    return trace


def _line_traces(line: list[tuple[float, float, float]], y_range: list[float], scale: Scale) -> list[Json]:
    if not line:
        return []
    low, _ = ends(y_range, scale)
    up = [value + deviation for _, value, deviation in line]
    down = [max(value - deviation, low * 0.5) if scale.log else value - deviation for _, value, deviation in line]
    xs = [rounded(x) for x, *_ in line]
    return [
        {
            "type": "scatter", "uid": "band", "name": "one standard error", "mode": "lines", "x": xs + xs[::-1],
            "y": [rounded(v) for v in up + down[::-1]], "fill": "toself", "fillcolor": token("band"), "line": {"width": 0, "color": token("band")}, "hoverinfo": "skip",
        },
        {
            "type": "scatter", "uid": "front", "name": "predicted front", "mode": "lines", "x": xs, "y": [rounded(v) for _, v, _ in line],
            "line": {"color": token("predicted"), "width": 1.4}, "hoverinfo": "skip",
        },
    ]  # fmt: skip


def _higher(model: ExplorerModel) -> bool:
    return model.record.info is not None and model.record.info.higher_is_better


def _measured_front(points: list[Point], y_range: list[float], scale: Scale, *, higher: bool) -> list[Json]:
    """The answer: at each size the best plan that was measured, as stairs through the plans that no other beats in both."""
    by_digest = {p.digest: p for p in points}
    best = [by_digest[digest] for digest in measured_front({p.digest: (p.x, -p.y if higher else p.y) for p in points})]
    if len(best) < 2:
        return []
    return [
        {
            "type": "scatter", "uid": "best", "name": "front of the measured plans", "mode": "lines", "x": [rounded(p.x) for p in best],
            "y": [rounded(on_edge(p.y, y_range, scale)[0]) for p in best],
            "line": {"color": token("measured", 0.7), "width": 1.2, "shape": "hv"}, "hoverinfo": "skip",
        }
    ]  # fmt: skip


def _stars(here: list[Point], was: list[Point], y_range: list[float], scale: Scale) -> list[Json]:
    traces: list[Json] = []

    def star(uid: str, point: Point, filled: bool, opacity: float) -> Json:
        return {
            "type": "scatter", "uid": uid, "name": "this plan, measured" if filled else "this plan, predicted", "mode": "markers", "opacity": opacity,
            "x": [rounded(point.x)], "y": [rounded(on_edge(point.y, y_range, scale)[0])], "hovertext": [point.hover], "hoverinfo": "text", "cliponaxis": False,
            "error_y": _error_bars([point], y_range, scale, "plan", 1.0),
            "marker": {"symbol": "star", "size": 15, "color": token("plan" if filled else "surface"), "line": {"width": 1.7, "color": token("plan")}},
        }  # fmt: skip

    if here and was:
        traces.append(
            {
                "type": "scatter", "uid": "link", "mode": "lines", "x": [rounded(p.x) for p in (*was, *here)], "hoverinfo": "skip",
                "y": [rounded(on_edge(p.y, y_range, scale)[0]) for p in (*was, *here)], "line": {"color": token("plan"), "width": 1, "dash": "dot"},
            }
        )  # fmt: skip
    traces += [star("was", point, filled=True, opacity=0.5) for point in was]
    traces += [star("plan", point, filled=point.measured, opacity=1.0) for point in here]
    return traces


def _furniture(
    model: ExplorerModel, scale: Scale, here: list[Point], y_range: list[float], x_range: list[float]
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
    if model.budget is not None and x_range[0] <= math.log10(model.budget / 1e6) <= x_range[1]:
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


def _sentence(model: ExplorerModel, quantity: Quantity) -> str:
    """The chart in one sentence, for those who can't see it."""
    what = {"kl": "KL to the original", "metric": "task metric", "loss": "loss"}[quantity]
    prediction = model.predict()
    plan = (
        f" This plan: {numbers.size(prediction.bytes)}, predicted loss increase {numbers.significant(prediction.loss_increase)} nats."
        if prediction
        else ""
    )
    return f"{numbers.capital(what)} against size, {model.measurements} plans measured.{plan}"
