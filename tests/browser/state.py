"""States of the explorer for the browser tests and the pictures: seeded inventions, shaped after MiniLM-L6 on movie reviews."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ROLES = ("q", "k", "v", "o", "fc1", "fc2")
SHAPES = {"fc1": (1536, 384), "fc2": (384, 1536)}
NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
EMBEDDINGS = "bert.embeddings.word_embeddings"
POOLER = "bert.pooler.dense"
STEP = {2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 8: 6, 16: 7}
BITS = (
    (3, 3, 6, 4, 3, 3),
    (3, 3, 4, 4, 3, 3),
    (3, 2, 3, 4, 2, 3),
    (2, 2, 3, 3, 3, 3),
    (3, 3, 4, 5, 4, 6),
    (4, 4, 4, 4, 3, 5),
)
COST = {"q": 0.36, "k": 0.3, "v": 1.55, "o": 1.45, "fc1": 2.6, "fc2": 3.4}
SYMLOG = 1e-3


def name(block: int, role: str) -> str:
    return f"bert.encoder.layer.{block}.{NAMES[role]}"


def pm(value: float, error: float, digits: int, unit: str = "") -> str:
    return f"{value:.{digits}f}{unit} ± {error:.{digits}f}"


def symlog(value: Any) -> Any:
    return np.sign(value) * np.log10(1 + np.abs(value) / SYMLOG)


def grid() -> dict[str, Any]:
    shape = {role: SHAPES.get(role, (384, 384)) for role in ROLES}
    return {
        "columns": [{"id": role, "label": role} for role in ROLES],
        "blocks": [{"id": str(block), "label": f"Block {block}"} for block in range(6)],
        "cells": [
            {
                "layer": name(block, role),
                "block": str(block),
                "column": role,
                "label": f"Block {block} {role}",
                "shape": f"{shape[role][0]} × {shape[role][1]}",
                "title": name(block, role),
            }
            for block in range(6)
            for role in ROLES
        ],
        "other": [
            {"layer": EMBEDDINGS, "label": "embeddings", "title": EMBEDDINGS, "fixed": False},
            {"layer": POOLER, "label": "pooler", "title": POOLER, "fixed": False},
            {"layer": "classifier", "label": "classifier 16", "title": "Kept as it is", "fixed": True},
        ],
    }


def plan() -> dict[str, Any]:
    cells = {}
    locked = {name(0, "v"), name(5, "fc2"), POOLER}
    edited = {name(4, "o"), name(4, "fc2"), EMBEDDINGS}
    wide = {name(1, "v"), name(4, "fc1"), name(5, "q"), name(5, "k")}
    bits = {name(block, role): BITS[block][i] for block in range(6) for i, role in enumerate(ROLES)} | {EMBEDDINGS: 3, POOLER: 8}
    for layer, value in bits.items():
        cells[layer] = {
            "text": str(value),
            "bits": value,
            "badge": "g32" if layer in wide else "",
            "locked": layer in locked,
            "edited": layer in edited,
            "color": STEP[value],
            "scheme": f"int{value}g{32 if layer in wide else 64}",
        }
    schemes = [{"id": f"int{b}g{g}", "label": f"{b} bit, groups of {g}"} for b in (2, 3, 4, 5, 6, 8) for g in (32, 64)]
    colours = [("bits", "Bits"), ("sensitivity", "Sensitivity"), ("bytes", "Bytes"), ("output_error", "Output error"), ("trace", "Trace")]
    return {
        "cells": cells,
        "selection": [name(1, "q"), name(4, "fc2")],
        "can_undo": True,
        "can_redo": False,
        "undo_label": "6 bit in block 4 fc2",
        "schemes": schemes,
        "bits": [2, 3, 4, 5, 6, 8],
        "color_by": "bits",
        "color_options": [{"id": i, "label": label} for i, label in colours],
        "legend": {"low": "2", "high": "16", "unit": "bit"},
        "selected": "2 selected of 38",
        "status": "",
        "edits": 3,
        "empty": "",
    }


def sensitivity() -> dict[str, Any]:
    rng = np.random.default_rng(7)
    rows = []

    def row(layer: str, block: int | None, label: str, bits: int, scale: float) -> dict[str, Any]:
        value = scale * 1e-3 * 4.6 ** (3 - min(bits, 6)) * rng.lognormal(0, 0.3)
        error = value * rng.uniform(0.08, 0.22)
        return {
            "layer": layer,
            "block": None if block is None else str(block),
            "label": label,
            "bits": str(bits),
            "value": value,
            "low": value - error,
            "high": value + error,
            "text": f"{1e3 * value:.2f}",
        }

    for block in range(6):
        for i, role in enumerate(ROLES):
            rows.append(row(name(block, role), block, role, BITS[block][i], COST[role] * (1.2, 0.8, 0.7, 0.75, 1, 1.5)[block]))
    rows += [row(EMBEDDINGS, None, "emb", 3, 3.1), row(POOLER, None, "pool", 8, 0.2)]
    return {"unit": "10⁻³ nats", "what": "Predicted KL at the plan's bits", "order": "model", "rows": rows, "empty": ""}


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


def spectrum() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    top = {name(4, "fc2"): 3.37, name(1, "q"): 0.299}
    data, notes = [], []
    for i, (layer, value) in enumerate(top.items()):
        eigenvalues = value * np.sort(np.concatenate([[1], rng.uniform(0.04, 0.7, 15)]))[::-1]
        series = "ab"[i]
        rank = np.arange(1, 17)
        data.append(
            {
                "uid": layer,
                "type": "scatter",
                "mode": "lines+markers",
                "meta": {"clickable": True, "layer": layer},
                "x": rank.tolist(),
                "y": eigenvalues.tolist(),
                "customdata": [[layer]] * 16,
                "error_y": {
                    "type": "data",
                    "array": (0.08 * eigenvalues).tolist(),
                    "color": f"token:{series}@0.5",
                    "thickness": 1,
                    "width": 0,
                },
                "line": {"color": f"token:{series}", "width": 1.6, "dash": "5px,2px" if i else "solid"},
                "marker": {"size": 6, "symbol": "diamond" if i else "circle", "color": f"token:{series}"},
                "hovertemplate": "eigenvalue %{x}: %{y:.3g}<extra></extra>",
            }
        )
    layout = {
        "xaxis": {"title": "Rank", "range": [0.5, 16.5], "tickvals": [1, 2, 4, 6, 8, 10, 12, 14, 16], "showgrid": False},
        "yaxis": {"title": "Eigenvalue (log)", "type": "log", "dtick": 1, "range": [-2.2, 0.8]},
        "annotations": notes,
    }
    return {
        "figure": {"data": data, "layout": layout},
        "mode": "selected",
        "title": "Top eigenvalues of the Gauss–Newton matrix",
        "label": "Top 16 eigenvalues of block 4 fc2 and block 1 q",
        "legend": [
            {"label": "Block 4 fc2", "text": "trace 20.9 ± 1.4, λmax 3.37 ± 0.16"},
            {"label": "Block 1 q", "text": "trace 2.81 ± 0.22, λmax 0.299 ± 0.010"},
        ],
        "empty": "",
    }


def minilm(**changes: Any) -> dict[str, Any]:
    """The explorer in the middle of a run, with three edits since the plan was measured."""
    stages = [("load", "Load"), ("baseline", "Baseline"), ("sensitivity", "Sensitivity"), ("search", "Search"), ("measure", "Measure")]
    state: dict[str, Any] = {
        "theme": "light",
        "seq": 1,
        "want_png": 0,
        "clipboard": {"n": 0, "text": ""},
        "head": {
            "model": "MiniLM-L6",
            "task": "movie-review sentiment",
            "notice": "",
            "baseline": "85.8 % ± 1.6, n 500",
            "original": "90.9 MB float32",
            "study": "sentiment-01",
            "split": "held-out",
        },
        "run": {
            "state": "running",
            "stages": [{"id": i, "label": label, "state": "now" if i == "measure" else "done"} for i, label in stages],
            "share": 0.6,
            "label": "Measuring plans",
            "detail": "24 of 40",
            "left": "0:34 left",
            "rate": "2.1 s per plan",
            "memory": "1.1 GB",
            "message": "",
            "remedy": "",
            "can": ["pause", "cancel"],
        },
        "budget": {
            "bytes": 11_000_000,
            "text": "11.00",
            "unit": "MB",
            "smallest": 6_140_000,
            "largest": 24_500_000,
            "ticks": [
                {"label": f"W{bits}", "text": f"{size / 1e6:.3g} MB", "bytes": size}
                for bits, size in ((2, 6_950_000), (3, 9_810_000), (4, 12_700_000), (8, 24_100_000))
            ],
            "plan_bytes": 10_320_000,
            "plan_text": "10.3 MB",
            "verdict": "0.68 MB under",
            "kind": "under",
            "smallest_text": "6.14 MB",
        },
        "grid": grid(),
        "plan": plan(),
        "summary": {
            "chip": {"text": "3 edits since measured", "kind": "warn"},
            "columns": ["Original", "Predicted", "Measured, stale"],
            "stale": True,
            "rows": [
                {"label": "Size", "original": "90.9 MB", "predicted": "10.3 MB", "measured": "8.62 MB"},
                {"label": "Bits per weight", "original": "32", "predicted": "3.49", "measured": "2.87"},
                {"label": "KL to original, nats", "original": "0", "predicted": pm(0.038, 0.004, 3), "measured": pm(0.049, 0.005, 3)},
                {"label": "Accuracy", "original": "85.8 %", "predicted": "–", "measured": pm(83.8, 1.6, 1, " %")},
                {"label": "Loss increase, nats", "original": "0", "predicted": "–", "measured": pm(0.058, 0.009, 3)},
                {"label": "Flipped predictions", "original": "0", "predicted": "–", "measured": "4.8 %, 24 of 500"},
            ],
            "note": "Uniform W3 at 9.81 MB: accuracy 83.6 % ± 1.7, KL 0.064",
            "measure": {"enabled": True, "label": "Measure"},
            "fill": {"enabled": True, "text": "3 locked, 35 free, to 11.0 MB"},
        },
        "sensitivity": sensitivity(),
        "front": front(),
        "spectrum": spectrum(),
        "what_if": {
            "columns": ["bits", "size, kB", "KL, 10⁻³ nats"],
            "rows": {
                name(4, "fc2"): [
                    {"bits": bits, "cells": [str(bits), str(round(bits * 79)), pm(9 * 4.6 ** (2 - bits), 2 * 4.6 ** (2 - bits), 3)]}
                    for bits in (4, 5, 6, 8)
                ]
            },
            "note": {name(4, "fc2"): "λmax 3.37 ± 0.16"},
        },
        "log": {
            "lines": [
                {
                    "time": "10:02:11",
                    "level": "load",
                    "text": "MiniLM-L6, 22.7 M weights, 38 layers can be compressed, 1 kept (classifier)",
                },
                {"time": "10:02:14", "level": "baseline", "text": "500 reviews, accuracy 85.8 % ± 1.6"},
                {
                    "time": "10:03:24",
                    "level": "warning",
                    "text": "block 0 q: trace within two standard errors of zero; ranked by output error instead",
                },
                {"time": "10:03:38", "level": "measure", "text": "plan 11: 16.2 MB, accuracy 85.8 % ± 1.6, 2.1 s"},
            ]
        },
        "export": {
            "status": "",
            "kind": "",
            "targets": [
                {"id": "plan", "label": "Plan as JSON", "refused": ""},
                {"id": "compressed-tensors", "label": "compressed-tensors checkpoint", "refused": "Block 3 q: 3 bit is not in the format"},
            ],
        },
        "error": None,
    }
    return state | changes


def deep(blocks: int = 32, **changes: Any) -> dict[str, Any]:
    """A language model of many blocks with 7 roles: the plan turns."""
    rng = np.random.default_rng(11)
    roles = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj", "gate": "mlp.gate_proj"}
    roles |= {"up": "mlp.up_proj", "down": "mlp.down_proj"}
    cells, states, rows = [], {}, []
    for block in range(blocks):
        for role, path in roles.items():
            layer = f"model.layers.{block}.{path}"
            bits = int(
                np.clip(
                    (4 if role in {"v", "o", "down"} else 3) + (block in {0, 1, blocks - 2, blocks - 1}) + rng.choice([-1, 0, 0, 0, 1]),
                    2,
                    6,
                )
            )
            value = float(rng.lognormal(-7.5, 0.8))
            cells.append(
                {
                    "layer": layer,
                    "block": str(block),
                    "column": role,
                    "label": f"Block {block} {role}",
                    "shape": "4096 × 4096",
                    "title": layer,
                }
            )
            states[layer] = {
                "text": str(bits),
                "bits": bits,
                "badge": "g32" if rng.random() < 0.05 else "",
                "locked": bool(rng.random() < 0.03),
                "edited": bool(rng.random() < 0.04),
                "color": STEP[bits],
            }
            rows.append(
                {
                    "layer": layer,
                    "block": str(block),
                    "label": role,
                    "bits": str(bits),
                    "value": value,
                    "low": 0.85 * value,
                    "high": 1.15 * value,
                    "text": f"{1e3 * value:.2f}",
                }
            )
    chosen = [f"model.layers.{block}.{roles[role]}" for role in ("gate", "up") for block in range(12, 16)]
    embeddings = {"layer": "model.embed_tokens", "label": "embeddings", "title": "tied to lm_head", "fixed": False}
    states["model.embed_tokens"] = {"text": "4", "bits": 4, "badge": "", "locked": True, "edited": False, "color": 3}
    state = minilm()
    state["grid"] = {
        "columns": [{"id": role, "label": role} for role in roles],
        "blocks": [{"id": str(block), "label": f"Block {block}"} for block in range(blocks)],
        "cells": cells,
        "other": [embeddings, {"layer": "lm_head", "label": "lm_head tied", "title": "Tied to the embeddings", "fixed": True}],
    }
    state["plan"] |= {"cells": states, "selection": chosen, "selected": "8 selected of 225"}
    state["sensitivity"] |= {"rows": rows}
    state["head"] |= {
        "model": "Llama-3.1-8B",
        "task": "WikiText perplexity",
        "baseline": "6.24 ± 0.05, n 141",
        "original": "16.1 GB bfloat16",
    }
    return state | changes


def idle(**changes: Any) -> dict[str, Any]:
    """Before the first run: the layers are known, nothing is estimated."""
    state = minilm()
    plain = {
        layer: cell | {"text": "32", "bits": None, "badge": "", "locked": False, "edited": False, "color": 7}
        for layer, cell in state["plan"]["cells"].items()
    }
    state["plan"] |= {"cells": plain, "selection": [], "can_undo": False, "edits": 0}
    state["run"] |= {
        "state": "idle",
        "label": "Not run yet",
        "detail": "",
        "left": "about 3 min",
        "rate": "",
        "memory": "",
        "share": 0,
        "can": ["run"],
    }
    state["run"]["stages"] = [stage | {"state": "todo"} for stage in state["run"]["stages"]]
    state["head"] |= {"baseline": "–"}
    state["budget"] = {
        "bytes": None,
        "text": "",
        "unit": "MB",
        "smallest": None,
        "largest": None,
        "ticks": [],
        "plan_bytes": None,
        "verdict": "",
        "kind": "none",
    }
    state["summary"] |= {
        "chip": {"text": "not measured", "kind": ""},
        "rows": [],
        "stale": False,
        "note": "",
        "measure": {"enabled": False, "label": "Measure"},
    }
    state["summary"] |= {"fill": {"enabled": False, "text": ""}}
    state["front"] = {
        "figure": None,
        "count": "",
        "y": "kl",
        "y_options": [],
        "label": "",
        "empty": "The front appears here, plan by plan, while the study runs.",
    }
    state["spectrum"] = {
        "figure": None,
        "mode": "selected",
        "legend": [],
        "empty": "Curvature has not been estimated yet. It runs with the sensitivity, about 1 min.",
    }
    state["sensitivity"] |= {"rows": [], "empty": "Each layer's predicted KL appears here once it has been estimated."}
    state["log"] = {"lines": []}
    state["export"] = {"status": "", "kind": "", "targets": []}
    return state | changes
