"""What stands where a piece of a model was removed: four small modules that keep the surrounding forward pass as it is.

Queries, keys and values of fewer dimensions are scattered to their old places in the head, with zeros between: so every head may keep
dimensions of its own, rotary embeddings turn them as before, and the softmax keeps its scale. The weights and the multiplications by
them shrink; the products of queries and keys, and a cache of keys and values, keep the full head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Part(nn.Module):
    """What is left of a projection, some of whose inputs or outputs are gone.

    Args:
        kept: The smaller projection.
        index: Positions of what is left, int64 [kept], ascending.
        width: Inputs or outputs in all.
    """

    index: Tensor

    def __init__(self, kept: nn.Module, index: Tensor, width: int) -> None:
        super().__init__()
        self.kept, self.width = kept, width
        self.register_buffer("index", index, persistent=False)


class Scattered(_Part):
    """A projection [kept, in] to the outputs that are left; the others are zero."""

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., width]."""
        values = self.kept(inputs)
        outputs = values.new_zeros(*values.shape[:-1], self.width)
        outputs[..., self.index] = values
        return outputs


class Gathered(_Part):
    """A projection [out, kept] of the inputs that are left."""

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., width] to [..., out]."""
        return self.kept(inputs[..., self.index])


class Empty(nn.Module):
    """In place of the first projection of a removed MLP: no channels."""

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., in] to [..., 0]."""
        return inputs[..., :0]


class Nothing(nn.Module):
    """In place of the projection that would add to the residual stream: zeros.

    Args:
        width: Outputs.
    """

    weight = None  # T5 asks for the type of its second projection's weight

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, inputs: Tensor) -> Tensor:
        """[..., any] to zeros [..., width]."""
        return inputs.new_zeros(*inputs.shape[:-1], self.width)


class NoAttention(nn.Module):
    """In place of a removed attention; neither reads nor writes a cache.

    Args:
        outputs: Members of the tuple that it returns: the hidden states, with T5 the position bias, and the attention weights.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, hidden_states: Tensor, *_: Any, position_bias: Tensor | None = None, **__: Any) -> tuple[Tensor | None, ...]:
        """Zeros [..., dim], and what the caller expects beside them."""
        zeros = torch.zeros_like(hidden_states)
        return (zeros, position_bias, None) if self.outputs == 3 else (zeros, None)
