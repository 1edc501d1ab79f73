r"""One folding: layers take the scale of their inputs, and what makes these inputs takes its inverse.

\[ W x = (W \operatorname{diag}(s)) (\operatorname{diag}(1/s)\, x), \]

and \(x / s\) comes from the layer or norm before, whose weight (and bias) is divided by s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from paredown.layers import weight_of
from paredown.specs import LayerRef

Form = Literal["norm", "norm+1", "rows"]
"""What takes 1/s: the weight w of a norm, that of a norm which multiplies by 1 + w (Gemma's), or the rows of a linear layer."""


@dataclass(frozen=True, slots=True)
class Folding:
    """Where a scale may go.

    Input j of the readers comes from element ``offset + (j // (head_dim repeats)) head_dim + j mod head_dim`` of the source: with
    grouped-query attention each value is read by `repeats` heads. Otherwise that is ``offset + j``.

    Attributes:
        source: Module path of what makes the inputs.
        form: How it takes 1/s.
        readers: Names of the layers that read them, all of them.
        offset: First element of the source that is read: merged q, k, v and gate, up.
        repeats: Readers' inputs that come from one element of the source.
        head_dim: Width of what is repeated.
    """

    source: str
    form: Form
    readers: tuple[str, ...]
    offset: int = 0
    repeats: int = 1
    head_dim: int = 1

    def index(self, width: int) -> Tensor:
        """The source's element of each of `width` inputs, [width].

        Example:
            >>> Folding("v", "rows", ("o",), repeats=2, head_dim=3).index(12).tolist()
            [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]
        """
        place = torch.arange(width)
        if self.repeats > 1:
            place = place // (self.head_dim * self.repeats) * self.head_dim + place % self.head_dim
        return self.offset + place

    def __str__(self) -> str:
        return f"{self.source} → {', '.join(name.rpartition('.')[2] for name in self.readers)}"


@dataclass(frozen=True, slots=True)
class Refused:
    """A scale that can't be folded.

    Attributes:
        source: Module path of what makes the inputs.
        readers: Names of the layers that read them.
        reason: Why, in words.
    """

    source: str
    readers: tuple[str, ...]
    reason: str


def fold_(model: nn.Module, layers: Mapping[str, LayerRef], folding: Folding, scale: Tensor) -> None:
    """Multiply the readers' columns by a scale, and divide their source by it, in place.

    Args:
        model: The model.
        layers: Its layers by name.
        folding: Where.
        scale: s, positive, [in]; the same for all inputs that come from one element of the source.
    """
    for name in folding.readers:
        weight_of(model, layers[name]).mul_(scale.to(_dtype(model, name)))
    index = folding.index(len(scale))
    for tensor in _of_source(model, layers, folding):
        part = tensor[index]  # inputs that share an element write the same number to it
        divisor = (scale[:, None] if tensor.dim() == 2 else scale).to(part.dtype)
        if folding.form == "norm+1" and tensor.data_ptr() == _weight(model, folding.source).data_ptr():
            tensor[index] = (1 + part) / divisor - 1
        else:
            tensor[index] = part / divisor


@contextmanager
def folded(model: nn.Module, layers: Mapping[str, LayerRef], scales: Mapping[Folding, Tensor]) -> Iterator[None]:
    """Fold scales for a while; on leaving every tensor is what it was before, bit for bit."""
    touched = [tensor for folding in scales for tensor in tensors_of(model, layers, folding)]
    before = [tensor.clone() for tensor in touched]
    try:
        for folding, scale in scales.items():
            fold_(model, layers, folding, scale)
        yield
    finally:
        for tensor, kept in reversed(list(zip(touched, before, strict=True))):
            tensor.copy_(kept)


def tensors_of(model: nn.Module, layers: Mapping[str, LayerRef], folding: Folding) -> list[Tensor]:
    """Views of what a folding changes."""
    return [*(weight_of(model, layers[name]) for name in folding.readers), *_of_source(model, layers, folding)]


def _of_source(model: nn.Module, layers: Mapping[str, LayerRef], folding: Folding) -> list[Tensor]:
    """Weight ([out, in] of a layer) and bias, as far as there is one."""
    weight = weight_of(model, layers[folding.source]) if folding.form == "rows" else _weight(model, folding.source)
    bias = getattr(model.get_submodule(folding.source), "bias", None)
    return [weight, *([bias.detach()] if isinstance(bias, Tensor) else [])]


def _weight(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight.detach()


def _dtype(model: nn.Module, name: str) -> torch.dtype:
    return _weight(model, name).dtype
