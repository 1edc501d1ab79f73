"""Traces of the Pareto front: points with their errors, the predicted line with its band, stairs, stars."""

from __future__ import annotations

import math
from typing import Any

from paredown.search import measured_front
from paredown_widgets import numbers
from paredown_widgets.figures.scales import Point, Scale, ends, on_edge
from paredown_widgets.figures.style import rounded, token

Json = dict[str, Any]


def error_bars(points: list[Point], y_range: list[float], scale: Scale, ink: str, alpha: float) -> Json:
    """One standard error up and down; none at points that are drawn on the edge."""
    low, _ = ends(y_range, scale)
    outside = [bool(on_edge(p.y, y_range, scale)[1]) for p in points]
    return {
        "type": "data", "symmetric": False, "color": token(ink, alpha), "thickness": 1, "width": 0,
        "array": [0.0 if out else rounded(p.error) for p, out in zip(points, outside, strict=True)],
        "arrayminus": [0.0 if out else rounded(min(p.error, (p.y - low) * 0.999) if scale.log else p.error) for p, out in zip(points, outside, strict=True)],
    }  # fmt: skip


def points_trace(points: list[Point], uid: str, name: str, y_range: list[float], scale: Scale, marker: Json) -> Json:
    """Plans as points that can be clicked; those outside of the range sit on its edge as triangles."""
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
        "error_y": error_bars(points, y_range, scale, "uniform" if labelled else "measured", 0.45),
    }  # fmt: skip
    if labelled:
        trace |= {
            "text": texts,
            "textposition": ["top right" if scale.log or arrow == "↓" else "bottom left" for _, arrow in placed],
            "textfont": {"size": 11, "color": token("uniform")},
        }
    return trace


MOST = 600
"""Measured plans that are drawn as points: more cover each other, and slow the browser."""

_CELLS = (36, 16)
"""Across and up; of many plans the first in each cell of the chart is drawn, so that points stay where they are while others come."""


def thinned(points: list[Point], best: list[Json], y_range: list[float], x_range: list[float], scale: Scale) -> list[Point]:
    """Plans to draw: all of few; of many those of the measured front, and the first of each cell of a grid over the chart."""
    if len(points) <= MOST:
        return points
    on_front = {place for stairs_ in best for place in zip(stairs_["x"], stairs_["y"], strict=True)}
    across, up = _CELLS
    taken: set[tuple[int, int]] = set()
    shown = []
    for point in points:
        y = on_edge(point.y, y_range, scale)[0]
        share = ((math.log10(y) if scale.log else y) - y_range[0]) / (y_range[1] - y_range[0])
        cell = (int(across * (math.log10(point.x) - x_range[0]) / (x_range[1] - x_range[0])), int(up * share))
        if cell not in taken or (rounded(point.x), rounded(y)) in on_front:
            taken.add(cell)
            shown.append(point)
    return shown


def line_traces(line: list[tuple[float, float, float]], y_range: list[float], scale: Scale) -> list[Json]:
    """The predicted front with a band of one standard error."""
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


def stairs(points: list[Point], uid: str, name: str, y_range: list[float], scale: Scale, line: Json, *, higher: bool) -> list[Json]:
    """At each size the best of these plans, as stairs through those that no other beats in both."""
    by_digest = {p.digest: p for p in points}
    best = [by_digest[digest] for digest in measured_front({p.digest: (p.x, -p.y if higher else p.y) for p in points})]
    if len(best) < 2:
        return []
    return [
        {
            "type": "scatter", "uid": uid, "name": name, "mode": "lines", "x": [rounded(p.x) for p in best],
            "y": [rounded(on_edge(p.y, y_range, scale)[0]) for p in best],
            "line": {"shape": "hv", **line}, "hoverinfo": "skip",
        }
    ]  # fmt: skip


def stars(here: list[Point], was: list[Point], y_range: list[float], scale: Scale) -> list[Json]:
    """The user's plan where it is now, and where it was when it was measured."""
    traces: list[Json] = []

    def star(uid: str, point: Point, filled: bool, opacity: float) -> Json:
        return {
            "type": "scatter", "uid": uid, "name": "this plan, measured" if filled else "this plan, predicted", "mode": "markers", "opacity": opacity,
            "x": [rounded(point.x)], "y": [rounded(on_edge(point.y, y_range, scale)[0])], "hovertext": [point.hover], "hoverinfo": "text", "cliponaxis": False,
            "error_y": error_bars([point], y_range, scale, "plan", 1.0),
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


def trail(pairs: list[tuple[Point, Point]], y_range: list[float], scale: Scale) -> list[Json]:
    """From each plan to the one that replaced it at its budget."""
    if not pairs:
        return []
    xs = [each for before, after in pairs for each in (rounded(before.x), rounded(after.x), None)]
    ys = [each for pair in pairs for each in (*(rounded(on_edge(point.y, y_range, scale)[0]) for point in pair), None)]
    return [
        {
            "type": "scatter", "uid": "trail", "name": "replaced by", "mode": "lines", "x": xs, "y": ys, "hoverinfo": "skip",
            "line": {"color": token("ink3", 0.8), "width": 1, "dash": "dot"},
        }
    ]  # fmt: skip
