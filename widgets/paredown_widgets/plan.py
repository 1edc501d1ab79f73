"""The plan: blocks down, roles across; its cells, its colours, and what a change of one layer would mean."""

from __future__ import annotations

import math
from typing import Any

from paredown.specs import KEEP, LayerRef, Scheme
from paredown_widgets import curvature, numbers
from paredown_widgets.model import COLORS, ExplorerModel
from paredown_widgets.schemes import bits_of, describe_all, short

_DTYPE_BITS = {"float32": "32", "float16": "16", "bfloat16": "16", "float64": "64"}
_STEPS = 8  # of the sequential ramp q0..q7
_BITS_RAMP = {2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 8: 6}  # the deepest is left for a layer that is kept


def grid(model: ExplorerModel) -> dict[str, Any]:
    """State of the `grid` trait: constant once the layers are known."""
    labels, layers = model.labels, model.record.layers
    inside = [layer for layer in layers if labels[layer.name].block] if labels else []
    outside = [layer for layer in layers if not labels[layer.name].block] if labels else []
    columns = dict.fromkeys(labels[layer.name].column for layer in inside)
    blocks = {labels[layer.name].block_id: labels[layer.name].block for layer in inside}
    return {
        "columns": [{"id": column, "label": column} for column in columns],
        "blocks": [{"id": block, "label": label} for block, label in blocks.items()],
        "cells": [
            {
                "layer": layer.name,
                "block": labels[layer.name].block_id,
                "column": labels[layer.name].column,
                "label": labels[layer.name].text,
                "shape": _shape(layer),
                "title": _title(layer),
                "group": list(model.editor.groups.get(layer.name, (layer.name,))),
            }
            for layer in inside
        ],
        "other": [{"layer": layer.name, "label": labels[layer.name].text, "title": _title(layer), "fixed": False} for layer in outside],
    }


def _shape(layer: LayerRef) -> str:
    return f"{layer.shape[0]:,} × {layer.shape[1]:,}"


def _title(layer: LayerRef) -> str:
    lines = [layer.name, f"{_shape(layer)}, {layer.dtype}"]
    if layer.tied_to:
        lines.append(f"tied to {', '.join(layer.tied_to)}")
    if layer.fused_with:
        lines.append("decided together with " + ", ".join(name.rsplit(".", 1)[-1] for name in layer.fused_with))
    return "\n".join(lines)


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `plan` trait."""
    editor, edited = model.editor, model.edited()
    values = _values(model)
    ramp, legend = _ramp(model, values)
    dtypes = {layer.name: layer.dtype for layer in model.record.layers}
    matches = model.matches()
    picked = [name for name in model.selection if name in editor.schemes]
    return {
        "cells": {
            name: {
                "text": _text(scheme, dtypes[name]),
                "bits": bits_of(scheme),
                "scheme": str(scheme),
                "badge": _badge(model, name, scheme),
                "locked": name in editor.locked,
                "edited": name in edited,
                "color": ramp.get(name),
            }
            for name, scheme in editor.schemes.items()
        },
        "selection": picked,
        "can_undo": editor.can_undo,
        "can_redo": editor.can_redo,
        "undo_label": editor.undo_label,
        "schemes": [
            {"id": str(scheme), "label": label}
            for scheme, label in zip(model.choices.schemes, describe_all(model.choices.schemes), strict=True)
        ],
        "bits": list(model.choices.bits),
        "color_by": model.color_by,
        "color_options": [{"id": key, "label": label} for key, label in COLORS.items()],
        "legend": legend,
        "selected": f"{len(picked)} selected of {len(editor.schemes)}" if picked else "",
        "filter": {
            "text": model.filter,
            "matches": None if matches is None else list(matches),
            "note": "" if matches is None else f"{len(matches)} of {len(editor.schemes)}",
        },
        "status": model.status,
        "edits": model.edits(),
        "empty": ""
        if editor.schemes
        else "The model's layers appear here as soon as it is loaded" + ("." if model.running else "; press Run."),
    }


def _text(scheme: Scheme, dtype: str) -> str:
    bits = bits_of(scheme)
    if bits is None and scheme != KEEP:
        return str(scheme.sparsity or f"r{scheme.low_rank and scheme.low_rank.rank}")
    return _DTYPE_BITS.get(dtype, dtype) if bits is None else str(bits)


def _badge(model: ExplorerModel, name: str, scheme: Scheme) -> str:
    """What the digit does not say: sparsity and rank, or another group size than the study's first scheme has."""
    candidate = model.record.candidates.get(name, {}).get(scheme)
    applied = candidate.effective if candidate else scheme
    if applied.weight is not None and not applied.is_plain:
        parts = [applied.weight.kind if applied.weight.kind != "int" else "", str(applied.activation or ""), str(applied.sparsity or "")]
        return " ".join(filter(None, [*parts, f"r{applied.low_rank.rank}" if applied.low_rank else ""]))
    usual = model.choices.schemes[0].weight if model.choices.schemes else None
    if applied.weight is None or usual is None or applied.weight.group_size == usual.group_size:
        return ""
    return "row" if applied.weight.group_size is None else f"g{applied.weight.group_size}"


def _values(model: ExplorerModel) -> dict[str, float]:
    """Layer name to the number that colours its cell."""
    values: dict[str, float] = {}
    matrix = curvature.shown_matrix(model, list(model.labels))
    for name, scheme in model.editor.schemes.items():
        candidate = model.record.candidates.get(name, {}).get(scheme)
        value: float | None = None
        if model.color_by == "bits":
            value = bits_of(scheme) or 16
        elif model.color_by == "negative_share":
            value = curvature.negative(model, name)
        elif model.color_by in ("trace", "top_eigenvalue"):
            known = model.record.estimates(name, matrix)
            value = curvature.top(known) if model.color_by == "top_eigenvalue" else known.trace.value if known.trace else None
        elif candidate is not None:
            value = {"sensitivity": candidate.loss_increase, "bytes": candidate.bytes, "output_error": candidate.output_error}[
                model.color_by
            ]
        if value is not None:
            values[name] = float(value)
    return values


def _ramp(model: ExplorerModel, values: dict[str, float]) -> tuple[dict[str, int], dict[str, str]]:
    """Steps of the ramp, and what its ends mean. Bits by their place on the ladder; the rest by logarithm, the lowest 1/300 as one."""
    if model.color_by == "bits":
        ladder = list(model.choices.bits)
        steps = {name: _BITS_RAMP.get(int(bits), _STEPS - 1) for name, bits in values.items()}
        return steps, {"low": str(ladder[0]) if ladder else "", "high": str(ladder[-1]) if ladder else "", "unit": "bit"}
    positive = [value for value in values.values() if value > 0]
    if not positive:
        return {}, {"low": "", "high": "", "unit": ""}
    high = max(positive)
    low = max(min(positive), high / 300)
    span = math.log(high / low) or 1.0
    steps = {name: round((_STEPS - 1) * min(1.0, math.log(max(value, low) / low) / span)) for name, value in values.items()}
    matrix = curvature.MATRICES[curvature.shown_matrix(model, list(model.labels))]
    factor, unit = {
        "sensitivity": (1e3, "10⁻³ nats"), "bytes": (1e-3, "kB"), "output_error": (1e2, "%"), "negative_share": (1e2, "%, Hessian"),
        "trace": (1.0, matrix), "top_eigenvalue": (1.0, matrix),
    }[model.color_by]  # fmt: skip
    low, high = (numbers.significant(value * factor, 2) for value in (low, high))
    return steps, {"low": f"≤ {low}", "high": high, "unit": unit}


def what_if(model: ExplorerModel) -> dict[str, Any]:
    """State of the `what_if` trait: for every layer what each scheme would cost; constant once the candidates are known."""
    per_layer: dict[str, Any] = {}
    notes: dict[str, str] = {}
    for name in model.editor.schemes:
        offered = model.record.candidates.get(name, {})
        rows = [
            {
                "bits": bits_of(scheme),
                "scheme": str(scheme),
                "cells": [
                    short(scheme),
                    numbers.significant(offered[scheme].bytes / 1e3),
                    numbers.with_error(offered[scheme].loss_increase * 1e3, offered[scheme].loss_increase_sd * 1e3),
                ],
            }
            for scheme in model.choices.schemes
            if scheme in offered
        ]
        if rows:
            per_layer[name] = rows
            known = model.record.estimates(name)
            words = sorted({candidate.note for candidate in offered.values() if candidate.note})
            if known.trace is not None:
                words.insert(0, f"trace {numbers.with_error(known.trace.value, known.trace.data_sd)}")
            if known.eigenvalues is not None and known.eigenvalues.top:
                words.insert(0, f"λmax {numbers.significant(known.eigenvalues.top[0])}")
            notes[name] = ", ".join(words)
    what = "KL" if model.record.info is None or model.record.info.loss == "kl" else "loss"
    return {"columns": ["bits", "size, kB", f"{what}, 10⁻³ nats"], "rows": per_layer, "note": notes}
