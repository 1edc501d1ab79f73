"""The plan: blocks down, roles across; its cells and its colours."""

from __future__ import annotations

from functools import cache
from typing import Any

from paredown.errors import ParedownError
from paredown.specs import KEEP, Candidate, LayerRef, Scheme, WeightFormat
from paredown_widgets import colors, handles
from paredown_widgets.choices import part_words, position
from paredown_widgets.model import ExplorerModel
from paredown_widgets.schemes import bits_of, describe

_DTYPE_BITS = {"float32": "32", "float16": "16", "bfloat16": "16", "float64": "64"}


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
    painted = colors.paint(model)
    matches, wrong = _filtered(model)
    picked = [name for name in model.selection if name in editor.schemes]
    return {
        "cells": {
            layer.name: _cell(
                model,
                layer,
                locked=layer.name in editor.locked,
                edited=layer.name in edited,
                color=painted.steps.get(layer.name),
                value=painted.texts.get(layer.name, ""),
            )
            for layer in model.record.layers
            if layer.name in editor.schemes
        },
        "selection": picked,
        "can_undo": editor.can_undo,
        "can_redo": editor.can_redo,
        "undo_label": editor.undo_label,
        "color_by": model.color_by,
        "color_options": colors.options(model),
        "color_title": colors.COLORS[model.color_by].title,
        "legend": painted.legend,
        "selected": f"{len(picked)} selected of {len(editor.schemes)}" if picked else "",
        "filter": {
            "text": model.filter,
            "matches": None if matches is None else list(matches),
            "note": "" if matches is None else f"{len(matches)} of {len(editor.schemes)}",
            "wrong": wrong,
        },
        "status": model.status,
        "edits": model.edits(),
        "empty": ""
        if editor.schemes
        else "The model's layers appear here as soon as it is loaded" + ("." if model.running else "; press Run."),
    }


def _filtered(model: ExplorerModel) -> tuple[tuple[str, ...] | None, str]:
    """Layers that the filter keeps, and what is wrong with its text: while it is half written all are kept."""
    try:
        return model.found(model.filter), ""
    except ParedownError as error:
        return None, str(error)


def _cell(model: ExplorerModel, layer: LayerRef, **state: Any) -> dict[str, Any]:
    """One layer's; the same object as long as it says the same."""
    scheme = model.editor.schemes[layer.name]
    candidate = model.record.candidates.get(layer.name, {}).get(scheme)
    usual = model.choices.schemes[0].weight if model.choices.schemes else None

    def make() -> dict[str, Any]:
        marks = _marks(scheme, candidate, usual)
        return {"text": _text(scheme, layer.dtype), "bits": bits_of(scheme), **marks, **state}

    return model.kept(f"cell {layer.name}", (scheme, candidate, usual, layer.dtype, *state.values()), make)


def _text(scheme: Scheme, dtype: str) -> str:
    if scheme.weight is None and scheme.sparsity is None and scheme.low_rank is not None:
        return f"r{scheme.low_rank.rank}"  # factors in place of the weight
    return _DTYPE_BITS.get(dtype, dtype) if scheme.weight is None else str(scheme.weight.bits)


def _marks(scheme: Scheme, candidate: Candidate | None, usual: WeightFormat | None) -> dict[str, Any]:
    """What the digit does not say: the bytes, and the words and signs of the scheme that applies."""
    size = {} if candidate is None else {"bytes": candidate.bytes}
    return {**size, **_signs(scheme, candidate.effective if candidate else scheme, usual)}


@cache
def _signs(scheme: Scheme, applied: Scheme, usual: WeightFormat | None) -> dict[str, str]:
    """Where the handles stand, the marks of sparsity and rank, and number formats that need a word."""
    badge, sparsity = _format(applied, usual), str(applied.sparsity or "")
    rank = applied.low_rank.rank if applied.low_rank and (applied.weight or applied.sparsity) else None
    said = [f"{bits_of(applied)} bit" if applied.weight else describe(KEEP) if applied == KEEP else "", badge]
    said += [part_words(applied, "sparsity"), f"rank {applied.low_rank.rank}" if applied.low_rank else ""]
    marks = {"badge": badge, "sparsity": sparsity, "rank": f"r{rank}" if rank else ""}
    return {"scheme": str(scheme), "at": handles.key(position(scheme)), "said": ", ".join(filter(None, said)), **marks}


def _format(applied: Scheme, usual: WeightFormat | None) -> str:
    """Another kind of number, rounded inputs, or another group size than the study's first scheme has."""
    if applied.weight is None or usual is None:
        return ""
    group = "" if applied.weight.group_size == usual.group_size else f"g{applied.weight.group_size}" if applied.weight.group_size else "row"
    kind = "" if applied.weight.kind == "int" else applied.weight.kind
    return " ".join(filter(None, [kind, str(applied.activation or ""), group if applied.is_plain else ""]))
