"""Modules that hold a packed weight and compute with it; their state has the names and layout of the exported file."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from paredown.errors import ParedownError
from paredown.kernels import reference
from paredown.kernels.packing import Packed
from paredown.specs import WeightFormat


class PackedWeight(nn.Module):
    """What a packed module adds to the class that it replaces: buffers in place of the parameter ``weight``.

    ``weight`` still answers, with the dequantized matrix in the layout of the class, because models read its dtype, and classes
    with a forward pass of their own (such as learned positions) compute with it.
    """

    format: WeightFormat
    weight_packed: Tensor
    weight_scale: Tensor
    weight_zero_point: Tensor | None
    weight_shape: Tensor
    dtype: torch.dtype

    @property
    def packed(self) -> Packed:
        """The packed tensors."""
        out, inputs = self.weight_shape.tolist()
        return Packed(self.weight_packed, self.weight_scale, self.weight_zero_point, self.format, (out, inputs))

    @property
    def weight(self) -> Tensor:
        """The dequantized weight, made anew on each call."""
        return reference.dequantize(self.packed).to(self.dtype)


class PackedLinear(PackedWeight, nn.Linear):
    """x Wᵀ + bias."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return reference.linear(input, self.packed, self.bias)


class PackedConv1D(PackedWeight, Conv1D):
    """GPT-2's linear layer: its own file holds the weight as [in, out], the packed one holds rows of outputs as all others do."""

    @property
    def weight(self) -> Tensor:
        """The dequantized weight [in, out], made anew on each call."""
        return reference.dequantize(self.packed).to(self.dtype).T

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return reference.linear(x, self.packed, self.bias)


class PackedEmbedding(PackedWeight, nn.Embedding):
    """Rows of a packed table."""

    def forward(self, input: Tensor) -> Tensor:
        """Ids [...] to vectors [..., dim]."""
        return reference.embedding(input, self.packed).to(self.dtype)


_CLASSES: dict[type[nn.Module], type[PackedWeight]] = {nn.Linear: PackedLinear, Conv1D: PackedConv1D, nn.Embedding: PackedEmbedding}


def packed_module(name: str, module: nn.Module, packed: Packed) -> nn.Module:
    """A module that computes what ``module`` did, with a packed weight.

    Args:
        name: Its path, for the error.
        module: An `nn.Linear`, `nn.Embedding` or GPT-2's ``Conv1D``, or of a class derived from one of them; left as it is. A
            derived class keeps its forward pass, which sees the dequantized weight.
        packed: The weight [out, in]; its tensors are held, not copied.

    Returns:
        The new module; bias and other state are those of ``module``.

    Raises:
        ParedownError: If the module is of another class.
    """
    base = next((known for known in _CLASSES if isinstance(module, known)), None)
    if base is None:
        raise ParedownError(f"expected {name} to be a Linear, Embedding or Conv1D, got {type(module).__name__}; keep this layer")
    kind = _CLASSES[base]
    if type(module) is not base:
        layout = (kind,) if base is Conv1D else ()
        kind = type(f"Packed{type(module).__name__}", (*layout, PackedWeight, type(module)), {"forward": type(module).forward})
    new = copy.copy(module)
    for registry in ("_parameters", "_buffers", "_modules"):
        setattr(new, registry, dict(getattr(module, registry)))
    dtype = new._parameters.pop("weight").dtype  # pyright: ignore[reportOptionalMemberAccess]
    new.__class__ = kind
    new = cast(PackedWeight, new)
    new.format = packed.format
    new.dtype = dtype
    new.register_buffer("weight_packed", packed.words)
    new.register_buffer("weight_scale", packed.scales)
    new.register_buffer("weight_zero_point", packed.zero_points)
    new.register_buffer("weight_shape", torch.tensor(packed.shape))
    return new
