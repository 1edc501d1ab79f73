"""The compared plans on the front: a frame around each, with its letter; frame and colour are those of the letter."""

from __future__ import annotations

import math
from typing import Any

from paredown_widgets import numbers
from paredown_widgets.compare import bytes_of, timing_of
from paredown_widgets.comparison import Entry
from paredown_widgets.figures.scales import Extent, Scale, on_edge, predicted
from paredown_widgets.figures.style import escape, rounded, token
from paredown_widgets.model import ExplorerModel

Json = dict[str, Any]
FRAMES = {"B": ("square", "a"), "C": ("hexagon", "b"), "D": ("octagon", "ink3")}
"""Letter to its frame and its colour; A is the star."""


def compared_traces(model: ExplorerModel, scale: Scale, extent: Extent, y_range: list[float], x_range: list[float]) -> list[Json]:
    """A trace a plan, uid ``compared B``; what was not measured has a thinner frame and its letter in italics, and says on hovering what is predicted."""
    framed = (_framed(model, entry, scale, extent, y_range) for entry in model.comparison.entries(model)[1:])
    return [trace for trace in framed if trace is not None and x_range[0] <= math.log10(trace["x"][0]) <= x_range[1]]


def _framed(model: ExplorerModel, entry: Entry, scale: Scale, extent: Extent, y_range: list[float]) -> Json | None:
    measured, plan = entry.measurement, entry.plan
    x = extent.of(bytes_of(entry), timing_of(model, entry)[0])
    found = scale.of(measured) if measured else predicted(model, scale, plan.loss_increase, plan.loss_increase_sd)
    if x is None or found is None:
        return None
    value, error = found
    frame, colour = FRAMES[entry.letter]
    words = [f"{entry.letter}: {entry.name}, predicted", numbers.size(plan.bytes), numbers.quantity(value, error)]
    return {
        "type": "scatter", "uid": f"compared {entry.letter}", "name": f"{entry.letter}, {'measured' if measured else 'predicted'}", "mode": "markers+text",
        "x": [rounded(x)], "y": [rounded(on_edge(value, y_range, scale)[0])], "cliponaxis": False,
        "text": [f"<b>{entry.letter}</b>" if measured else f"<i>{entry.letter}</i>"], "textposition": "bottom left", "textfont": {"size": 12, "color": token(colour)},
        "marker": {"symbol": f"{frame}-open", "size": 17, "color": token(colour), "line": {"width": 2.2 if measured else 1.2, "color": token(colour)}},
        **({"hoverinfo": "skip"} if measured else {"hoverinfo": "text", "hovertext": ["<br>".join(map(escape, words))]}),
    }  # fmt: skip
