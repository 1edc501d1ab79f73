"""Top eigenvalues of the layers' curvature: rungs on a logarithmic axis, the trace with its error in the legend.

A density can join as another trace over the same horizontal axis: `spectrum_figure` keeps the rungs in their own strip.
"""

from __future__ import annotations

import math
from typing import Any

from paredown.record import MatrixEstimates
from paredown_widgets import numbers
from paredown_widgets.figures.style import axis, escape, layout, log_range, note, rounded, token
from paredown_widgets.model import ExplorerModel

Json = dict[str, Any]
_SERIES = (("a", "solid"), ("b", "5px,2px"))
_MATRICES = {"ggn": "Gauss–Newton", "empirical_fisher": "empirical Fisher"}
_RUNG = 0.22  # height of the rungs in their row; the number stands above them, nearer than the row before
_GAP = 0.35  # decades between two columns of the small multiples


def view(model: ExplorerModel) -> Json:
    """State of the `spectrum` trait."""
    known = model.record.curvature
    if not known:
        return {
            "figure": {"data": [], "layout": layout()}, "mode": model.spectrum_mode, "label": "", "title": "Spectrum", "legend": [],
            "empty": "Curvature has not been estimated yet. It comes with the sensitivity of each layer.",
        }  # fmt: skip
    names = shown_layers(model)
    all_layers = model.spectrum_mode == "all"
    matrix = _MATRICES[model.record.sensitivity_matrix]
    legend = [{"text": "Top eigenvalues of each layer, laid out as the plan; the number is λmax", "label": ""}]
    if not all_layers:
        legend = [
            {"label": model.labels[name].text, "text": _words(model.record.estimates(name))}
            for name, _ in zip(names, _SERIES, strict=False)
        ]
    return {
        "figure": all_figure(model) if all_layers else spectrum_figure(model, names),
        "mode": model.spectrum_mode,
        "title": f"top eigenvalues, {matrix}",
        "legend": legend,
        "label": "; ".join(f"{item['label']} {item['text']}".strip() for item in legend),
        "empty": "",
    }


def shown_layers(model: ExplorerModel) -> list[str]:
    """The last selected layers; with nothing selected, the two of the largest trace."""
    known = model.record.curvature
    picked = [name for name in model.selection if name in known][-len(_SERIES) :]
    return picked or sorted((name for name in known if name in model.labels), key=lambda name: -_trace(model, name))[:2]


def _trace(model: ExplorerModel, name: str) -> float:
    trace = model.record.estimates(name).trace
    return trace.value if trace else 0.0


def _words(known: MatrixEstimates) -> str:
    words = [f"trace {numbers.with_error(known.trace.value, known.trace.data_sd)}"] if known.trace else []
    words += [f"λmax {numbers.significant(known.eigenvalues.top[0])}"] if known.eigenvalues and known.eigenvalues.top else []
    return ", ".join(words)


def _eigenvalues(known: MatrixEstimates) -> list[float]:
    return [rounded(value) for value in known.eigenvalues.top if value > 0] if known.eigenvalues else []


def spectrum_figure(model: ExplorerModel, names: list[str]) -> Json:
    """Eigenvalues of a few layers: value against rank, with rungs in a strip below.

    Args:
        model: The view model.
        names: Layers with a curvature estimate, at most three.

    Returns:
        Plotly JSON; traces ``ranks:LAYER`` (upper part) and ``rungs:LAYER`` (strip).
    """
    data: list[Json] = []
    every: list[float] = []
    longest = 1
    for row, (name, (ink, dash)) in enumerate(zip(names, _SERIES, strict=False)):
        values = _eigenvalues(model.record.estimates(name))
        if not values:
            continue
        every += values
        longest = max(longest, len(values))
        title = escape(model.labels[name].text)
        hover = [f"{title}<br>eigenvalue {rank}: {numbers.significant(value)}" for rank, value in enumerate(values, 1)]
        data.append(
            {
                "type": "scatter", "uid": f"ranks:{name}", "meta": {"layer": name}, "name": title, "mode": "lines+markers", "x": values, "y": list(range(1, len(values) + 1)),
                "line": {"color": token(ink), "width": 1.6, "dash": dash}, "marker": {"size": 5, "color": token(ink)}, "hovertext": hover, "hoverinfo": "text",
            }
        )  # fmt: skip
        data.append(
            {
                "type": "scatter", "uid": f"rungs:{name}", "meta": {"layer": name}, "name": title, "mode": "markers", "x": values, "y": [len(names) - row] * len(values), "yaxis": "y2",
                "marker": {"symbol": "line-ns", "size": 11, "line": {"width": 1.5, "color": token(ink)}}, "hovertext": hover, "hoverinfo": "text", "cliponaxis": False,
            }
        )  # fmt: skip
    x_range = log_range(every or [0.1, 10.0])
    x_axis = axis("Eigenvalue (log)", type="log", range=x_range, anchor="y2", showgrid=True, **_decade_ticks(x_range))
    y_axis = axis("Rank", range=[longest + 0.6, 0.4], domain=[0.2, 1], dtick=max(1, longest // 5), tick0=1, showline=False, ticks="")
    strip = axis("", range=[0.4, len(names) + 0.6], domain=[0, 0.14], showgrid=False, showticklabels=False, showline=False, ticks="")
    return {"data": data, "layout": layout(xaxis=x_axis, yaxis=y_axis, yaxis2=strip)}


def _decade_ticks(x_range: list[float]) -> Json:
    values = [10.0**d for d in range(math.ceil(x_range[0]), math.floor(x_range[1]) + 1)]
    if len(values) < 3:
        grid = [m * 10.0**d for d in range(math.floor(x_range[0]), math.ceil(x_range[1]) + 1) for m in (1, 2, 5)]
        values = [v for v in grid if x_range[0] <= math.log10(v) <= x_range[1]]
    return {"tickvals": [rounded(v) for v in values], "ticktext": [f"{rounded(v):g}" for v in values]}


def all_figure(model: ExplorerModel) -> Json:
    """Every layer's rungs, laid out as the plan: blocks down, roles across; a number says λmax.

    Columns share one logarithmic scale, shifted side by side; layers outside of the blocks take the last row.
    """
    known, labels = {name: model.record.estimates(name) for name in model.record.curvature}, model.labels
    names = [name for name in labels if name in known and _eigenvalues(known[name])]
    if not names:
        return {"data": [], "layout": layout()}
    inside = [name for name in names if labels[name].block]
    columns = list(dict.fromkeys(labels[name].column for name in inside)) or [""]
    rows = list(dict.fromkeys(labels[name].block for name in inside))
    outside = [name for name in names if not labels[name].block]
    rows += ["Other"] if outside else []
    low, high = log_range([v for name in names for v in _eigenvalues(known[name])])
    width = high - low + _GAP
    places = {name: (columns.index(labels[name].column), rows.index(labels[name].block)) for name in inside}
    places |= {name: (i % len(columns), len(rows) - 1) for i, name in enumerate(outside)}
    picked = {name: ink for name, (ink, _) in zip(shown_layers(model) if model.selection else [], _SERIES, strict=False)}
    data: list[Json] = []
    notes: list[Json] = []
    for name in names:
        column, row = places[name]
        ink = picked.get(name, "predicted")
        values = _eigenvalues(known[name])
        at = [rounded(column * width + math.log10(v) - low) for v in values]
        y = len(rows) - 1 - row
        title = escape(labels[name].text)
        data.append(
            {
                "type": "scatter", "uid": f"all:{name}", "meta": {"layer": name, "clickable": True}, "customdata": [name] * len(at), "name": title, "mode": "markers", "x": at, "y": [y + _RUNG] * len(at),
                "marker": {"symbol": "line-ns", "size": 6, "line": {"width": 1.6 if name in picked else 1.1, "color": token(ink)}},
                "hovertext": [f"{title}<br>{_words(known[name])}<br>eigenvalue {numbers.significant(v)}" for v in values], "hoverinfo": "text",
            }
        )  # fmt: skip
        notes.append(
            note(
                numbers.significant(values[0]),
                ink if name in picked else "ink3",
                x=column * width + high - low,
                y=y + 0.64,
                xanchor="right",
                yanchor="middle",
            )
        )
    notes += [note(escape(column), x=i * width + (high - low) / 2, y=1, yref="paper", yanchor="bottom") for i, column in enumerate(columns)]
    ends = list(range(math.ceil(low), math.floor(high) + 1))
    ends = ends[1:-1] if len(ends) > 3 else ends  # a label at a column's edge would touch its neighbour's
    marks = [ends[0], ends[-1]] if len(ends) > 1 else ends
    tick_at = [rounded(i * width + decade - low) for i in range(len(columns)) for decade in marks]
    tick_text = [f"10{str(decade).translate(numbers.RAISED)}" for _ in columns for decade in marks]
    x_axis = axis("", range=[-0.1, len(columns) * width], tickvals=tick_at, ticktext=tick_text, showgrid=False, ticklen=3, tickangle=0)
    y_axis = axis("", range=[-0.1, len(rows) + 0.05], tickvals=[len(rows) - 1 - i + _RUNG for i in range(len(rows))], ticktext=[escape(r) for r in rows], showgrid=False, showline=False, ticks="")  # fmt: skip
    rules = [
        {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y - 0.03, "y1": y - 0.03, "layer": "below", "line": {"color": token("line"), "width": 1}}
        for y in range(1, len(rows))
    ]  # fmt: skip
    return {
        "data": data,
        "layout": layout(xaxis=x_axis, yaxis=y_axis, annotations=notes, shapes=rules, margin={"l": 60, "r": 6, "t": 20, "b": 24}),
    }
