"""What all charts share: colours by token, axes, and the light palette for paper.

``token:measured`` stands for the colour `--pd-measured` of the theme in force, ``token:measured@0.35`` for the same with that
opacity. The browser replaces them; `resolve` does for a `plotly.graph_objects.Figure`.
"""

from __future__ import annotations

import math
import re
from typing import Any

Json = dict[str, Any]

LIGHT = {
    "surface": "#ffffff", "line": "#e2e6eb", "line-strong": "#c6cdd5", "ink": "#181d24", "ink2": "#4a5460", "ink3": "#5e6977",
    "plan": "#c2410c", "measured": "#0a5fb0", "predicted": "#6b7c8f", "uniform": "#5d6875", "band": "rgba(10, 95, 176, 0.10)",
    "base": "#8a6d00", "base-band": "rgba(150, 120, 0, 0.09)", "over": "#b3261e", "negative": "rgba(179, 38, 30, 0.055)",
    "a": "#0f766e", "b": "#93329e", "c": "#b45309",
    "d0": "#9a4b06", "d1": "#cf8338", "d2": "#edc391", "d3": "#f5f6f7", "d4": "#a9c9e6", "d5": "#4a8ac2", "d6": "#12538f",
    "q0": "#f4f7fa", "q1": "#dce7f1", "q2": "#bdd3e6", "q3": "#93b8d8", "q4": "#6499c5", "q5": "#3a78ac", "q6": "#1c568a", "q7": "#0b3763",
}  # fmt: skip
"""The light theme's values, for figures outside of the explorer. Okabe and Ito's rule: blue against orange, doubled by shape."""
FONT = "Segoe UI, Roboto, Helvetica Neue, Arial, sans-serif"
_TOKEN = re.compile(r"token:(?P<name>[\w-]+)(?:@(?P<alpha>[\d.]+))?")


def token(name: str, alpha: float | None = None) -> str:
    """The name of a colour in a figure, with an opacity where wanted."""
    return f"token:{name}" if alpha is None else f"token:{name}@{alpha:g}"


def color(text: str) -> str:
    """The light palette's colour of a token; any other text as it is.

    Example:
        >>> color("token:measured@0.5"), color("token:ink"), color("12")
        ('rgba(10, 95, 176, 0.5)', '#181d24', '12')
    """
    match = _TOKEN.fullmatch(text)
    if match is None:
        return text
    value = LIGHT[match["name"]]
    if match["alpha"] is None:
        return value
    red, green, blue = (int(value[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {float(match['alpha']):g})"


def resolve(value: Any) -> Any:
    """A figure with the tokens replaced by the light palette."""
    if isinstance(value, str):
        return color(value)
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item) for item in value]
    return value


def axis(title: str, **more: Any) -> Json:
    """An axis; what all axes share is supplied by the browser, and by `paper` outside of it."""
    return {"title": {"text": title}, **more}


def layout(**more: Any) -> Json:
    """A layout; what all charts share is supplied by the browser, and by `paper` outside of it."""
    return dict(more)


def paper(figure: Json) -> Json:
    """A figure that stands alone: light palette, fonts, margins and axes as the explorer draws them, with a legend."""
    shared = {
        "paper_bgcolor": "#ffffff", "plot_bgcolor": "rgba(0,0,0,0)", "font": {"family": FONT, "size": 12, "color": token("ink2")},
        "showlegend": True, "hovermode": "closest", "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hoverlabel": {"bgcolor": token("surface"), "bordercolor": token("line-strong"), "font": {"color": token("ink")}, "align": "left"},
    }  # fmt: skip
    own = figure["layout"]
    ground = {
        "color": token("ink3"),
        "gridcolor": token("line"),
        "linecolor": token("line-strong"),
        "tickcolor": token("line-strong"),
        "zeroline": False,
    }
    axes = {
        key: {**ground, "showline": key.startswith("x"), "ticks": "outside" if key.startswith("x") else "", **value}
        for key, value in own.items()
        if key[1:5] == "axis"
    }
    data = [
        {
            **trace,
            "showlegend": "name" in trace and trace.get("uid") != "band" and not str(trace.get("uid")).startswith(("rungs:", "half:")),
        }
        for trace in figure["data"]
    ]
    return resolve({"data": data, "layout": {**shared, **own, **axes, "margin": {"l": 60, "r": 20, "t": 60, "b": 50}}})


def note(text: str, ink: str = "ink3", **more: Any) -> Json:
    """A line of text in a chart."""
    return {"text": text, "showarrow": False, "font": {"size": 10.5, "color": token(ink)}, **more}


def rounded(value: float) -> float:
    """Six significant digits: what no screen can show need not travel."""
    return float(f"{value:.6g}")


def escape(text: str) -> str:
    """Text that plotly shows as it is: it reads a few HTML tags in its labels, and names come from models."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def log_range(values: list[float], step: float = 0.25, pad: float = 0.04) -> list[float]:
    """Range of a logarithmic axis in decades, on a grid of `step`, so that it moves only when a value leaves it."""
    low, high = math.log10(min(values)), math.log10(max(values))
    margin = pad * max(high - low, step)
    return [round(math.floor((low - margin) / step) * step, 6), round(math.ceil((high + margin) / step) * step, 6)]


def linear_range(low: float, high: float) -> list[float]:
    """Range of a linear axis, on a grid of a tenth of its span."""
    span = max(high - low, 1e-9)
    step = 10 ** math.floor(math.log10(span))
    step = step / 2 if span / step < 4 else step
    return [round((math.floor(low / step) - 0.2) * step, 9), round((math.ceil(high / step) + 0.2) * step, 9)]  # between ticks


def size_ticks(low: float, high: float) -> list[float]:
    """Round sizes between two, for a logarithmic axis without exponents.

    Example:
        >>> size_ticks(15.2, 24.8), size_ticks(6.4, 26.0)
        ([16.0, 18.0, 20.0, 22.0, 24.0], [7.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0, 25.0])
    """
    if high / low < 2.5:
        span = (high - low) / 4
        step = 10 ** math.floor(math.log10(span))
        step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= 1.6)
        return [float(f"{k * step:.6g}") for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = (1, 1.2, 1.4, 1.6, 2, 2.5, 3, 4, 5, 7, 8) if high / low < 8 else (1, 2, 3, 5) if high / low < 100 else (1,)
    return [float(f"{m * 10.0**decade:.4g}") for decade in decades for m in marks if low <= m * 10.0**decade <= high]
