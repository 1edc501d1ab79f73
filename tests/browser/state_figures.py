"""Figures of the explorer for the browser tests and the pictures, at the level that the Python half is to reach."""

from __future__ import annotations

import math
import tempfile
from functools import cache
from typing import Any

import numpy as np

from fake_study import FakeStudy
from paredown_widgets.figures import spectrum as spectra
from paredown_widgets.model import ExplorerModel

FC2_4 = "bert.encoder.layer.4.output.dense"
Q_1 = "bert.encoder.layer.1.attention.self.query"


def front(y: str = "metric", points: int = 24) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    log = y != "metric"
    size = np.geomspace(6.5, 24.1, 60)
    loss = 2.3 * np.exp(-0.42 * (size - 6.2)) * 0.1 + 0.0012
    value = loss if log else 85.8 - 37 * loss / (1 + 0.25 * loss)
    deviation = 0.11 * loss if log else 0.35 + 30 * 0.09 * loss
    at = np.sort(rng.uniform(7.2, 17.5, 24))[:points]
    truth = np.interp(at, size, loss)
    error = 0.1 * truth + 0.0008 if log else np.full(at.size, 1.6)
    seen = truth * rng.lognormal(0, 0.09, at.size) if log else np.round((np.interp(at, size, value) + rng.normal(0, 0.7, at.size)) * 5) / 5
    uniform_x = np.array([6.95, 9.81, 12.7, 24.1])
    uniform = np.array([0.31, 0.064, 0.021, 0.0013]) if log else np.array([79.1, 83.6, 85.0, 86.0])
    uniform_error = (0.1 * uniform + 0.0008) if log else np.array([0, 1.7, 1.6, 1.55])
    labels = ["W2", "W3", "W4", "W8"] if log else ["W2<br>73.4 ↓", "W3", "W4", "W8"]
    was, now = (8.62, float(np.interp(8.62, size, value))), (10.3, float(np.interp(10.3, size, value)))
    hover = "%{customdata[1]}, measured<br>%{x:.2f} MB<br>%{y:.3g}<extra></extra>"
    band = {"x": [*size, *size[::-1]], "y": [*(value + deviation), *(value - deviation)[::-1]], "fill": "toself", "fillcolor": "token:band"}
    range_y = [-3.08, -0.22] if log else [78.6, 88.4]
    star = {"symbol": "star", "size": 14, "color": "token:plan"}
    data = [
        {"uid": "band", "type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", **_lists(band)},
        {
            "uid": "front",
            "type": "scatter",
            "mode": "lines",
            "line": {"color": "token:predicted", "width": 1.4},
            "hoverinfo": "skip",
            **_lists({"x": size, "y": value}),
        },
        {
            "uid": "measured",
            "type": "scatter",
            "mode": "markers",
            "meta": {"clickable": True},
            **_lists({"x": at, "y": seen}),
            "customdata": [[f"digest{i}", f"plan {i + 11}"] for i in range(at.size)],
            "error_y": {"type": "data", "array": error.tolist(), "color": "token:measured@0.35", "thickness": 1, "width": 0},
            "marker": {"size": 7, "color": "token:measured", "line": {"width": 1, "color": "token:surface"}},
            "hovertemplate": hover,
        },
        {
            "uid": "uniform",
            "type": "scatter",
            "mode": "markers+text",
            "meta": {"clickable": True},
            **_lists({"x": uniform_x, "y": uniform}),
            "customdata": [[f"uniform{bits}", f"uniform W{bits}"] for bits in (2, 3, 4, 8)],
            "text": labels,
            "textposition": ["top right"] * 4 if log else ["top center", "bottom left", "bottom left", "bottom left"],
            "textfont": {"size": 11, "color": "token:uniform"},
            "cliponaxis": False,
            "error_y": {"type": "data", "array": uniform_error.tolist(), "color": "token:uniform@0.53", "thickness": 1, "width": 0},
            "marker": {"symbol": "diamond", "size": 10, "color": "token:surface", "line": {"width": 1.6, "color": "token:uniform"}},
            "hovertemplate": hover,
        },
        {
            "uid": "edit",
            "type": "scatter",
            "mode": "lines",
            "x": [was[0], now[0]],
            "y": [was[1], now[1]],
            "line": {"color": "token:plan", "width": 1, "dash": "dot"},
            "hoverinfo": "skip",
        },
        {
            "uid": "plan measured",
            "type": "scatter",
            "mode": "markers",
            "x": [was[0]],
            "y": [was[1]],
            "opacity": 0.5,
            "marker": star,
            "hovertemplate": "this plan as measured, before the edits<br>%{x:.2f} MB, %{y:.3g}<extra></extra>",
        },
        {
            "uid": "plan predicted",
            "type": "scatter",
            "mode": "markers",
            "x": [now[0]],
            "y": [now[1]],
            "error_y": {"type": "data", "array": [0.006 if log else 0.4], "color": "token:plan", "thickness": 1, "width": 3},
            "marker": {"symbol": "star", "size": 15, "color": "token:surface", "line": {"width": 1.7, "color": "token:plan"}},
            "hovertemplate": "this plan, predicted<br>%{x:.2f} MB, %{y:.3g}<extra></extra>",
        },
    ]
    shapes = [
        {
            "type": "line",
            "x0": now[0],
            "x1": now[0],
            "y0": 10 ** range_y[0] if log else range_y[0],
            "y1": now[1],
            "line": {"color": "token:plan", "width": 1, "dash": "2px,2px"},
            "layer": "below",
        },
        {
            "type": "line",
            "x0": 11,
            "x1": 11,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": "token:ink", "width": 1},
            "layer": "below",
        },
    ]
    notes = [
        {
            "x": math.log10(11),
            "y": 1,
            "yref": "paper",
            "yanchor": "top",
            "xanchor": "left",
            "xshift": 3,
            "yshift": 3,
            "text": "budget 11.00",
            "showarrow": False,
            "font": {"size": 10.5, "color": "token:ink"},
        }
    ]
    if not log:
        whole = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
        shapes += [
            {"type": "rect", **whole, "y0": 84.24, "y1": 87.36, "fillcolor": "token:base-band", "line": {"width": 0}},
            {"type": "line", **whole, "y0": 85.8, "y1": 85.8, "line": {"color": "token:base", "width": 1, "dash": "4px,3px"}},
        ]
        notes.append(
            {
                "xref": "paper",
                "x": 0.005,
                "xanchor": "left",
                "y": 85.8,
                "yanchor": "bottom",
                "text": "original 85.8",
                "showarrow": False,
                "font": {"size": 10.5, "color": "token:base"},
            }
        )
    layout = {
        "xaxis": {
            "type": "log",
            "range": [math.log10(6.45), math.log10(26.5)],
            "tickvals": [7, 8, 9, 10, 12, 14, 16, 20, 24],
            "title": "Size, MB (log)",
            "showgrid": False,
        },
        "yaxis": {
            "type": "log" if log else "linear",
            "range": range_y,
            "title": "KL to the original, nats (log)" if log else "Accuracy, %",
            "nticks": 8,
            **({"dtick": 1} if log else {}),
        },
        "shapes": shapes,
        "annotations": notes,
    }
    return {
        "figure": {"data": data, "layout": layout},
        "count": f"{at.size} measured",
        "y": y,
        "y_options": [{"id": "kl", "label": "KL"}, {"id": "metric", "label": "Accuracy"}, {"id": "loss", "label": "Loss"}],
        "label": f"Accuracy against size, {at.size} measured plans. This plan: 10.3 MB, predicted 84.2 %",
        "empty": "",
    }


def _lists(arrays: dict[str, Any]) -> dict[str, Any]:
    return {key: [float(v) for v in value] if key in {"x", "y"} else value for key, value in arrays.items()}


def spectrum(*selection: str, mode: str = "selected", matrix: str = "auto", blocks: int = 6, share: float = 1.0) -> dict[str, Any]:
    """What the explorer makes of a study's curvature; of block 4 fc2 and block 1 q unless others are selected."""
    model = _curved(blocks, share)
    model.selection = list(selection or ((FC2_4, Q_1) if mode != "all" else ()))
    model.spectrum_mode, model.spectrum_matrix = mode, matrix
    return spectra.view(model) | {"estimate": {"enabled": True, "label": "Estimate Hessian", "title": "Estimate the true Hessian"}}


@cache
def _curved(blocks: int, share: float) -> ExplorerModel:
    """A study of that many blocks that has got as far as its spectra, and the Hessian of a share of its layers."""
    study = FakeStudy(tempfile.mkdtemp(), blocks=blocks, hessian_share=share)
    for _ in zip(range(1 + len(study.layers)), study.steps(), strict=False):
        pass
    for _ in study.hessians():
        pass
    model = ExplorerModel(study)
    model.refresh()
    return model
