"""How much a block changes the residual stream, the score by which whole blocks are dropped."""

from __future__ import annotations

import torch
from torch import Tensor


def block_influence(inputs: Tensor, outputs: Tensor) -> Tensor:
    r"""\(1 - \cos(x_t, y_t)\) of each token t; the mean is the block's influence (Men et al. 2024, ShortGPT).

    Zero where the block leaves the direction alone, 2 where it turns it round. A token whose input or output is zero has no
    direction and counts as 1, unless both are zero, which counts as 0.

    Args:
        inputs: Hidden states before the block, real tokens only, [tokens, dim].
        outputs: Hidden states after it, [tokens, dim].

    Returns:
        Float64 [tokens].
    """
    inputs, outputs = inputs.double(), outputs.double()
    lengths = inputs.norm(dim=-1) * outputs.norm(dim=-1)
    cosines = torch.where(lengths > 0, (inputs * outputs).sum(-1) / lengths, (inputs == outputs).all(-1).double())
    return 1 - cosines.clamp(-1, 1)
