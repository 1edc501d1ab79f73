"""What pairs of layers lose together: a symmetric heat map about zero."""

from __future__ import annotations

from typing import Any

from paredown.specs import LayerInteractions
from paredown_widgets import numbers
from paredown_widgets.figures.style import axis, escape, layout, rounded, token
from paredown_widgets.labels import group_text
from paredown_widgets.model import ExplorerModel

Json = dict[str, Any]
_STEPS = 7
_LABELS = 24  # more names than that would overlap: every second, third, ... is printed


def heat_map(model: ExplorerModel, known: LayerInteractions) -> Json:
    """Plotly JSON: the pair terms in the order of the model, blue where two lose more together than each alone, orange where less."""
    names = [group_text(model.labels, group) for group in known.groups]
    count = len(names)
    most = max((abs(value) for row in known.pairs for value in row), default=0.0) or 1.0
    hover = [
        [
            escape(names[i])
            if i == j
            else f"{escape(names[i])}<br>{escape(names[j])}<br>{numbers.signed(known.pairs[i][j], known.pairs_sd[i][j])}"
            for j in range(count)
        ]
        for i in range(count)
    ]
    step = -(-count // _LABELS)
    ticks = {"tickvals": list(range(0, count, step)), "ticktext": [escape(name) for name in names[::step]]}
    trace = {
        "type": "heatmap", "uid": "pairs", "name": "pair terms", "meta": {"clickable": True}, "z": [[None if i == j else rounded(v) for j, v in enumerate(row)] for i, row in enumerate(known.pairs)],
        "zmin": -most, "zmax": most, "colorscale": [[k / (_STEPS - 1), token(f"d{k}")] for k in range(_STEPS)], "hovertext": hover, "hoverinfo": "text",
        "xgap": 1 if count <= 60 else 0, "ygap": 1 if count <= 60 else 0,
        "colorbar": {"thickness": 8, "outlinewidth": 0, "ticklen": 3, "len": 1.0, "tickfont": {"size": 10, "color": token("ink3")}, "nticks": 5, "x": 1.01},
    }  # fmt: skip
    wide = min(150, 14 + 5 * max(map(len, names), default=0))
    return {
        "data": [trace],
        "layout": layout(
            xaxis=axis("", showgrid=False, showline=False, ticks="", showticklabels=False),
            yaxis=axis("", **ticks, showgrid=False, ticks="", autorange="reversed", tickfont={"size": 9}),
            margin={"l": wide, "r": 52, "t": 4, "b": 8},
        ),
    }
