"""Plans that begin alike share the work of their beginning: blocks before the first change give back what they gave before.

Only the blocks are skipped, the repeated parts that hold nearly all of the work; what stands around them (embeddings, masks, positions,
norms, heads) is run, so that it needs no replay. A block that is skipped returns its recorded output, bit for bit.

That is right where a block is a function of its arguments, and there are models that break it. So recording refuses what could carry
state (a key-value cache, any object that is no tensor or plain value), and whoever uses a cut for the first time proves it
(`paredown.evaluation.Evaluator`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_iter, tree_map_only

from paredown.evaluation.modules import overridden
from paredown.specs import LayerRef


@dataclass(eq=False, slots=True)
class Recorded:
    """What the blocks gave in one run over one batch.

    Attributes:
        blocks: Module paths in the order of the calls.
        outputs: Of the first of these calls; fewer where memory was short.
        refused: Why the outputs can't stand in for the calls; empty where they can.
    """

    blocks: list[str] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    refused: str = ""


class UnlikeRunError(Exception):
    """A run went another way than the recorded one."""


class Blocks:
    """The repeated blocks of a model, and how far the run at hand is among them.

    Args:
        model: The model.
        layers: Its layers, which say what is a block.
    """

    def __init__(self, model: nn.Module, layers: Sequence[LayerRef]) -> None:
        self._modules = {path: model.get_submodule(path) for path in dict.fromkeys(layer.block for layer in layers if layer.block)}
        self.calls = 0
        """Calls of blocks so far, the one at work included."""
        self.cut = 0
        """How many of them are given back."""

    @contextmanager
    def running(self, before: Recorded | None = None, cut: int = 0, admits: Callable[[int], bool] | None = None) -> Iterator[Recorded]:
        """Follow the blocks of one run over one batch: give back outputs of an earlier run, or record, or both.

        Args:
            before: A run over the same batch; None where there is none.
            cut: How many calls give back its outputs: nothing that they depend on may differ.
            admits: Asked whether an output of so many bytes is recorded; after the first that is not, none is. None records none, and does not look
                whether the blocks carry state.

        Yields:
            The record; complete on leaving.

        Raises:
            UnlikeRunError: If the run calls other blocks than the one before.
        """
        recorded, full = Recorded(), admits is None
        cut = 0 if before is None else min(cut, len(before.outputs))

        def run(path: str, original: Any, *arguments: Any, **named: Any) -> Any:
            nonlocal full
            place = self.calls
            self.calls += 1
            recorded.blocks.append(path)
            if before is not None and before.blocks[place : place + 1] != [path]:
                raise UnlikeRunError(f"call {place} of a block is one of {path}")
            if before is not None and place < cut:
                output = before.outputs[place]
            else:
                output = original(*arguments, **named)
                if admits is not None:
                    recorded.refused = recorded.refused or _state(path, (arguments, named, output))
            full = full or admits is None or not admits(sum(leaf.nbytes for leaf in tree_iter(output) if isinstance(leaf, Tensor)))
            if not full:
                recorded.outputs.append(output if place < cut else _copied(output))
            return _copied(output) if place < cut else output

        self.calls, self.cut = 0, cut
        try:
            with overridden([(module, functools.partial(run, path, module.forward)) for path, module in self._modules.items()]):
                yield recorded
        finally:
            self.calls = self.cut = 0
        if recorded.refused:
            recorded.outputs = []


def places(blocks: Sequence[str], calls: Sequence[tuple[str, int]], layers: Sequence[LayerRef]) -> dict[str, int]:
    """How many calls of blocks a change of each layer leaves as they are.

    A layer inside a block counts from the block's first call. One outside counts from its own: the word embedding comes before all
    blocks, a pooler after them. One that no run called is in no known place.

    Args:
        blocks: Paths in the order of their calls.
        calls: Every call of a layer's module: the layer's name, and how many calls of blocks had begun.
        layers: The layers.

    Returns:
        Layer name to number of calls.
    """
    first_call: dict[str, int] = {}
    for name, begun in calls:
        first_call.setdefault(name, begun)
    first_of_block = {path: place for place, path in reversed(list(enumerate(blocks)))}
    found: dict[str, int] = {}
    for layer in layers:
        owners = [next((block for block in first_of_block if path.startswith(block + ".")), None) for path in (layer.name, *layer.tied_to)]
        known = [first_of_block[block] for block in owners if block is not None]
        known += [first_call[layer.name]] if layer.name in first_call else [0] * (None in owners)
        found[layer.name] = min(known)
    return found


def _copied(tree: Any) -> Any:
    # models may write into what they are given
    return tree_map_only(Tensor, Tensor.clone, tree)


def _state(path: str, tree: Any) -> str:
    strange = next((leaf for leaf in tree_iter(tree) if not isinstance(leaf, (Tensor, int, float, str, type(None)))), None)
    return "" if strange is None else f"{path} takes or gives a {type(strange).__name__}, which may remember things between blocks"
