"""What can multiply with a packed weight, and what every backend has in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from paredown.kernels.cpu.weight import Activation, InputPrecision

Backend = Literal["ours", "int4pack", "dense", "reference"]
"""``ours``: the kernels of `paredown.kernels.cpu`. ``int4pack``: torch's own for 4 bits and bfloat16 inputs. ``dense``: dequantized when
loaded, then torch's ordinary product; exact, but neither small nor faster. ``reference``: unpacked anew on every call; small and slow."""

GpuBackend = Literal["triton", "tinygemm", "int_mm", "semi_structured"]
"""``triton``: the kernels of `paredown.kernels.gpu`. The others are torch's own on CUDA devices. ``tinygemm``: 4 bits, bfloat16 inputs.
``int_mm``: 8 bits a channel and inputs of 8 bits. ``semi_structured``: 2:4 at 16 bits. ``dense`` and ``reference`` serve there too."""

Multiply = Callable[[Tensor, Tensor | None, Activation], Tensor]
"""From inputs [..., in], bias and activation to results [..., out]."""

Prepared = tuple[str, int, Multiply, InputPrecision]
"""A backend in words, the bytes that it reads of the weight, its product, and what it rounds inputs to."""

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "gelu": functional.gelu,
    "gelu_tanh": lambda y: functional.gelu(y, approximate="tanh"),
    "silu": functional.silu,
    "relu": torch.relu,
}


class UnfitError(Exception):
    """A backend can't serve a weight."""


def finish(y: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    """activation(Y + bias)."""
    return ACTIVATIONS[activation](y if bias is None else y + bias.to(y.dtype))
