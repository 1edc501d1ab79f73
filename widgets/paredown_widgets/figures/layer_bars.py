"""Every layer's sensitivity as a bar with its error, as the explorer's list has it."""

from __future__ import annotations

from typing import Any

from paredown_widgets import sensitivity
from paredown_widgets.figures.style import axis, escape, layout, rounded, token
from paredown_widgets.model import ExplorerModel

_ROW = 16  # pixels of a bar
_FOOT = 110


def layer_bars(model: ExplorerModel) -> dict[str, Any]:
    """Plotly JSON: a bar a layer, from the top in the order of the list."""
    state = sensitivity.view(model)
    rows = state["rows"]
    names = [escape(row["title"]) for row in rows]
    trace = {
        "type": "bar", "orientation": "h", "uid": "sensitivity", "name": escape(state["what"]), "y": names, "x": [rounded(row["value"]) for row in rows],
        "error_x": {"type": "data", "array": [rounded(row["high"] - row["value"]) for row in rows], "color": token("ink"), "thickness": 1, "width": 2},
        "text": [row["bits"] for row in rows], "hovertemplate": "%{y}, %{text} bit: %{x}<extra></extra>", "textposition": "none",
        "marker": {"color": token("predicted", 0.35), "line": {"color": token("predicted"), "width": 1}},
    }  # fmt: skip
    return {
        "data": [trace],
        "layout": layout(
            xaxis=axis(f"{escape(state['what'])}, {state['unit']}", rangemode="tozero"),
            yaxis=axis("", autorange="reversed", showgrid=False, ticks="", automargin=True, tickfont={"size": 9}, dtick=1),
            height=_FOOT + _ROW * len(rows),
        ),
    }
