"""The plan as a heat map: blocks down, roles across, bits in the cells."""

from __future__ import annotations

from typing import Any

from paredown_widgets import plan
from paredown_widgets.figures.style import axis, escape, layout, token
from paredown_widgets.model import ExplorerModel

_STEPS = 8  # of the ramp q0..q7
_ROW, _FOOT = 22, 120


def plan_map(model: ExplorerModel) -> dict[str, Any]:
    """Plotly JSON: a cell a layer, coloured as the explorer's plan is; layers outside of the blocks are one row below."""
    grid, cells = plan.grid(model), plan.view(model)["cells"]
    columns = [column["id"] for column in grid["columns"]]
    place = {(cell["block"], cell["column"]): cell for cell in grid["cells"]}
    rows = [(block["label"], [place.get((block["id"], column)) for column in columns]) for block in grid["blocks"]]
    rows += [(cell["label"], [cell, *[None] * (len(columns) - 1)]) for cell in grid["other"]]

    def each(take: Any) -> list[list[Any]]:
        return [[None if cell is None else take(cells[cell["layer"]], cell) for cell in line] for _, line in rows]

    trace = {
        "type": "heatmap", "uid": "plan", "name": "plan", "x": [escape(column) for column in columns], "y": [escape(label) for label, _ in rows],
        "z": each(lambda state, _: state["color"]), "zmin": 0, "zmax": _STEPS - 1, "text": each(lambda state, _: _words(state)), "texttemplate": "%{text}",
        "hovertext": each(lambda state, cell: f"{escape(cell['label'])}: {escape(state['said'])}"), "hoverinfo": "text",
        "colorscale": [[step / (_STEPS - 1), token(f"q{step}")] for step in range(_STEPS)], "showscale": False, "xgap": 2, "ygap": 2,
    }  # fmt: skip
    return {
        "data": [trace],
        "layout": layout(
            xaxis=axis("", side="top", showgrid=False, ticks="", showline=False),
            yaxis=axis("", autorange="reversed", showgrid=False, ticks="", automargin=True, dtick=1),
            height=_FOOT + _ROW * len(rows),
        ),
    }


def _words(state: dict[str, Any]) -> str:
    return " ".join(filter(None, [state["text"], state["sparsity"], state["rank"]]))
