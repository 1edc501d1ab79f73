"""All layers' spectra as ridges, laid out as the plan: blocks down, roles across, one axis of eigenvalues shared by all columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paredown.record import MatrixEstimates
from paredown_widgets import numbers
from paredown_widgets.curvature import top, trace_words
from paredown_widgets.density import FLOOR, SymlogAxis, curve
from paredown_widgets.figures.style import axis, escape, layout, note, rounded, token
from paredown_widgets.labels import LayerLabel, short_name

Json = dict[str, Any]
_GAP = 0.06  # between two columns, share of a column's width
_NUMBERS = 13  # rows up to which λmax is printed; in lower rows it is a rung alone
_NAME = 0.35  # share of a column that a name needs left of zero
_POINTS = 56
_BLOCK_NAMES = 16  # rows up to which each is named; above, every fourth


@dataclass(frozen=True, eq=False, slots=True)
class _Sheet:
    """What is drawn, and where: column and row of each layer, the axis of a column, its width, and the number of rows."""

    labels: Mapping[str, LayerLabel]
    known: Mapping[str, MatrixEstimates]
    picked: Mapping[str, str]
    spots: Mapping[str, tuple[int, int]]
    place: SymlogAxis
    width: float
    rows: int


def ridges(labels: Mapping[str, LayerLabel], known: Mapping[str, MatrixEstimates], picked: Mapping[str, str]) -> Json:
    """The figure.

    Args:
        labels: Layer name to label, in model order.
        known: Layer name to what is known of its matrix; the place of a layer without an entry stays free.
        picked: Selected layers, and the colour of each.

    Returns:
        Plotly JSON; traces ``ridges`` and ``negative`` (all layers that are not picked), ``ridge:LAYER``, and ``all``: the rung of each λmax.
    """
    place = SymlogAxis.of(known.values())
    spots, columns, rows = _spots(labels)
    if not known:
        return {"data": [], "layout": layout()}
    span = place.high - place.low
    width = span * (1 + _GAP)
    curves = {name: curve(each.density, place, _POINTS) for name, each in known.items() if each.density}
    highest = max((float(drawn.count.max()) for drawn in curves.values()), default=10.0)
    scale = 0.62 if len(rows) <= _NUMBERS else 1.5  # low rows may reach into the one above
    data: list[Json] = []
    merged: dict[str, list[tuple[list[float], list[float]]]] = {"negative": [], "ridges": []}
    for name, drawn in curves.items():
        column, row = spots[name]
        shift, foot = column * width - place.low, float(len(rows) - 1 - row)
        xs = [round(float(x) + shift, 3) for x in drawn.places]
        ys = [round(foot + scale * math.log10(max(float(y), FLOOR) / FLOOR) / math.log10(highest / FLOOR), 3) for y in drawn.count]
        if name in picked:
            data.append(_outline(f"ridge:{name}", [_closed(xs, ys, foot)], picked[name], 0.2, 1.3))
        else:
            merged["ridges"].append(_closed(xs, ys, foot))
        left = [(x, y) for x, y in zip(xs, ys, strict=True) if x <= shift]
        if left and max(y for _, y in left) > foot:
            merged["negative"].append(_closed([x for x, _ in left], [y for _, y in left], foot))
    if merged["ridges"]:
        data.insert(0, _outline("ridges", merged["ridges"], "predicted", 0.25, 1.0 if len(rows) <= _NUMBERS else 0.6))
    if any(min(each.eigenvalues.bottom, default=0.0) < 0 for each in known.values() if each.eigenvalues):
        data.append(_outline("negative", merged["negative"], "over", 0.25, 0))
    sheet = _Sheet(labels, known, picked, spots, place, width, len(rows))
    data.append(_rungs(sheet))
    notes = _numbers(sheet) if len(rows) <= _NUMBERS else []
    notes += [
        note(escape(column), x=rounded(i * width + span / 2), y=1, yref="paper", yanchor="bottom") for i, column in enumerate(columns)
    ]
    return {"data": data, "layout": _layout(place, columns, rows, width, notes)}


def _spots(labels: Mapping[str, LayerLabel]) -> tuple[dict[str, tuple[int, int]], list[str], list[str]]:
    """(column, row) of each layer, and the names of columns and rows; what is outside of the blocks takes the last rows."""
    inside = [name for name in labels if labels[name].block]
    outside = [name for name in labels if not labels[name].block]
    columns = list(dict.fromkeys(labels[name].column for name in inside))
    rows = list(dict.fromkeys(labels[name].block for name in inside))
    spots = {name: (columns.index(labels[name].column), rows.index(labels[name].block)) for name in inside}
    wide = max(len(columns), min(len(outside), 6), 1)
    spots |= {name: (i % wide, len(rows) + i // wide) for i, name in enumerate(outside)}
    extra = math.ceil(len(outside) / wide)
    return spots, columns or [""] * wide, [*rows, *(["Other"] if extra else []), *([""] * (extra - 1))]


def _closed(xs: list[float], ys: list[float], foot: float) -> tuple[list[float], list[float]]:
    return [xs[0], *xs, xs[-1]], [foot, *ys, foot]


def _outline(uid: str, shapes: list[tuple[list[float], list[float]]], ink: str, opacity: float, line: float) -> Json:
    """Closed shapes as one trace, with gaps between them."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for x, y in shapes:
        xs += [*x, x[0], None]
        ys += [*y, y[0], None]
    return {
        "type": "scatter", "uid": uid, "mode": "lines", "x": xs, "y": ys, "fill": "toself", "fillcolor": token(ink, opacity), "hoverinfo": "skip",
        "line": {"width": line, "color": token(ink)},
    }  # fmt: skip


def _rungs(sheet: _Sheet) -> Json:
    labels, known, spots, place, rows = sheet.labels, sheet.known, sheet.spots, sheet.place, sheet.rows
    names = [name for name in spots if name in known]
    tops = [top(known[name]) for name in names]
    xs = [
        spots[name][0] * sheet.width + (place.place(value) if value is not None else 0.0) - place.low
        for name, value in zip(names, tops, strict=True)
    ]
    hover = []
    for name, value in zip(names, tops, strict=True):
        trace = known[name].trace
        words = [escape(labels[name].text), f"λmax {numbers.quantity(value)}", *([f"trace {trace_words(trace)}"] if trace else [])]
        hover.append("<br>".join(words))
    height = 7 if rows <= _NUMBERS else 4
    return {
        "type": "scatter", "uid": "all", "name": "λmax", "meta": {"clickable": True}, "customdata": names, "mode": "markers", "x": [rounded(x) for x in xs],
        "y": [rows - 1 - spots[name][1] + (0.1 if rows <= _NUMBERS else 0.25) for name in names], "hovertext": hover, "hoverinfo": "text", "cliponaxis": False,
        "marker": {"symbol": "line-ns", "size": height, "line": {"width": 1.4, "color": [token(sheet.picked.get(name, "ink2")) for name in names]}},
    }  # fmt: skip


def _numbers(sheet: _Sheet) -> list[Json]:
    labels, known, picked, place = sheet.labels, sheet.known, sheet.picked, sheet.place
    notes: list[Json] = []
    for name, (column, row) in sheet.spots.items():
        at = {"y": sheet.rows - 1 - row + 0.6, "yanchor": "middle"}
        words = numbers.quantity(top(known[name])) if name in known else numbers.NONE
        outside = "" if labels[name].block else escape(short_name(labels[name]))
        if outside and -place.low < _NAME * (place.high - place.low):  # no room left of the peak
            words, outside = f"{outside} {words}", ""
        notes.append(note(words, picked.get(name, "ink3"), x=rounded(column * sheet.width + place.high - place.low), xanchor="right", **at))
        if outside:
            notes.append(note(outside, "ink3", x=rounded(column * sheet.width), xanchor="left", xshift=2, **at))
    return notes


def _layout(place: SymlogAxis, columns: list[str], rows: list[str], width: float, notes: list[Json]) -> Json:
    span = place.high - place.low
    at, words = place.ticks()
    ends = [(x, text) for x, text in zip(at, words, strict=True) if place.low + 0.12 * span <= x <= place.high - 0.12 * span]
    shown = {0.0: "0"} | ({ends[-1][0]: ends[-1][1]} if ends and ends[-1][0] > 0.35 * span else {})
    ticks = [(i * width + x - place.low, text) for i in range(len(columns)) for x, text in shown.items()]
    every = 1 if len(rows) <= _BLOCK_NAMES else 4
    named = [(len(rows) - 1 - i + 0.3, escape(row)) for i, row in enumerate(rows) if i % every == 0 or row == "Other"]
    step = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    shapes: list[Json] = []
    for i in range(len(columns)):
        start, zero = i * width, i * width - place.low
        shapes.append({"type": "rect", **step, "x0": start, "x1": zero, "fillcolor": token("negative"), "line": {"width": 0}})
        shapes.append({"type": "line", **step, "x0": zero, "x1": zero, "line": {"color": token("line"), "width": 1}})
    if len(rows) <= _NUMBERS:
        whole = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "layer": "below", "line": {"color": token("line"), "width": 1}}
        shapes += [{**whole, "y0": y, "y1": y} for y in range(1, len(rows))]
    x_axis = axis(
        "", range=[0, len(columns) * width - _GAP * span], tickvals=[rounded(x) for x, _ in ticks], ticktext=[text for _, text in ticks],
        showgrid=False, ticklen=3, tickangle=0,
    )  # fmt: skip
    y_axis = axis(
        "",
        range=[0, len(rows)],
        tickvals=[at for at, _ in named],
        ticktext=[text for _, text in named],
        showgrid=False,
        showline=False,
        ticks="",
    )
    return layout(xaxis=x_axis, yaxis=y_axis, annotations=notes, shapes=shapes, margin={"l": 52, "r": 6, "t": 18, "b": 22})
