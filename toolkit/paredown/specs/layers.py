"""A weight tensor that can be compressed, and which ones go together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

LayerKind = Literal["linear", "conv1d", "embedding"]


@dataclass(frozen=True, slots=True)
class LayerRef:
    """One weight tensor that can be compressed.

    Attributes:
        name: Exact module path, such as ``encoder.layer.0.attention.self.query``.
        kind: What module holds it; a ``conv1d`` (GPT-2) stores its weight transposed.
        role: What the layer does in its block: q, k, v, qkv, o, fc1, fc2, gate, up, down, embedding, position, pooler, head, ...
        block: Module path of the transformer block that it belongs to; empty outside of the blocks.
        shape: [out, in]; [rows, dim] for an embedding.
        dtype: Type that the original checkpoint stores, such as ``float32``.
        tied_to: Other module paths that use the very same tensor; they follow this layer's decision.
        fused_with: Other layers that runtimes fuse with this one; by default they are decided together.
    """

    name: str
    kind: LayerKind
    role: str
    block: str
    shape: tuple[int, int]
    dtype: str
    tied_to: tuple[str, ...] = ()
    fused_with: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.shape[0] * self.shape[1]


def fused_groups(layers: Iterable[LayerRef]) -> tuple[tuple[str, ...], ...]:
    """Names of the layers that are decided together, in model order; a layer that is fused with none stands alone."""
    by_name = {layer.name: layer for layer in layers}
    groups: dict[str, tuple[str, ...]] = {}
    for name, layer in by_name.items():
        members = tuple(other for other in by_name if other == name or other in layer.fused_with)
        groups.setdefault(members[0], members)
    return tuple(groups.values())
