"""The plan: blocks down, roles across; its cells and its colours."""

from __future__ import annotations

import math
from typing import Any

from paredown.specs import KEEP, LayerRef, Scheme
from paredown_widgets import curvature, handles, numbers
from paredown_widgets.choices import part_words, position, value_of
from paredown_widgets.model import COLORS, ExplorerModel
from paredown_widgets.schemes import bits_of, describe

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
                **_marks(model, name, scheme),
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
        "color_by": model.color_by,
        "color_options": [
            {"id": color, "label": label}
            for color, label in COLORS.items()
            if (color != "sparsity" and color != "rank") or len(model.choices.values(color)) > 1
        ],
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
    if scheme.weight is None and scheme.sparsity is None and scheme.low_rank is not None:
        return f"r{scheme.low_rank.rank}"  # factors in place of the weight
    return _DTYPE_BITS.get(dtype, dtype) if scheme.weight is None else str(scheme.weight.bits)


def _marks(model: ExplorerModel, name: str, scheme: Scheme) -> dict[str, str]:
    """What the digit does not say: where the handles stand, the marks of sparsity and rank, and number formats that need a word."""
    candidate = model.record.candidates.get(name, {}).get(scheme)
    applied = candidate.effective if candidate else scheme
    badge, sparsity = _format(model, applied), str(applied.sparsity or "")
    rank = applied.low_rank.rank if applied.low_rank and (applied.weight or applied.sparsity) else None
    said = [f"{bits_of(applied)} bit" if applied.weight else describe(KEEP) if applied == KEEP else "", badge]
    said += [part_words(applied, "sparsity"), f"rank {applied.low_rank.rank}" if applied.low_rank else ""]
    marks = {"badge": badge, "sparsity": sparsity, "rank": f"r{rank}" if rank else ""}
    return {"at": handles.key(position(scheme)), "said": ", ".join(filter(None, said)), **marks}


def _format(model: ExplorerModel, applied: Scheme) -> str:
    """Another kind of number, rounded inputs, or another group size than the study's first scheme has."""
    usual = model.choices.schemes[0].weight if model.choices.schemes else None
    if applied.weight is None or usual is None:
        return ""
    group = "" if applied.weight.group_size == usual.group_size else f"g{applied.weight.group_size}" if applied.weight.group_size else "row"
    kind = "" if applied.weight.kind == "int" else applied.weight.kind
    return " ".join(filter(None, [kind, str(applied.activation or ""), group if applied.is_plain else ""]))


def _values(model: ExplorerModel) -> dict[str, float]:
    """Layer name to the number that colours its cell."""
    values: dict[str, float] = {}
    matrix = curvature.shown_matrix(model, list(model.labels))
    for name, scheme in model.editor.schemes.items():
        candidate = model.record.candidates.get(name, {}).get(scheme)
        value: float | None = None
        if model.color_by == "bits":
            value = bits_of(scheme) or 16
        elif model.color_by in ("sparsity", "rank"):
            offered = model.choices.values(model.color_by)
            here = value_of(scheme, model.color_by)
            value = offered.index(here) / max(1, len(offered) - 1) if here in offered else None
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
    if model.color_by in ("sparsity", "rank"):
        low, *_, high = model.choices.values(model.color_by) or (None, None)
        steps = {name: round((_STEPS - 1) * place) for name, place in values.items()}
        return steps, {"low": str(low or "none"), "high": str(high or "none"), "unit": ""}
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
