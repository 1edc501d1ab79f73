"""States of the explorer for the browser tests and the pictures: seeded inventions, shaped after MiniLM-L6 on movie reviews."""

from __future__ import annotations

from typing import Any

import numpy as np

from browser.state_figures import front, spectrum
from paredown_widgets.choices import SchemeChoices
from paredown_widgets.handles import offer

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


def name(block: int, role: str) -> str:
    return f"bert.encoder.layer.{block}.{NAMES[role]}"


def pm(value: float, error: float, digits: int, unit: str = "") -> str:
    return f"{value:.{digits}f}{unit} ± {error:.{digits}f}"


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
            "at": f"{value}|none|none",
            "said": ", ".join([f"{value} bit", *["g32"] * (layer in wide)]),
            "badge": "g32" if layer in wide else "",
            "sparsity": "",
            "rank": "",
            "locked": layer in locked,
            "edited": layer in edited,
            "color": STEP[value],
            "scheme": f"int{value}g{32 if layer in wide else 64}",
        }
    colours = [("bits", "Bits"), ("sensitivity", "Sensitivity"), ("bytes", "Bytes"), ("output_error", "Output error"), ("trace", "Trace")]
    return {
        "cells": cells,
        "selection": [name(1, "q"), name(4, "fc2")],
        "can_undo": True,
        "can_redo": False,
        "undo_label": "6 bit in block 4 fc2",
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


def minilm(**changes: Any) -> dict[str, Any]:
    """The explorer in the middle of a run, with three edits since the plan was measured."""
    names = ("load", "spectra", "baseline", "sensitivity", "search", "measure", "hessian")
    stages = [(stage, stage.capitalize()) for stage in names]
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
            "stages": [
                {"id": i, "label": label, "state": "now" if i == "measure" else "todo" if i == "hessian" else "done"} for i, label in stages
            ],
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
            "amount": 11.0,
            "text": "11.00",
            "unit": "MB",
            "units": [{"id": "MB", "label": "MB"}, {"id": "bits", "label": "bits a weight"}, {"id": "ms", "label": "ms a token"}],
            "digits": 2,
            "smallest": 6.14,
            "largest": 24.5,
            "ticks": [
                {"label": f"W{bits}", "text": f"{size:.3g} MB", "amount": size}
                for bits, size in ((2, 6.95), (3, 9.81), (4, 12.7), (8, 24.1))
            ],
            "plan": 10.32,
            "plan_text": "10.3 MB",
            "verdict": "0.68 MB under",
            "kind": "under",
            "smallest_text": "6.14 MB",
        },
        "grid": grid(),
        "handles": offer(SchemeChoices.of([f"int{b}g{g}" for b in (2, 3, 4, 5, 6, 8) for g in (32, 64)]), {}),
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
                    {
                        "scheme": f"int{bits}g64",
                        "group": "",
                        "cells": [str(bits), str(round(bits * 79)), pm(9 * 4.6 ** (2 - bits), 2 * 4.6 ** (2 - bits), 3)],
                    }
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
                "at": f"{bits}|none|none",
                "said": f"{bits} bit",
                "badge": "g32" if rng.random() < 0.05 else "",
                "sparsity": "",
                "rank": "",
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
    states["model.embed_tokens"] = {
        "text": "4",
        "bits": 4,
        "at": "4|none|none",
        "said": "4 bit",
        "badge": "",
        "locked": True,
        "edited": False,
        "color": 3,
    }
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
        layer: cell
        | {
            "text": "32",
            "bits": None,
            "at": "kept|none|none",
            "said": "kept as it is",
            "badge": "",
            "locked": False,
            "edited": False,
            "color": 7,
        }
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
        "amount": None,
        "text": "",
        "unit": "MB",
        "smallest": None,
        "largest": None,
        "ticks": [],
        "plan": None,
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
