"""Short names for layers: their block, then their role; never a run of bare indices."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paredown.specs import LayerRef

_INDEX = re.compile(r"(?P<stack>.*?)\.?(?P<index>\d+)$")
_SHORT = {"embeddings": "emb", "positions": "pos", "pooler": "pool"}
_WORDS = {"embedding": "embeddings", "position": "positions"}


@dataclass(frozen=True, slots=True)
class LayerLabel:
    """Where a layer stands in the plan.

    Attributes:
        block: Label of its block, such as ``Block 3``; empty outside of the blocks.
        block_id: Module path of the block; empty outside of the blocks.
        index: Number of the block in its stack; None outside of the blocks.
        column: Its role, numbered where a block has several layers of that role.
        text: The whole label, such as ``Block 3 fc2``.
    """

    block: str
    block_id: str
    index: int | None
    column: str
    text: str


def short_name(label: LayerLabel) -> str:
    """The column's name, shortened where space is scarce."""
    return _SHORT.get(label.column, label.column)


def group_text(labels: Mapping[str, LayerLabel], group: Sequence[str]) -> str:
    """Layers that are decided together, in words: ``Block 3 q k v``, or the first and how many more."""
    known = [labels[name] for name in group if name in labels]
    if len(known) == len(group) <= 4 and len({label.block_id for label in known}) == 1:
        return " ".join([known[0].text, *(label.column for label in known[1:])])
    first = known[0].text if known else group[0]
    return f"{first} and {len(group) - 1} more"


def _split(block: str) -> tuple[str, int | None]:
    match = _INDEX.match(block)
    return (match["stack"], int(match["index"])) if match else (block, None)


def _stack_name(stack: str) -> str:
    for word in ("encoder", "decoder"):
        if word in stack:
            return word.capitalize()
    return stack.rsplit(".", 2)[-1].replace("_", " ").capitalize() or "Block"


def label_layers(layers: Sequence[LayerRef]) -> dict[str, LayerLabel]:
    """A label for every layer, unique, in model order.

    Example:
        >>> ref = LayerRef("encoder.layer.0.fc", "linear", "fc1", "encoder.layer.0", (8, 4), "float32")
        >>> label_layers([ref])["encoder.layer.0.fc"].text
        'Block 0 fc1'
    """
    stacks = list(dict.fromkeys(_split(layer.block)[0] for layer in layers if layer.block))
    names = {stack: "Block" if len(stacks) == 1 else _stack_name(stack) for stack in stacks}
    if len(set(names.values())) < len(names):  # two encoders: their paths tell them apart
        names = {stack: stack for stack in stacks}
    seen: dict[tuple[str, str], int] = {}
    labels: dict[str, LayerLabel] = {}
    for layer in layers:
        word = layer.role or layer.name.rsplit(".", 1)[-1]
        place = (layer.block, word)
        seen[place] = seen.get(place, 0) + 1
        column = word if seen[place] == 1 else f"{word} {seen[place]}"
        if layer.block:
            stack, index = _split(layer.block)
            block = f"{names[stack]} {index}" if index is not None else stack
            labels[layer.name] = LayerLabel(block, layer.block, index, column, f"{block} {column}")
        else:
            shown = _WORDS.get(column, column)
            labels[layer.name] = LayerLabel("", "", None, shown, shown[:1].upper() + shown[1:])
    return labels
