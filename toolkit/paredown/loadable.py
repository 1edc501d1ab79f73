"""What plain transformers can load of a compressed-tensors checkpoint, layer by layer; asked before anything is loaded, so no torch here."""

from __future__ import annotations

from dataclasses import dataclass

from paredown import sizes
from paredown.specs import KEEP, LayerRef, Scheme

_KINDS = {"int": "scales of neuron groups", "nf": "NormalFloat", "mxfp": "MXFP4 in our layout", "nvfp": "NVFP4 in our layout"}


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a layer can't be loaded under a scheme.

    Attributes:
        words: In two or three words.
        reason: In a sentence, with what to do instead.
    """

    words: str
    reason: str


def obstacle(layer: LayerRef, scheme: Scheme) -> Obstacle | None:
    """What keeps plain transformers from loading a layer under a scheme; None where nothing does."""
    applied = sizes.fit(scheme, layer)[0]
    weight = applied.weight
    if applied == KEEP:
        return None
    if not applied.is_plain or weight is None:
        parts = {"low-rank factors": applied.low_rank, "pruned weights": applied.sparsity, "rounded inputs": applied.activation}
        part = next((part for part, used in parts.items() if used), _KINDS[weight.kind] if weight else "")
        words = {"low-rank factors": "no low rank", "pruned weights": "no sparsity"}.get(part, f"no {part.removesuffix(' in our layout')}")
        reason = f"transformers loads no {part}, as {applied} has; choose integers alone, such as int4g64sym, or the export format paredown"
        return Obstacle(words, reason)
    if layer.kind == "conv1d":
        return Obstacle("no Conv1D", "transformers loads no compressed Conv1D; keep the layer")
    if weight.bits < 8 and layer.kind == "embedding":
        reason = f"transformers loads compressed embeddings of 8 bits alone, not of {weight.bits}; use int8 or keep the layer"
        return Obstacle("8 bits alone", reason)
    if weight.bits < 8 and layer.tied_to:
        reason = f"it shares its tensor with {layer.tied_to[0]}, which transformers loads at 8 bits alone, not at {weight.bits}; use int8 or keep the layer"
        return Obstacle("8 bits alone", reason)
    if weight.bits < 8 and not weight.symmetric:
        group = "" if weight.group_size is None else f"g{weight.group_size}"
        return Obstacle(
            "no zero points", f"transformers can't load packed zero points; use the symmetric int{weight.bits}{group}sym, or 8 bits"
        )
    return None
