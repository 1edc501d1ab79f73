"""The spectrum of the layers' curvature: density on a symmetric-logarithmic axis, the ends as rungs below; of a few layers, or of all."""

from __future__ import annotations

import math
from typing import Any

from paredown.record import MatrixEstimates
from paredown.specs import CurvatureMatrix
from paredown_widgets import curvature, numbers, spectrum_table
from paredown_widgets.density import FLOOR, Curve, SymlogAxis, curve, decade, outliers
from paredown_widgets.figures.ridges import ridges
from paredown_widgets.figures.style import axis, escape, layout, note, rounded, token
from paredown_widgets.model import ExplorerModel
from paredown_widgets.run import state_of

Json = dict[str, Any]
SERIES = (("a", "solid"), ("b", "5px,2px"), ("c", "1.5px,2px"))
"""Colour and dash of the layers that are shown together."""
_MENU = -34  # px that the chart's menu needs at the right edge
_TIGHT = 0.17  # share of the width that the words on outliers need
_STRIP = (0.085, 0.03)  # share of the height for one layer's rungs, and for the gap below the plot


def view(model: ExplorerModel, layers: list[str] | None = None) -> Json:
    """State of the `spectrum` trait; with layers, of their page: always those, whatever the overview shows."""
    options = curvature.matrices(model.record)
    mode = model.spectrum_mode if layers is None else "selected"
    names = layers or shown_layers(model) if mode == "selected" else [name for name in model.labels if name in model.record.curvature]
    matrix = curvature.shown_matrix(model, names)
    known = [name for name in names if _spectrum_known(model.record.estimates(name, matrix))]
    legend = [_legend(model, name, matrix, alone=len(names) == 1) for name in names] if mode == "selected" else []
    figure = {"data": [], "layout": layout()}
    if mode == "selected" and known:
        figure = spectrum_figure(model, names, matrix)
    elif mode == "all" and known:
        figure = all_figure(model, matrix)
    return {
        "figure": figure,
        "mode": mode,
        "matrix": matrix,
        "matrices": [{"id": each, "label": curvature.MATRICES[each]} for each in options],
        "title": curvature.MATRICES[matrix] if options else "",
        "legend": legend,
        "note": _note(model, mode, names, matrix) if options else {"verdict": "", "text": ""},
        "table": spectrum_table.view(model, matrix) if mode == "table" and options else None,
        "estimate": _estimate_button(model),
        "label": _sentence(model, mode, names, matrix),
        "empty": "" if options and mode == "table" else _empty(model, names, matrix, bool(options), bool(known)),
    }


def key(model: ExplorerModel) -> tuple[Any, ...]:
    """What the view depends on: it is made anew when one of these changes, and not with every edit of the plan."""
    return (
        model.curvature_events, tuple(model.labels), tuple(model.selection), model.spectrum_mode, model.spectrum_matrix, model.record.sensitivity_matrix,
        tuple(sorted(_estimate_button(model).items())), model.running,
    )  # fmt: skip


def shown_layers(model: ExplorerModel) -> list[str]:
    """The last selected layers, at most three; with nothing selected, the two of the largest trace."""
    known = model.record.curvature
    picked = [name for name in model.selection if name in known][-len(SERIES) :]
    return picked or sorted((name for name in known if name in model.labels), key=lambda name: -_trace(model, name))[:2]


def _trace(model: ExplorerModel, name: str) -> float:
    trace = model.record.estimates(name).trace
    return trace.value if trace else 0.0


def _spectrum_known(known: MatrixEstimates) -> bool:
    return bool(known.density or known.eigenvalues)


# -- words


def _legend(model: ExplorerModel, name: str, matrix: CurvatureMatrix, *, alone: bool) -> Json:
    """One layer's line; one layer alone has room for all of it."""
    known = model.record.estimates(name, matrix)
    words: list[str] = []
    if known.trace:
        words.append("trace " + (curvature.trace_words(known.trace) if alone else curvature.trace_value(known.trace)))
    top = curvature.top(known)
    if top is not None:
        bias = curvature.bias_words(known.eigenvalues)
        words.append(f"λmax {numbers.quantity(top)}" + (f" ({bias})" if bias and alone else "*" if bias else ""))
    if known.density and not alone:  # one layer alone has this in its plot
        words.append(_outlier_words(known))
    if matrix == "hessian" and not alone and (share := curvature.negative(model, name)) is not None:
        words.append(f"{curvature.share_words(share)} negative")
    trust = None if alone else curvature.trust(model, name)
    return {
        "label": model.labels[name].text,
        "text": ", ".join(words) or f"{curvature.MATRICES[matrix]} not estimated yet",
        "verdict": trust.verdict if trust else "",
        "trust": f"trust: {trust.text}" if trust else "",
        "title": trust.reason if trust else "",
    }


def _note(model: ExplorerModel, mode: str, names: list[str], matrix: CurvatureMatrix) -> Json:
    """The line under the legend: the reason of the verdict where one layer is shown, else what the figure is made from."""
    if mode == "all":
        return {"verdict": "", "text": "Laid out as the plan; height is log density, the number and the rung λmax"}
    if mode == "table" or not names:
        return {"verdict": "", "text": ""}
    known = model.record.estimates(names[0], matrix)
    source = numbers.capital(curvature.source_words(known.density, known.eigenvalues))
    trust = curvature.trust(model, names[0]) if len(names) == 1 else None
    if trust is None:
        biased = len(names) > 1 and any(curvature.bias_words(model.record.estimates(name, matrix).eigenvalues) for name in names)
        return {"verdict": "", "text": source + ("; * λmax is probably too high on so few samples" if biased else "")}
    return {"verdict": trust.verdict, "text": f"May I trust this? {numbers.capital(trust.text)}: {trust.reason}", "title": source}


def _empty(model: ExplorerModel, names: list[str], matrix: CurvatureMatrix, any_matrix: bool, any_known: bool) -> str:
    if not any_matrix:
        return "Curvature has not been estimated yet. It is the first thing that a run does."
    if any_known:
        return ""
    which = model.labels[names[0]].text if len(names) == 1 else "these layers"
    return f"The {curvature.MATRICES[matrix]} of {which} has not been estimated yet. " + (
        "It is estimated when a run ends, or now with the button above." if matrix == "hessian" else "It comes with the run."
    )


def _sentence(model: ExplorerModel, mode: str, names: list[str], matrix: CurvatureMatrix) -> str:
    """The chart in one sentence, for those who can't see it."""
    if mode != "selected":
        return f"Spectra of the {curvature.MATRICES[matrix]} matrix, {len(names)} layers; the table view holds the numbers"
    words = [f"{item['label']} {item['text']}" for item in (_legend(model, name, matrix, alone=True) for name in names)]
    return f"Spectral density of the {curvature.MATRICES[matrix]} matrix. {'; '.join(words)}"


def _estimate_button(model: ExplorerModel) -> Json:
    """Whether the true Hessian can be asked for, of which layers, and why not."""
    wanted, reason = model.selection, ""
    if model.offline:
        reason = "This is a saved report; open the study itself to estimate more"
    elif state_of(model) == "watching":
        reason = "Another process works on this study; what it estimates appears here"
    of = model.labels[wanted[0]].text if len(wanted) == 1 else f"{len(wanted)} layers" if wanted else "all layers, the largest trace first"
    more = bool(wanted) and all(model.record.estimates(name, "hessian").density for name in wanted)
    return {
        "enabled": not reason and not model.hessian_asked,
        "label": "Queued" if model.hessian_asked else "Refine Hessian" if more else "Estimate Hessian",
        "title": reason or f"{'Refine' if more else 'Estimate'} the true Hessian of {of}, in the background",
    }


# -- the figure


def _curve(known: MatrixEstimates, place: SymlogAxis) -> Curve:
    assert known.density is not None
    return curve(known.density, place)


def spectrum_figure(model: ExplorerModel, names: list[str], matrix: CurvatureMatrix | None = None) -> Json:
    """Densities of a few layers over one axis, with the known eigenvalues in a strip below.

    Args:
        model: The view model.
        names: Layers, at most three.
        matrix: Which matrix; None takes the one that the explorer shows.

    Returns:
        Plotly JSON; traces ``density:LAYER``, ``band:LAYER``, ``other`` (one layer alone: its other matrix) and ``rungs:LAYER``.
    """
    matrix = matrix or curvature.shown_matrix(model, names)
    known = {name: model.record.estimates(name, matrix) for name in names}
    every = [each for name in names for each in model.record.curvature.get(name, {}).values() if _spectrum_known(each)]
    place = SymlogAxis.of(every)  # of all matrices, so that switching between them moves nothing
    curves = {name: _curve(each, place) for name, each in known.items() if each.density}
    base = _STRIP[0] * len(names) + _STRIP[1] if curves else 1.0
    series = {name: style for name, style in zip(names, SERIES, strict=False) if _spectrum_known(known[name])}
    data: list[Json] = []
    if len(names) == 1:
        data += _other_matrix(model, names[0], matrix, place)
    for name, drawn in curves.items():
        data += _density_traces(model, name, drawn, place, *series[name])
    notes: list[Json] = []
    for row, (name, (ink, _)) in enumerate(series.items()):
        rungs, words = _rungs(model, name, known[name], place, len(names) - row, ink)
        data += rungs
        notes += words
    shapes = _furniture(place, base if curves else 0.0)
    if curves:
        alone = names[0] if len(names) == 1 else None
        share = curvature.negative(model, alone) if alone and matrix == "hessian" else None
        notes.append(_negative_side(place, share))
        if alone:
            words, edge = _bulk_edge(known[alone], place, base)
            notes += words
            shapes += edge
    at, words = place.ticks()
    x_axis = axis(
        f"Eigenvalue (symmetric log, linear within ±{decade(place.linear_within)})", range=[place.low, place.high],
        tickvals=[rounded(v) for v in at], ticktext=words, anchor="y2", showgrid=True,
    )  # fmt: skip
    strip = axis(
        "", range=[0.3, len(names) + 0.7], domain=[0, base - _STRIP[1] if curves else 1], showgrid=False, showticklabels=False, ticks=""
    )
    y_axis = axis("", domain=[base, 1], range=_y_range(every, place), type="log", showline=False, ticks="", visible=bool(curves))
    if curves:
        y_axis |= {"title": {"text": "Eigenvalues<br>per decade (log)"}, **_y_ticks(y_axis["range"])}
    return {"data": data, "layout": layout(xaxis=x_axis, yaxis=y_axis, yaxis2=strip, shapes=shapes, annotations=notes, margin={"l": 52})}


def _y_range(every: list[MatrixEstimates], place: SymlogAxis) -> list[float]:
    highest = max((float(_curve(each, place).count.max()) for each in every if each.density), default=1.0)
    return [math.log10(FLOOR), math.ceil(2 * (math.log10(highest) + 0.5)) / 2]


def _y_ticks(y_range: list[float]) -> Json:
    top = math.floor(y_range[1])
    powers = range(0, top + 1, 2 if top >= 4 else 1)
    return {"tickvals": [10.0**power for power in powers], "ticktext": [decade(10.0**power) for power in powers]}


def _density_traces(model: ExplorerModel, name: str, drawn: Curve, place: SymlogAxis, ink: str, dash: str) -> list[Json]:
    title = escape(model.labels[name].text)
    xs = [round(float(x), 4) for x in drawn.places]
    count = [_short(y) for y in drawn.count]
    traces: list[Json] = []
    if drawn.deviation.any():
        high = [_short(y + d) for y, d in zip(drawn.count, drawn.deviation, strict=True)]
        low = [_short(max(y - d, 1e-3 * FLOOR)) for y, d in zip(drawn.count, drawn.deviation, strict=True)]
        traces.append(
            {
                "type": "scatter", "uid": f"band:{name}", "mode": "lines", "x": xs + xs[::-1], "y": high + low[::-1], "fill": "toself",
                "fillcolor": token(ink, 0.15), "line": {"width": 0, "color": token(ink, 0.15)}, "hoverinfo": "skip",
            }
        )  # fmt: skip
    traces.append(
        {
            "type": "scatter", "uid": f"density:{name}", "meta": {"layer": name}, "name": title, "mode": "lines", "x": xs, "y": count,
            "customdata": [_short(place.value(x)) for x in xs], "hovertemplate": f"{title}<br>%{{y:.3~s}} eigenvalues per decade<br>around %{{customdata:.2~g}}<extra></extra>",
            "line": {"color": token(ink), "width": 1.6, "dash": dash},
        }
    )  # fmt: skip
    return traces


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def _other_matrix(model: ExplorerModel, name: str, matrix: CurvatureMatrix, place: SymlogAxis) -> list[Json]:
    """One layer alone is drawn over its other matrix: where the Hessian leaves the Gauss-Newton matrix is what there is to see."""
    found: list[Json] = []
    for other, known in model.record.curvature[name].items():
        if other != matrix and known.density:
            drawn = _curve(known, place)
            words = escape(curvature.MATRICES[other])
            found.append(
                {
                    "type": "scatter", "uid": "other", "name": words, "mode": "lines", "x": [round(float(x), 4) for x in drawn.places],
                    "y": [_short(y) for y in drawn.count], "line": {"color": token("predicted"), "width": 1, "dash": "1.5px,2.5px"}, "hoverinfo": "name",
                }
            )  # fmt: skip
    return found[:1]


def _rungs(model: ExplorerModel, name: str, known: MatrixEstimates, place: SymlogAxis, y: int, ink: str) -> tuple[list[Json], list[Json]]:
    """Known eigenvalues as ticks, their residuals as whiskers; λ of half of the samples stands behind λmax, hollow."""
    ends = known.eigenvalues
    if ends is None:
        return [], []
    title = escape(model.labels[name].text)
    values = [*ends.bottom, *ends.top]
    residuals = [*ends.bottom_residuals, *ends.top_residuals]
    hover = [
        f"{title}<br>{kind} {rank}: {numbers.quantity(value)}"
        + (f", residual {numbers.quantity(residual)}" if residual > 1e-6 * abs(value) else "")
        for kind, rank, value, residual in (
            *(("smallest eigenvalue", i, v, r) for i, (v, r) in enumerate(zip(ends.bottom, ends.bottom_residuals, strict=True), 1)),
            *(("eigenvalue", i, v, r) for i, (v, r) in enumerate(zip(ends.top, ends.top_residuals, strict=True), 1)),
        )
    ]
    right = [rounded(place.place(v + r) - place.place(v)) for v, r in zip(values, residuals, strict=True)]
    left = [rounded(place.place(v) - place.place(v - r)) for v, r in zip(values, residuals, strict=True)]
    trace: Json = {
        "type": "scatter", "uid": f"rungs:{name}", "meta": {"layer": name, "clickable": True}, "customdata": [name] * len(values), "name": title, "mode": "markers",
        "x": [rounded(place.place(v)) for v in values], "y": [y] * len(values), "yaxis": "y2",
        "marker": {"symbol": "line-ns", "size": 8, "line": {"width": 1.5, "color": token(ink)}}, "hovertext": hover, "hoverinfo": "text", "cliponaxis": False,
        "error_x": {"type": "data", "symmetric": False, "array": right, "arrayminus": left, "color": token(ink, 0.5), "thickness": 1, "width": 0},
    }  # fmt: skip
    traces = [trace]
    half = ends.half_sample_top
    if half is not None and half > 0 and place.place(half) <= place.high:
        traces.append(
            {
                "type": "scatter", "uid": f"half:{name}", "name": title, "mode": "markers", "x": [rounded(place.place(half))], "y": [y], "yaxis": "y2",
                "marker": {"symbol": "line-ns", "size": 8, "line": {"width": 1.5, "color": token(ink, 0.4)}}, "hoverinfo": "text",
                "hovertext": [f"{title}<br>λmax on half of the samples: {numbers.quantity(half)}"], "cliponaxis": False,
            }
        )  # fmt: skip
    words = []
    positive = [v for v in ends.top if v > 0]
    if positive:
        words.append(
            note(
                f"λ<sub>max</sub> {numbers.quantity(positive[0])}", ink, x=rounded(place.place(positive[-1])), y=y, yref="y2",
                xanchor="right", yanchor="middle", xshift=-5,
            )
        )  # fmt: skip
    if ends.bottom and ends.bottom[0] < 0:
        words.append(
            note(
                f"λ<sub>min</sub> {numbers.quantity(ends.bottom[0])}", ink, x=rounded(place.place(ends.bottom[-1])), y=y, yref="y2",
                xanchor="left", yanchor="middle", xshift=5,
            )
        )  # fmt: skip
    return traces, words


def _furniture(place: SymlogAxis, base: float) -> list[Json]:
    """The negative side, shaded, and the line at zero."""
    return [
        {"type": "rect", "xref": "x", "yref": "paper", "x0": place.low, "x1": 0, "y0": 0, "y1": 1, "fillcolor": token("negative"), "line": {"width": 0}, "layer": "below"},
        {"type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "line": {"color": token("line-strong"), "width": 1}, "layer": "below"},
        {"type": "line", "xref": "paper", "yref": "paper", "x0": 0, "x1": 1, "y0": base, "y1": base, "line": {"color": token("line"), "width": 1}, "layer": "below"},
    ]  # fmt: skip


def _negative_side(place: SymlogAxis, share: float | None) -> Json:
    words = "negative curvature" + (f", {curvature.share_words(share)}" if share is not None else "")
    return note(words, "over", x=place.low, y=1, yref="paper", xanchor="left", yanchor="top", xshift=3, yshift=2)


def _outlier_words(known: MatrixEstimates) -> str:
    count = outliers(known).count
    return f"{count or 'no'} outlier{'s' * (count != 1)}"


def _bulk_edge(known: MatrixEstimates, place: SymlogAxis, base: float) -> tuple[list[Json], list[Json]]:
    """Where the bulk ends and the outliers begin, by name and as a line."""
    edge = outliers(known).edge
    above = {"y": 1, "yref": "paper", "yanchor": "top", "yshift": 2}
    if edge is None:
        return [note(_outlier_words(known), x=1, xref="paper", xanchor="right", xshift=_MENU, **above)], []
    at = rounded(place.place(edge))
    line = {"color": token("line-strong"), "width": 1, "dash": "3px,3px"}
    tight = place.high - place.place(edge) < _TIGHT * (place.high - place.low)
    where = (
        {"x": 1, "xref": "paper", "xanchor": "right", "xshift": _MENU, **above, "yshift": -11}
        if tight
        else {"x": at, "xanchor": "left", "xshift": 4, **above}
    )
    names = [note("bulk", x=at, xanchor="right", xshift=-4, **above), note(_outlier_words(known), **where)]
    return names, [{"type": "line", "xref": "x", "yref": "paper", "x0": at, "x1": at, "y0": base, "y1": 1, "line": line, "layer": "below"}]


def all_figure(model: ExplorerModel, matrix: CurvatureMatrix | None = None) -> Json:
    """Every layer's density, laid out as the plan (`ridges`)."""
    names = [name for name in model.labels if name in model.record.curvature]
    matrix = matrix or curvature.shown_matrix(model, names)
    known = {name: model.record.estimates(name, matrix) for name in names}
    picked = dict(zip(shown_layers(model), (ink for ink, _ in SERIES), strict=False)) if model.selection else {}
    return ridges(model.labels, {name: each for name, each in known.items() if _spectrum_known(each)}, picked)
