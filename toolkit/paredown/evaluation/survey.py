"""How a model uses its layers, found by running it once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from paredown.apply import parameters_of
from paredown.evaluation.modules import modules_of, replaceable
from paredown.evaluation.prefix import Blocks, places
from paredown.specs import LayerRef


@dataclass(frozen=True, eq=False, slots=True)
class Survey:
    """How a model uses its layers.

    Attributes:
        free: Layers whose modules may compute by another function.
        fixed: Layers whose weights have to be put in place: something reads them without their modules, or replaced a forward pass.
        places: How many calls of blocks a change of each layer leaves as they are.
        calls: Calls of blocks in one run.
        refused: Why outputs of blocks can't be given back; empty where they can.
    """

    free: tuple[LayerRef, ...]
    fixed: tuple[LayerRef, ...]
    places: Mapping[str, int]
    calls: int
    refused: str


@torch.inference_mode()
def survey(model: nn.Module, layers: Sequence[LayerRef], blocks: Blocks, run: Callable[[], object]) -> Survey:
    """Run the original model, and see.

    Args:
        model: The model.
        layers: Its layers.
        blocks: Its blocks.
        run: Runs it once.
    """
    calls: list[tuple[str, int]] = []
    inside: list[nn.Module] = []
    elsewhere: set[str] = set()
    owners = {parameter.data_ptr(): layer.name for layer in layers for parameter in parameters_of(model, layer)}

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if not inside:
                read = [leaf.data_ptr() for leaf in tree_iter((args, kwargs)) if isinstance(leaf, torch.Tensor) and not leaf.is_meta]
                elsewhere.update(owners[address] for address in read if address in owners)
            return func(*args, **(kwargs or {}))

    def entering(name: str) -> Callable[..., None]:
        def note(module: nn.Module, arguments: object) -> None:
            inside.append(module)
            calls.append((name, blocks.calls))

        return note

    with ExitStack() as stack:
        for layer in layers:
            for module in modules_of(model, layer):
                stack.callback(module.register_forward_pre_hook(entering(layer.name)).remove)
                stack.callback(module.register_forward_hook(lambda *_: inside.clear()).remove)
        recorded = stack.enter_context(blocks.running(admits=lambda _: False))
        stack.enter_context(Reads())
        run()
    free = tuple(layer for layer in layers if layer.name not in elsewhere and replaceable(model, layer))
    fixed = tuple(layer for layer in layers if layer not in free)
    placed = places(recorded.blocks, calls, layers) | {layer.name: 0 for layer in fixed}
    return Survey(
        free, fixed, placed, len(recorded.blocks), recorded.refused or ("" if recorded.blocks else "the model has no repeated blocks")
    )
