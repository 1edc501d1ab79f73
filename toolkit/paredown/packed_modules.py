"""Modules that hold a packed weight and compute with it; their state has the names and layout of the exported file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from paredown.errors import ParedownError
from paredown.kernels import Packed, embedding, reference


class PackedWeight(nn.Module):
    """The packed tensors of one weight, as buffers; the base of the modules below.

    Args:
        packed: The weight [out, in]; its tensors are held, not copied, so that tied modules share them.
        dtype: What the weight is dequantized to.
        bias: Parameter [out], or None.
    """

    weight_shape: Tensor
    bias: nn.Parameter | None

    def __init__(self, packed: Packed, dtype: torch.dtype, bias: nn.Parameter | None = None) -> None:
        super().__init__()
        self.scheme, self.dtype, self._names = packed.scheme, dtype, tuple(packed.tensors)
        for name, tensor in packed.tensors.items():
            self.register_buffer(name, tensor)
        self.register_buffer("weight_shape", torch.tensor(packed.shape))
        self.register_parameter("bias", bias)

    @property
    def packed(self) -> Packed:
        """The packed tensors."""
        out, inputs = self.weight_shape.tolist()
        return Packed({name: self.get_buffer(name) for name in self._names}, self.scheme, (out, inputs))

    @property
    def weight(self) -> Tensor:
        """The dequantized weight, made anew on each call, as the replaced module held it: some models read its dtype, or use it."""
        return reference.dequantize(self.packed).to(self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the packed tensors, and never cast them: their bits are read as they are. What is computed with them follows the cast."""
        before = {name: self.get_buffer(name) for name in self._names}
        super()._apply(fn, recurse)
        for name, old in before.items():
            if (new := self.get_buffer(name)).dtype != old.dtype:
                setattr(self, name, old.to(new.device))
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return self

    def extra_repr(self) -> str:
        """Shape and format, for print(model)."""
        return f"{self.weight_shape.tolist()}, {self.scheme}"


class PackedLinear(PackedWeight):
    """X Wᵀ + bias."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return reference.linear(input, self.packed, self.bias)


class PackedConv1D(PackedLinear):
    """GPT-2's linear layer: its own file holds the weight as [in, out], the packed one holds rows of outputs as all others do."""

    @property
    def weight(self) -> Tensor:
        """The dequantized weight [in, out]."""
        return super().weight.T


class PackedEmbedding(PackedWeight):
    """Rows of a packed table."""

    def forward(self, input: Tensor) -> Tensor:
        """Ids [...] to vectors [..., dim]."""
        return embedding(input, self.packed).to(self.dtype)


_CLASSES: dict[type[nn.Module], type[PackedWeight]] = {nn.Linear: PackedLinear, Conv1D: PackedConv1D, nn.Embedding: PackedEmbedding}
_SHAPE_ATTRIBUTES = ("in_features", "out_features", "num_embeddings", "embedding_dim", "padding_idx", "nf", "nx")


def packed_module(name: str, module: nn.Module, packed: Packed) -> PackedWeight:
    """A module that computes what ``module`` does, with a packed weight.

    Args:
        name: Its path, for the error.
        module: An `nn.Linear`, `nn.Embedding` or GPT-2's ``Conv1D`` with the class's own forward pass; left as it is.
        packed: The weight [out, in].

    Returns:
        The new module, with the bias of ``module``.

    Raises:
        ParedownError: If the module computes anything else.
    """
    base = next((known for known in _CLASSES if isinstance(module, known) and type(module).forward is known.forward), None)
    if base is None or getattr(module, "max_norm", None) is not None:
        raise ParedownError(f"expected {name} to be a plain Linear, Embedding or Conv1D, got {type(module).__name__}; keep this layer")
    weight, bias = module._parameters["weight"], module._parameters.get("bias")
    assert weight is not None
    new = _CLASSES[base](packed, weight.dtype, bias)
    for attribute in _SHAPE_ATTRIBUTES:
        if hasattr(module, attribute):
            setattr(new, attribute, getattr(module, attribute))
    return new.train(module.training)
