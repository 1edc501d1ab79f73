"""A small subset of plotly's JSON as SVG, without a browser: scatter traces, shapes and notes on one pair of axes.

For the picture that stays in a saved notebook. Only what `figures` builds is understood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from paredown_widgets import numbers
from paredown_widgets.figures.style import paper

Json = dict[str, Any]


@dataclass(frozen=True)
class _Axis:
    """From a value to a pixel."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    @classmethod
    def of(cls, axis: Json, start: float, end: float) -> _Axis:
        low, high = axis["range"]
        return cls(low, high, axis.get("type") == "log", start, end)

    def at(self, value: float) -> float:
        place = math.log10(max(value, 1e-300)) if self.log else value
        place = min(max(place, self.low - 1), self.high + 1)
        return self.start + (place - self.low) / (self.high - self.low) * (self.end - self.start)

    def fraction(self, value: float) -> float:
        return self.start + value * (self.end - self.start)

    def ticks(self, axis: Json) -> list[tuple[float, str]]:
        if "tickvals" in axis:
            return [(self.at(value), text) for value, text in zip(axis["tickvals"], axis["ticktext"], strict=True)]
        span = self.high - self.low
        step = 10 ** math.floor(math.log10(span / 4))
        step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= 6)
        decimals = max(0, -math.floor(math.log10(step)))
        first = math.ceil(self.low / step - 1e-9)
        return [(self.at(k * step), numbers.fixed(k * step, decimals)) for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def chart(figure: Json, x: float, y: float, width: float, height: float) -> str:
    """A figure as an SVG group at that place.

    Args:
        figure: What `paredown_widgets.figures` built.
        x: Left edge, pixels.
        y: Top edge.
        width: Width.
        height: Height.
    """
    drawn = paper(figure)
    layout = drawn["layout"]
    left, right, top, bottom = x + 52, x + width - 8, y + 8, y + height - 36
    xs, ys = _Axis.of(layout["xaxis"], left, right), _Axis.of(layout["yaxis"], bottom, top)
    parts = [_frame(layout, xs, ys)]
    parts += [_shape(shape, xs, ys) for shape in layout.get("shapes", ())]
    parts += [_trace(trace, xs, ys) for trace in drawn["data"]]
    parts += [_note(note, xs, ys) for note in layout.get("annotations", ())]
    return "\n".join(part for part in parts if part)


def _n(value: float) -> str:
    return f"{value:.1f}"


def text(content: str, x: float, y: float, *, fill: str = "#4a5460", size: float = 11, anchor: str = "start", weight: int = 400) -> str:
    """A line of text; markup in it is shown as it is."""
    return f'<text x="{_n(x)}" y="{_n(y)}" fill="{fill}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">{escape(content)}</text>'


def _frame(layout: Json, xs: _Axis, ys: _Axis) -> str:
    parts = [f'<path d="M{_n(xs.start)} {_n(ys.start)}H{_n(xs.end)}" stroke="#c6cdd5"/>']
    for at, label in xs.ticks(layout["xaxis"]):
        parts.append(
            f'<path d="M{_n(at)} {_n(ys.start)}v4" stroke="#c6cdd5"/>'
            + text(label, at, ys.start + 16, fill="#5e6977", size=10.5, anchor="middle")
        )
    for at, label in ys.ticks(layout["yaxis"]):
        parts.append(
            f'<path d="M{_n(xs.start)} {_n(at)}H{_n(xs.end)}" stroke="#e2e6eb"/>'
            + text(label, xs.start - 5, at + 4, fill="#5e6977", size=10.5, anchor="end")
        )
    parts.append(text(layout["xaxis"]["title"]["text"], (xs.start + xs.end) / 2, ys.start + 31, fill="#5e6977", anchor="middle"))
    middle = (ys.start + ys.end) / 2
    title = text(layout["yaxis"]["title"]["text"], 0, 0, fill="#5e6977", anchor="middle")
    parts.append(f'<g transform="translate({_n(xs.start - 40)} {_n(middle)}) rotate(-90)">{title}</g>')
    return "\n".join(parts)


def _shape(shape: Json, xs: _Axis, ys: _Axis) -> str:
    x0, x1 = ((xs.fraction if shape.get("xref") == "paper" else xs.at)(shape[key]) for key in ("x0", "x1"))
    y0, y1 = ((ys.fraction if shape.get("yref") == "paper" else ys.at)(shape[key]) for key in ("y0", "y1"))
    if shape["type"] == "rect":
        y0, y1 = sorted((min(max(y0, ys.end), ys.start), min(max(y1, ys.end), ys.start)))
        return f'<rect x="{_n(min(x0, x1))}" y="{_n(y0)}" width="{_n(abs(x1 - x0))}" height="{_n(y1 - y0)}" fill="{shape["fillcolor"]}"/>'
    dash = ' stroke-dasharray="4 3"' if shape["line"].get("dash") else ""
    return f'<path d="M{_n(x0)} {_n(y0)}L{_n(x1)} {_n(y1)}" stroke="{shape["line"]["color"]}"{dash}/>'


def _trace(trace: Json, xs: _Axis, ys: _Axis) -> str:
    points = [(xs.at(x), ys.at(y)) for x, y in zip(trace["x"], trace["y"], strict=True) if x is not None]
    parts: list[str] = []
    if "lines" in trace["mode"] and points:
        path = "".join(_path(run, xs, ys) for run in _runs(trace))
        if trace.get("fill"):
            parts.append(f'<path d="{path}Z" fill="{trace["fillcolor"]}"/>')
        else:
            dash = ' stroke-dasharray="2 3"' if trace["line"].get("dash") else ""
            parts.append(f'<path d="{path}" fill="none" stroke="{trace["line"]["color"]}" stroke-width="{trace["line"]["width"]}"{dash}/>')
    if "markers" in trace["mode"]:
        parts += _bars(trace, xs, ys)
        marker = trace["marker"]
        symbols = marker["symbol"] if isinstance(marker["symbol"], list) else [marker["symbol"]] * len(points)
        parts += [_mark(symbol, px, py, marker) for symbol, (px, py) in zip(symbols, points, strict=True)]
        labels = trace.get("text", [""] * len(points))
        parts += [text(label, px + 7, py - 7, fill="#5d6875") for label, (px, py) in zip(labels, points, strict=True) if label]
    opacity = trace.get("opacity", 1.0)
    return f'<g opacity="{opacity}">{"".join(parts)}</g>'


def _runs(trace: Json) -> list[list[tuple[float, float]]]:
    """A line's points between its gaps, which are None."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(trace["x"], trace["y"], strict=True):
        if x is None or y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _path(run: list[tuple[float, float]], xs: _Axis, ys: _Axis) -> str:
    return "M" + "L".join(f"{_n(min(max(xs.at(x), xs.start), xs.end))} {_n(min(max(ys.at(y), ys.end), ys.start))}" for x, y in run)


def _bars(trace: Json, xs: _Axis, ys: _Axis) -> list[str]:
    bars = trace.get("error_y")
    if not bars:
        return []
    rows = zip(trace["x"], trace["y"], bars["array"], bars["arrayminus"], strict=True)
    return [
        f'<path d="M{_n(xs.at(x))} {_n(max(ys.at(y + up), ys.end))}V{_n(min(ys.at(y - down), ys.start))}" stroke="{bars["color"]}"/>'
        for x, y, up, down in rows
        if up or down
    ]


def _mark(symbol: str, x: float, y: float, marker: Json) -> str:
    radius = marker["size"] / 2
    style = f'fill="{marker["color"]}" stroke="{marker["line"]["color"]}" stroke-width="{marker["line"]["width"]}"'
    if symbol == "diamond":
        r = radius * 1.15
        return f'<path d="M{_n(x)} {_n(y - r)}l{_n(r)} {_n(r)}l{_n(-r)} {_n(r)}l{_n(-r)} {_n(-r)}z" {style}/>'
    if symbol == "square":
        return f'<path d="M{_n(x - radius)} {_n(y - radius)}h{_n(2 * radius)}v{_n(2 * radius)}h{_n(-2 * radius)}z" {style}/>'
    if symbol == "star":
        corners = [(radius * (1.2 if k % 2 == 0 else 0.5), math.pi * (k / 5 - 0.5)) for k in range(10)]
        path = "L".join(f"{_n(x + r * math.cos(a))} {_n(y + r * math.sin(a))}" for r, a in corners)
        return f'<path d="M{path}Z" {style}/>'
    if symbol.startswith("triangle"):
        sign = 1 if symbol.endswith("down") else -1
        return f'<path d="M{_n(x - radius)} {_n(y - sign * radius)}h{_n(2 * radius)}l{_n(-radius)} {_n(sign * 2 * radius)}z" {style}/>'
    return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}" {style}/>'


def _note(note: Json, xs: _Axis, ys: _Axis) -> str:
    x = (
        xs.fraction(note["x"])
        if note.get("xref") == "paper"
        else xs.start + (note["x"] - xs.low) / (xs.high - xs.low) * (xs.end - xs.start)
    )
    y = ys.fraction(note["y"]) if note.get("yref") == "paper" else ys.at(note["y"])
    shift = 10 if note.get("yanchor") == "top" else -4
    return text(note["text"], x + note.get("xshift", 0), y + shift, fill=note["font"]["color"], size=10.5)
