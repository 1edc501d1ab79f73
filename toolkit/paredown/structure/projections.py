"""The side of a projection that shrinks, read and written alike for Linear, GPT-2's Conv1D and what is left of either."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from paredown.shape_record import projection
from paredown.shrunk_modules import Gathered, Scattered


@dataclass(frozen=True, eq=False, slots=True)
class Side:
    """The outputs of a projection, or the inputs of one.

    Attributes:
        weight: Of each position that is left, [left, other side].
        index: The positions, int64 [left], ascending.
        width: Positions that the surrounding forward pass sees.
        bias: Of the outputs; [left] for a side of outputs, [out] for one of inputs, None where there is none.
    """

    weight: Tensor
    index: Tensor
    width: int
    bias: Tensor | None

    @property
    def dense(self) -> Tensor:
        """The weight with zeros at the positions that are gone, [width, other side]."""
        return self.weight.new_zeros(self.width, self.weight.shape[1]).index_copy_(0, self.index, self.weight)


def output_width(module: nn.Module) -> int:
    """Outputs of a projection, those included that are gone and read as zeros."""
    return module.width if isinstance(module, Scattered) else len(_matrix(_inner(module)))


def input_width(module: nn.Module) -> int:
    """Inputs of a projection, those included that are gone and not read."""
    return module.width if isinstance(module, Gathered) else _matrix(_inner(module)).shape[1]


def outputs(model: nn.Module, path: str) -> Side:
    """The outputs of a projection; copies."""
    module = model.get_submodule(path)
    inner: Any = _inner(module)
    bias = None if inner.bias is None else inner.bias.detach().clone()
    index = module.get_buffer("index") if isinstance(module, Scattered) else torch.arange(output_width(module))
    return Side(_matrix(inner).clone(), index, output_width(module), bias)


def inputs(model: nn.Module, path: str) -> Side:
    """The inputs of a projection; copies."""
    module = model.get_submodule(path)
    inner: Any = _inner(module)
    bias = None if inner.bias is None else inner.bias.detach().clone()
    index = module.get_buffer("index") if isinstance(module, Gathered) else torch.arange(input_width(module))
    return Side(_matrix(inner).T.clone(), index, input_width(module), bias)


def write_outputs_(model: nn.Module, path: str, side: Side) -> None:
    """Put a projection with these outputs in place."""
    dense = _made(_inner(model.get_submodule(path)), side.weight, side.bias)
    model.set_submodule(path, dense if len(side.index) == side.width else Scattered(dense, side.index, side.width))


def write_inputs_(model: nn.Module, path: str, side: Side) -> None:
    """Put a projection with these inputs in place."""
    dense = _made(_inner(model.get_submodule(path)), side.weight.T, side.bias)
    model.set_submodule(path, dense if len(side.index) == side.width else Gathered(dense, side.index, side.width))


def narrowed(side: Side, positions: Tensor, *, outputs: bool) -> Side:
    """Only these positions, closed up: the forward pass sees no others any more.

    Args:
        side: What is narrowed.
        positions: Which stay, int64, ascending.
        outputs: Whether it is a side of outputs, whose bias goes along.
    """
    place = torch.full((side.width,), -1)
    place[positions] = torch.arange(len(positions))
    return replace(_only(side, place[side.index] >= 0, outputs), index=(place[side.index])[place[side.index] >= 0], width=len(positions))


def hidden(side: Side, positions: Tensor, *, outputs: bool) -> Side:
    """Only these positions, at their old places, with nothing in between.

    Args:
        side: What is thinned out.
        positions: Which stay, int64.
        outputs: Whether it is a side of outputs, whose bias goes along.
    """
    return _only(side, torch.isin(side.index, positions), outputs)


def part(side: Side, start: int, length: int) -> Side:
    """Some consecutive outputs of a fused projection, counted from 0."""
    chosen = (side.index >= start) & (side.index < start + length)
    thin = _only(side, chosen, outputs=True)
    return replace(thin, index=thin.index - start, width=length)


def joined(sides: list[Side]) -> Side:
    """Outputs one after the other, as a fused projection has them; a missing bias is zero."""
    starts = torch.tensor([0, *(side.width for side in sides)]).cumsum(0)
    bias = torch.cat([side.weight.new_zeros(len(side.index)) if side.bias is None else side.bias for side in sides])
    index = torch.cat([side.index + start for side, start in zip(sides, starts[:-1], strict=True)])
    return Side(torch.cat([side.weight for side in sides]), index, int(starts[-1]), bias)


def _only(side: Side, chosen: Tensor, outputs: bool) -> Side:
    bias = side.bias[chosen] if outputs and side.bias is not None else side.bias
    return replace(side, weight=side.weight[chosen], index=side.index[chosen], bias=bias)


def _inner(module: nn.Module) -> nn.Module:
    return module.kept if isinstance(module, Scattered | Gathered) else module


def _matrix(module: nn.Module) -> Tensor:
    """[out, in]."""
    weight: Any = module.weight
    return weight.detach().T if isinstance(module, Conv1D) else weight.detach()


def _made(like: nn.Module, weight: Tensor, bias: Tensor | None) -> nn.Module:
    made: Any = projection(like, *weight.shape, bias=bias is not None)
    with torch.no_grad():
        made.weight.copy_(weight.T if isinstance(made, Conv1D) else weight)
        if made.bias is not None:
            made.bias.zero_() if bias is None else made.bias.copy_(bias)
    return made
