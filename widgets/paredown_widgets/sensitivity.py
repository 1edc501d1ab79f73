"""Every layer's predicted loss increase at the bits that the plan gives it."""

from __future__ import annotations

from typing import Any

from paredown_widgets import numbers
from paredown_widgets.model import ExplorerModel
from paredown_widgets.schemes import bits_of

_UNITS = ((1.0, 1.0, "nats"), (1e-4, 1e3, "10⁻³ nats"), (0.0, 1e6, "10⁻⁶ nats"))  # from this largest value on
_SHORT = {"embeddings": "emb", "positions": "pos", "pooler": "pool"}  # the column of names is narrow


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `sensitivity` trait."""
    priced = []
    for name, scheme in model.editor.schemes.items():
        candidate = model.record.candidates.get(name, {}).get(scheme)
        if candidate is not None:
            priced.append((name, scheme, candidate.loss_increase, candidate.loss_increase_sd))
    if model.order == "largest":
        priced.sort(key=lambda row: -row[2])
    largest = max((row[2] for row in priced), default=0.0)
    factor, unit = next((f, u) for limit, f, u in _UNITS if largest >= limit)
    kl = model.record.info is None or model.record.info.loss == "kl"
    rows = []
    for name, scheme, value, deviation in priced:
        label = model.labels[name]
        rows.append(
            {
                "layer": name,
                "block": label.block_id or None,
                "label": label.text if model.order == "largest" else _SHORT.get(label.column, label.column),
                "title": label.text,
                "bits": str(bits_of(scheme) or "–"),
                "value": value * factor,
                "low": max(0.0, value - deviation) * factor,
                "high": (value + deviation) * factor,
                "text": numbers.fixed(value * factor, 2) if value * factor < 10 else numbers.significant(value * factor),
            }
        )
    return {
        "unit": unit,
        "what": f"Predicted {'KL' if kl else 'loss increase'} at the plan's bits",
        "order": model.order,
        "rows": rows,
        "empty": "" if rows else "Each layer's predicted loss increase appears here once it has been estimated.",
    }
