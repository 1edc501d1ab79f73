"""Group-wise integer quantization: weights to codes, scales and zero points, and exactly back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.methods import checks, clip_search
from paredown.methods.grid import Grid
from paredown.specs import Solver, WeightFormat

Find = Callable[[Grid, Tensor], tuple[Tensor, Tensor]]
"""Scale (exact in float16) and zero point (whole) of groups [rows, groups, group size], each [rows, groups, 1]."""

_CHUNK = 1 << 18  # weights at a time: a megabyte of float32 stays in the cache through all passes over it


@dataclass(frozen=True, slots=True)
class Quantized:
    """A weight as the exported file holds it, before its codes are packed.

    Attributes:
        codes: uint8 [out, in], each below 2^bits.
        scales: float16 [out, groups], or [neuron groups, 1]; finite and never zero; negative only where `clip_search` mirrored a
            symmetric grid.
        zero_points: uint8 of the same shape, the code that stands for zero; None for a symmetric format, where it is 2^(bits-1).
        format: Bits, groups and symmetry.
    """

    codes: Tensor
    scales: Tensor
    zero_points: Tensor | None
    format: WeightFormat

    @property
    def shape(self) -> tuple[int, int]:
        """[out, in]."""
        return (self.codes.shape[0], self.codes.shape[1])


def quantize(weight: Tensor, format: WeightFormat, solver: Solver = "rtn") -> Quantized:
    """Round a weight to the integer grid of each of its groups.

    With codes q, scale s and zero point z of its group, a weight w becomes s (q - z), q = clamp(round(w / s) + z, 0, 2^b - 1):

    - asymmetric: the range [min(w, 0), max(w, 0)] is spread over the 2^b - 1 steps; zero is always on the grid;
    - symmetric: s = max|w| / (2^(b-1) - 1/2), the smallest scale that leaves no error above s / 2 with codes -2^(b-1) .. 2^(b-1) - 1.

    The scale is rounded to float16 before the codes are found, so that nothing is lost on the way to the file. A group of zeros
    gets scale 1. Scales below float16's normal range are rounded up, at least to its smallest number 2^-24, so that tiny
    weights are never clipped; scales above 65504 are cut there and the largest weights saturate.

    Cost: one pass for ``rtn``; one for each tried clipping range for ``mse`` (see `clip_search`).

    Args:
        weight: [out, in], or [rows, dim] of an embedding; any floating type.
        format: Bits, groups (must divide the inputs, or the outputs: see `paredown.sizes.fit`) and symmetry.
        solver: ``rtn`` takes the whole range of each group, ``mse`` the clipped range with the least squared error.

    Returns:
        Codes, scales and zero points.

    Raises:
        ParedownError: If the weight is no matrix, holds NaN or infinite values, or its groups do not divide it.
    """
    return quantize_with({"rtn": Grid.span, "mse": clip_search.find}[solver], weight, format)


def quantize_with(find: Find, weight: Tensor, format: WeightFormat) -> Quantized:
    """Round a weight to the nearest codes of the scales and zero points that ``find`` gives its groups; as `quantize` otherwise."""
    weight = checks.matrix(weight)
    shape = weight.shape
    weight = weight.reshape(checks.runs(format.neuron_groups, shape[0]), -1)
    out, inputs = weight.shape
    group = checks.group_size(format.group_size, inputs)
    grid = Grid(format.bits, format.symmetric)
    codes = torch.empty((out, inputs), dtype=torch.uint8, device=weight.device)
    scales = torch.empty((out, inputs // group), dtype=torch.float16, device=weight.device)
    zero_points = torch.empty_like(scales, dtype=torch.uint8)
    rows = max(1, _CHUNK // inputs)
    for start in range(0, out, rows):
        part = slice(start, start + rows)
        groups = checks.finite(weight[part]).reshape(-1, inputs // group, group)
        scale, zero = find(grid, groups)
        whole = grid.encode(groups, scale, zero).to(torch.int16)  # torch makes uint8 of floats four times as slowly
        codes[part] = whole.reshape(-1, inputs)
        scales[part] = scale.squeeze(-1)
        zero_points[part] = zero.squeeze(-1)
    return Quantized(codes.view(shape), scales, None if format.symmetric else zero_points, format)


def dequantize(quantized: Quantized) -> Tensor:
    """The weight that the codes stand for: s (q - z), float32 [out, in], exactly what a reader of the file computes."""
    (out, inputs), (runs, groups) = quantized.shape, quantized.scales.shape
    codes = quantized.codes.to(torch.float32).reshape(runs, groups, out // max(runs, 1) * inputs // groups)
    if quantized.zero_points is None:
        codes -= float(1 << (quantized.format.bits - 1))
    else:
        codes -= quantized.zero_points.to(torch.float32).unsqueeze(-1)
    codes *= quantized.scales.to(torch.float32).unsqueeze(-1)
    return codes.view(quantized.shape)
