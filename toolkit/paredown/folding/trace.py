"""One forward pass watched: which layers read the output of which norm, and what acts on a layer's output."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from paredown.folding.verify import Answers
from paredown.specs import LayerRef


@dataclass(eq=False, slots=True)
class Trace:
    """What was seen. Tensors are known by their storage, and all of them are held, so that no address is used twice.

    Attributes:
        reads: Layer name to the storages of its inputs, one for each call.
        makes: Layer name to the storages of its outputs.
        norms: Module path to its calls.
        acts: Storage to the module without parameters that first read it, and what it read.
    """

    reads: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    makes: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    norms: defaultdict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))
    acts: dict[int, tuple[nn.Module, Tensor]] = field(default_factory=dict)
    held: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One call of a norm, and the storage of its output."""

    arguments: tuple[Any, ...]
    options: dict[str, Any]
    output: int


@torch.no_grad()
def trace(model: nn.Module, layers: Iterable[LayerRef], answers: Answers) -> Trace:
    """Watch one run of the model.

    Args:
        model: The model.
        layers: Its layers.
        answers: Runs it.
    """
    seen = Trace()
    by_path = {path: layer.name for layer in layers for path in (layer.name, *layer.tied_to)}

    def of_layer(name: str):
        def hear(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
            if isinstance(module, nn.Embedding):
                return
            seen.reads[name].append(_hold(seen, arguments[0]))
            seen.makes[name].append(_hold(seen, output))

        return hear

    def of_norm(path: str):
        def hear(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
            weight = module.weight
            if isinstance(output, Tensor) and isinstance(weight, Tensor) and output.shape[-1:] == weight.shape:
                seen.norms[path].append(Call(arguments, options, _hold(seen, output)))

        return hear

    def of_act(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if arguments and isinstance(arguments[0], Tensor) and isinstance(output, Tensor):
            _hold(seen, output)
            seen.acts.setdefault(_hold(seen, arguments[0]), (module, arguments[0]))

    handles = []
    for path, module in model.named_modules(remove_duplicate=False):
        if path in by_path:
            handles.append(module.register_forward_hook(of_layer(by_path[path])))
        elif next(module.children(), None) is None:
            own = dict(module.named_parameters(recurse=False))
            if not own:
                handles.append(module.register_forward_hook(of_act))
            elif set(own) <= {"weight", "bias"} and all(parameter.dim() == 1 for parameter in own.values()):
                handles.append(module.register_forward_hook(of_norm(path), with_kwargs=True))
    try:
        answers()
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _hold(seen: Trace, tensor: Tensor) -> int:
    seen.held.append(tensor)
    return tensor.untyped_storage().data_ptr()
