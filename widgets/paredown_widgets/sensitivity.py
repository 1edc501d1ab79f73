"""Every layer's sensitivity at the bits that the plan gives it."""

from __future__ import annotations

from functools import cache
from typing import Any

from paredown.specs import KEEP, Scheme
from paredown_widgets import numbers
from paredown_widgets.figures.style import rounded
from paredown_widgets.labels import short_name
from paredown_widgets.model import ExplorerModel
from paredown_widgets.schemes import bits_of
from paredown_widgets.sensitivities import choices, chosen, sensitivity

_UNITS = ((1.0, 1.0, "nats"), (1e-4, 1e3, "10⁻³ nats"), (0.0, 1e6, "10⁻⁶ nats"))  # from this largest value on


@cache
def _marks(scheme: Scheme) -> str:
    """Sparsity and rank, as the plan's cells have them: ``2:4 r16``."""
    rank = f"r{scheme.low_rank.rank}" if scheme.low_rank else ""
    return " ".join(filter(None, [str(scheme.sparsity or ""), rank]))


def _row(model: ExplorerModel, name: str, scheme: Scheme, value: float, deviation: float) -> dict[str, Any]:
    """One layer's bar; the same object as long as it says the same."""
    label = model.labels[name]

    def make() -> dict[str, Any]:
        return {
            "layer": name,
            "block": label.block_id or None,
            "label": label.text if model.order == "largest" else short_name(label),
            "title": label.text,
            "bits": str(bits_of(scheme) or "–"),
            "marks": _marks(scheme),
            "value": rounded(value),
            "low": rounded(value - deviation),
            "high": rounded(value + deviation),
            "text": numbers.fixed(value, 2) if abs(value) < 10 else numbers.significant(value),
        }

    return model.kept(f"bar {name}", (scheme, value, deviation, label, model.order), make)


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `sensitivity` trait."""
    choice = chosen(model)
    layers = {layer.name: layer for layer in model.record.layers}
    priced = []
    for name, scheme in model.editor.schemes.items():
        candidate = model.record.candidates.get(name, {}).get(scheme)
        found = sensitivity(model, choice, layers[name], candidate) if candidate is not None else None
        if found is not None:
            priced.append((name, scheme, *found))
    if model.order == "largest":
        priced.sort(key=lambda row: (-row[2], model.labels[row[0]].text))
    largest = max((abs(row[2]) for row in priced), default=0.0)
    factor, unit = next((f, u) for limit, f, u in _UNITS if largest >= limit)
    rows = [_row(model, name, scheme, value * factor, deviation * factor) for name, scheme, value, deviation in priced]
    return {
        "unit": unit,
        "what": choice.label,
        "title": f"{numbers.capital(choice.title)}; at the plan's bits",
        "kind": choice.id,
        "kinds": [{"id": each.id, "label": each.label} for each in choices(model)],
        "order": model.order,
        "rows": rows,
        "empty": "" if rows else _reason(model),
    }


def _reason(model: ExplorerModel) -> str:
    """Why no layer has a figure."""
    schemes = model.editor.schemes.values()
    if schemes and model.record.candidates and all(scheme == KEEP for scheme in schemes):
        return "This plan leaves every layer as shipped, so there is no loss to show. Give a layer fewer bits, or load another plan."
    return "Each layer's predicted loss increase appears here once it has been estimated."
