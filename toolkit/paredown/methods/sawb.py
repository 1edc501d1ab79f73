r"""Statistics-aware weight binning: a clip from two moments instead of a search (Choi et al., 2019; coefficients of IBM's fms-model-optimizer).

The clip that leaves the least squared error on a uniform grid is close to linear in two moments of the weights,

\[ a = c_1 \sqrt{\mathbb{E}[w^2]} + c_2\, \mathbb{E}|w|, \]

with coefficients fitted for each number of levels. The grid has its levels evenly from -a to a. An even number of levels has none
at zero, so that pruned weights would not stay zero; the zero-preserving grids of 3 and 15 levels leave one code of 2 or 4 bits
unused for it (Wang et al., Deep Compression of Pre-trained Transformer Models, 2022).

Training: the gradient of the rounding is passed straight through, inside the clip only (SAWB) or everywhere (SAWB+).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks
from paredown.methods.grid import Grid, to_half
from paredown.methods.quantize import Quantized
from paredown.specs import WeightFormat

COEFFICIENTS = {
    3: (2.6, -1.71),
    4: (3.12, -2.064),
    8: (7.509, -6.892),
    15: (12.035, -12.03),
    16: (12.68, -12.80),
}
"""c1 and c2 by the number of levels. The squared error is within 1 % of the best clip's on normal, Laplace, logistic and uniform data,
but for 16 levels on uniform data (1.5 %). Those published for 32 and 256 levels are left out: on uniform data they clip what should
not be clipped, for 1.3 and 370 times the least error."""

ZERO_PRESERVING = {2: 3, 4: 15}
"""Levels of the grid with a zero, by bits, as far as coefficients are known."""


def clip(weight: Tensor, levels: int, *, per_channel: bool = True) -> Tensor:
    """The clip a: float32 [out, 1], or [1, 1] for the whole tensor.

    Where the formula gives nothing positive (a constant magnitude at many levels), it is the largest magnitude. Zeros count.

    Args:
        weight: [out, in].
        levels: A key of `COEFFICIENTS`.
        per_channel: A clip of its own for each output channel.

    Raises:
        ParedownError: If there are no coefficients for the levels, or the weight holds NaN or infinite values.
    """
    if levels not in COEFFICIENTS:
        raise ParedownError(f"SAWB has coefficients for {', '.join(map(str, COEFFICIENTS))} levels, got {levels}; search the clip instead")
    weight = checks.finite(checks.matrix(weight))
    size = weight.abs() if per_channel else weight.abs().flatten().unsqueeze(0)
    largest = size.amax(dim=1, keepdim=True)
    # relative to the largest, so that no square overflows
    relative = size / torch.where(largest == 0, 1.0, largest)
    first, second = COEFFICIENTS[levels]
    share = first * relative.square().mean(dim=1, keepdim=True).sqrt() + second * relative.mean(dim=1, keepdim=True)
    return torch.where(share > 0, share, 1.0) * largest


def round_to_levels(weight: Tensor, clips: Tensor, levels: int) -> Tensor:
    """The nearest of the levels from -a to a, differentiable nowhere; a clip of zero gives zeros."""
    step = 2 * clips / (levels - 1)
    step = torch.where(step == 0, torch.inf, step)
    clipped = torch.minimum(torch.maximum(weight, -clips), clips)
    if levels % 2:  # counted from zero, so that zero is exact
        return torch.nan_to_num((clipped / step).round() * step)
    return torch.nan_to_num(((clipped + clips) / step).round() * step) - clips


def quantize_sawb(weight: Tensor, format: WeightFormat) -> Quantized:
    """Round each group to its zero-preserving grid of 2^bits - 1 levels, as an integer format holds it.

    Args:
        weight: [out, in], any floating type.
        format: Of 2 or 4 bits, symmetric; the moments are those of its groups, so that small ones clip by few weights.

    Returns:
        Codes 1 .. 2^bits - 1 around the zero 2^(bits-1).

    Raises:
        ParedownError: If the format has no zero-preserving coefficients, its groups do not divide the weight, or `clip` refuses that.
    """
    if format.bits not in ZERO_PRESERVING or not format.symmetric:
        raise ParedownError(f"SAWB preserves zero in symmetric formats of {' or '.join(map(str, ZERO_PRESERVING))} bits, got {format}")
    levels, shape = ZERO_PRESERVING[format.bits], checks.matrix(weight).shape
    runs = checks.runs(format.neuron_groups, shape[0])
    size = checks.group_size(format.group_size, weight.numel() // runs)
    groups = checks.finite(weight.detach()).reshape(-1, size)
    scale = to_half(clip(groups, levels) / (levels // 2))
    zero = 1 << (format.bits - 1)
    codes = Grid(format.bits, symmetric=True).encode(groups, scale, torch.full_like(scale, zero)).clamp_(min=1)
    return Quantized(codes.to(torch.uint8).view(shape), scale.to(torch.float16).view(runs, -1), None, format)


class _Sawb(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, clips: Tensor, levels: int, plus: bool) -> Tensor:
        ctx.plus = plus
        ctx.save_for_backward(weight, clips)
        return round_to_levels(weight, clips, levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        weight, clips = ctx.saved_tensors
        return (gradient if ctx.plus else gradient * (weight.abs() <= clips), None, None, None)


def sawb(weight: Tensor, clips: Tensor, levels: int, *, plus: bool = True) -> Tensor:
    """`round_to_levels` for training: the gradient goes straight to the weight, everywhere (SAWB+) or inside the clip only.

    Args:
        weight: [out, in], with gradient.
        clips: What `clip` returned, or a moving average of it.
        levels: Number of levels.
        plus: Whether weights outside the clip are trained too.
    """
    result = _Sawb.apply(weight, clips, levels, plus)
    assert isinstance(result, Tensor)
    return result
