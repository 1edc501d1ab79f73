r"""HQQ: scales and zero points of each group by half-quadratic splitting, without calibration data (Badri and Shaji, 2023).

The error of a group is split into a sparse part e, which outliers may keep, and the rest, which is least squares:

\[ \min_{s, z, e} \; \sum_i |e_i|^p + \tfrac{\beta}{2} \bigl(w_i - s (q_i - z) - e_i\bigr)^2, \qquad
   e_i = \operatorname{sign}(r_i) \max\bigl(0, |r_i| - |r_i|^{p-1} / \beta\bigr), \quad r_i = w_i - s (q_i - z), \]

in turn for e, by the generalised soft threshold with p = 0.7, and for the grid, while \(\beta\) grows. The paper moves a zero point
that is any number, \(z = \operatorname{mean}(q - (w - e) / s)\), and leaves the scale. Here the zero point is a code, so that both
move: scale and zero point by the least squares of w - e on the codes, the zero point to its nearest code, then the scale alone.
Four more things differ:

- errors are measured in steps of the grid, so that \(\beta\) means the same for all weights. The official \(\beta = 10\) is absolute:
  it takes weights below 0.17 for no outliers, whatever they are, and most layers hold nothing larger;
- the start is the range of `clip_search`, not the whole range;
- each group ends at its own best squared error and stops when it rises, where the paper stops all groups together;
- so no group has a larger squared error than with `clip_search`, and none than with rounding to nearest.

Beside torchao's, whose zero points are free, in the same groups, at 3 and 4 bits (`benchmarks/methods.py`): 0.74 to 1.04 times its error of
outputs on layers of demo:sentiment, 0.80 to 1.14 on those of a block of demo:vision and a decoder block of demo:speech but its second MLP
layer, where it is 1.4 and 1.7, as on that of demo:lm, whose inputs have one huge channel and whose weights were once rounded with free
offsets. With torchao's zero points rounded to codes, which is what the same file can hold, 0.73 to 1.01 times everywhere but on these two
layers, 1.1 and 1.3 in demo:speech, 0.9 and 1.5 in demo:lm: at 3 bits the clip search, blind to the inputs, clips what the huge one meets,
and errs 1.5 times as much as the whole range. With the same bytes, which are groups half as long without zero points: 0.65 to 0.89 on
demo:sentiment, and 1.1 and 1.0 on demo:lm.

Most of what is gained over rounding to nearest is due to the start and the scale; the threshold, whatever its p, changes next to nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.methods import clip_search
from paredown.methods.grid import Grid, to_half
from paredown.methods.quantize import Quantized, quantize_with
from paredown.specs import WeightFormat

POWER = 0.7
BETA = 1.0
"""At the start, of errors in steps: only weights that are clipped by more than a step are outliers at first."""

GROWTH = 1.01
STEPS = 20


def quantize_hqq(weight: Tensor, format: WeightFormat) -> Quantized:
    """Round a weight to grids that were found by half-quadratic splitting.

    Groups of zeros, tiny and huge weights: as `paredown.methods.quantize`.

    Cost: the clip search of ``mse``, then about three passes, at most `STEPS`.

    Args:
        weight: [out, in], any floating type.
        format: Bits, group size and symmetry. A symmetric grid keeps its zero point, and its scale alone moves.

    Returns:
        Codes, scales and zero points.

    Raises:
        ParedownError: If the weight is no matrix, holds NaN or infinite values, or its inputs are not divisible by the group size.
    """
    return quantize_with(find, weight, format)


def find(grid: Grid, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each group.

    Args:
        grid: Bits and symmetry.
        groups: float32 [rows, groups, group size].

    Returns:
        Scale (exact in float16, negative where a symmetric grid is mirrored) and zero point (whole), each float32 [rows, groups, 1].
    """
    start = clip_search.find(grid, groups)
    left, scale, zero = groups.reshape(-1, groups.shape[-1]), start[0].reshape(-1, 1), start[1].reshape(-1, 1)
    best_scale, best_zero = scale.clone(), zero.clone()
    places = torch.arange(len(left), device=groups.device)  # of the groups that are not done
    least = torch.full((len(left), 1), torch.inf, dtype=torch.float64, device=groups.device)
    beta = BETA
    for _ in range(STEPS + 1):
        relative = left / scale
        values = grid.encode(left, scale, zero).sub_(zero)
        rest = relative - values
        error = rest.square().sum(1, keepdim=True, dtype=torch.float64) * scale.double().square()
        better = (error < least).squeeze(1)
        if not better.any():
            break
        if not better.all():
            places, left, scale, zero, least = places[better], left[better], scale[better], zero[better], least[better]
            relative, values, rest, error = relative[better], values[better], rest[better], error[better]
        best_scale[places], best_zero[places], least = scale, zero, error
        target = relative.sub_(shrink(rest, beta))
        beta *= GROWTH
        if not grid.symmetric:
            shift = _shift(grid, target, values, zero)
            values, zero = values.sub_(shift), zero + shift
        scale = _refit(target, values, scale)
    return best_scale.view_as(start[0]), best_zero.view_as(start[1])


def shrink(errors: Tensor, beta: float, power: float = POWER) -> Tensor:
    """The generalised soft threshold: what of each error counts as an outlier."""
    size = errors.abs()
    return errors.sign() * (size - size.pow(power - 1) / beta).clamp_(min=0)


def _shift(grid: Grid, target: Tensor, values: Tensor, zero: Tensor) -> Tensor:
    """How far the zero point moves: least squares of the target on scale and zero point, to the nearest code."""
    mean, aim = values.mean(1, keepdim=True), target.mean(1, keepdim=True)
    spread = values - mean
    scale = (spread * target).sum(1, keepdim=True) / spread.square().sum(1, keepdim=True)
    scale = torch.where(scale > 0.5, scale, 1.0)  # of a group with a single code, or one that fits nothing: as it was
    return (zero + mean - aim / scale).round_().clamp_(0, grid.largest).sub_(zero)


def _refit(target: Tensor, values: Tensor, scale: Tensor) -> Tensor:
    """Least squares of the target, in steps of the present scale, on the scale; as it was where all codes are zero's."""
    squares = values.square().sum(1, keepdim=True)
    factor = (values * target).sum(1, keepdim=True) / squares
    return torch.where((squares > 0) & (factor > 0), to_half(scale.abs() * factor) * scale.sign(), scale)
