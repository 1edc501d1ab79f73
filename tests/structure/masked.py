"""The slow obvious counterpart of a removal: the whole model with the piece at zero."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from paredown.structure import Attention, Block


def outputs(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def positions(kept: Tensor, unit: int) -> Tensor:
    return (kept[:, None] * unit + torch.arange(unit)).flatten()


@contextmanager
def zero_inputs(model: nn.Module, path: str, kept: Tensor) -> Iterator[None]:
    """Only these inputs reach the module."""

    def thin(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        mask = arguments[0].new_zeros(arguments[0].shape[-1]).index_fill_(0, kept, 1.0)
        return (arguments[0] * mask, *arguments[1:])

    with _hooked(model.get_submodule(path).register_forward_pre_hook(thin)):
        yield


@contextmanager
def zero_outputs(model: nn.Module, path: str, kept: Tensor | None = None) -> Iterator[None]:
    """Only these outputs leave the module; none where not given."""

    def thin(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        chosen = torch.tensor([], dtype=torch.long) if kept is None else kept
        return output * output.new_zeros(output.shape[-1]).index_fill_(0, chosen, 1.0)

    with _hooked(model.get_submodule(path).register_forward_hook(thin)):
        yield


@contextmanager
def no_block(model: nn.Module, block: Block) -> Iterator[None]:
    """The hidden states go past the block; its position bias, which T5 passes on, stays."""

    def past(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> Any:
        hidden = arguments[0] if arguments else options["hidden_states"]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    with _hooked(model.get_submodule(block.path).register_forward_hook(past, with_kwargs=True)):
        yield


@contextmanager
def few_dimensions(model: nn.Module, attention: Attention, kept: Tensor) -> Iterator[None]:
    """Queries and keys with zeros at all other dimensions."""
    chosen = {}
    for name, heads in (("q", attention.heads), ("k", attention.key_heads)):
        per_head = kept.repeat_interleave(heads // attention.key_heads, 0)
        chosen[name] = (per_head + torch.arange(heads)[:, None] * attention.head_dim).flatten()
    if attention.fused:
        width = attention.heads * attention.head_dim
        values = torch.arange(2 * width, 3 * width)
        with zero_outputs(model, attention.q, torch.cat([chosen["q"], chosen["k"] + width, values])):
            yield
    else:
        with zero_outputs(model, attention.q, chosen["q"]), zero_outputs(model, attention.k, chosen["k"]):
            yield


@contextmanager
def _hooked(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
