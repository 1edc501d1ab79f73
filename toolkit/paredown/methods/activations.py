r"""Activations on an integer grid: a range found beforehand, learned in training (PACT), or taken from each token.

Emulated: values are rounded to the grid and stay floats. Ranges are those of `paredown.methods.grid.Grid`, widened to hold zero
(padding and ReLU give exact zeros), but for PACT, whose learned ends are free as published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods.grid import Grid

PERCENTILES = (99.9, 99.99, 99.999, 100.0)
"""Of static ranges: at most one in a thousand activations is clipped at each end, or none."""


@dataclass(frozen=True, slots=True)
class Range:
    """Ends of a static range; what lies outside is clipped.

    Attributes:
        low: At most zero.
        high: At least zero.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= 0 <= self.high:
            raise ParedownError(f"a range holds zero, got {self.low} to {self.high}")


@dataclass(frozen=True, eq=False, slots=True)
class StaticGrid:
    """The asymmetric grid of a layer's inputs, as the file holds it.

    Attributes:
        scale: float16 [1].
        zero_point: uint8 [1], the code of zero.
        bits: 2 to 8.
    """

    scale: Tensor
    zero_point: Tensor
    bits: int

    def round(self, activations: Tensor) -> Tensor:
        """The nearest values of the grid; infinite activations become its ends, NaN stays NaN."""
        return self.integers(activations).mul_(self.scale.to(torch.float32)).to(activations.dtype)

    def integers(self, activations: Tensor) -> Tensor:
        """The nearest values of the grid in its steps: whole float32, of magnitude below 2^bits."""
        zero = self.zero_point.to(torch.float32)
        return _grid(self.bits, symmetric=False).encode(activations.to(torch.float32), self.scale.to(torch.float32), zero).sub_(zero)


def static_range(activations: Tensor | Sequence[Tensor], bits: int) -> Range:
    """The one of the `PERCENTILES`' ranges that rounds calibration data with the least squared error; of equals the narrowest.

    Percentile calibration (Wu et al., 2020) leaves the percentile open. What suits one layer ruins another: activations that a few
    outliers carry want the extremes, while long tails of no weight want to be clipped, the more so the fewer bits there are.

    Args:
        activations: Of real tokens, any shape and floating type; whole or in parts.
        bits: 2 to 8.

    Raises:
        ParedownError: As `percentile_ranges`.
    """
    parts = [activations] if isinstance(activations, Tensor) else activations

    def squared_error(range: Range) -> float:
        grid = static_grid(range, bits)
        return sum(float((grid.round(part) - part).double().square_().sum()) for part in parts)

    return min(dict.fromkeys(percentile_ranges(parts, PERCENTILES)), key=squared_error)


def percentile_ranges(activations: Tensor | Sequence[Tensor], percentiles: Sequence[float]) -> list[Range]:
    """The ranges between the percentiles 100 - p and p of calibration data, each widened to hold zero.

    Percentiles are those of the sorted values without interpolation; 100 takes the extremes. They are exact, and read in one pass: of
    all parts only what lies outside the lowest is held at once.

    Args:
        activations: Of real tokens, any shape and floating type; whole or in parts.
        percentiles: Each above 50, at most 100.

    Raises:
        ParedownError: If there are no activations, or they hold NaN or infinite values, or a percentile is out of range.
    """
    if not all(50 < percentile <= 100 for percentile in percentiles):
        raise ParedownError(f"percentiles are above 50 and at most 100, got {', '.join(map(str, percentiles))}")
    parts = [activations] if isinstance(activations, Tensor) else activations
    count = sum(part.numel() for part in parts)
    if not count or not all(torch.isfinite(part).all() for part in parts):
        raise ParedownError(
            "expected finite activations of at least one token; run the calibration in float32, or leave failing samples out"
        )
    tails = [int(count * (1 - percentile / 100)) + 1 for percentile in percentiles]
    low = high = parts[0].new_empty(0, dtype=torch.float32)
    for part in parts:
        values = part.detach().to(torch.float32).flatten()
        low = _extremes(torch.cat([low, values]), max(tails), largest=False)
        high = _extremes(torch.cat([high, values]), max(tails), largest=True)
    return [Range(min(float(low[tail - 1]), 0.0), max(float(high[tail - 1]), 0.0)) for tail in tails]


def _extremes(values: Tensor, count: int, *, largest: bool) -> Tensor:
    return values.topk(min(count, len(values)), largest=largest).values


def static_grid(range: Range, bits: int) -> StaticGrid:
    """The asymmetric grid that spans a range.

    Args:
        range: What `static_range` found.
        bits: 2 to 8.
    """
    scale, zero = _grid(bits, symmetric=False).cover(torch.tensor([range.low]), torch.tensor([range.high]))
    return StaticGrid(scale.to(torch.float16), zero.to(torch.uint8), bits)


def quantize_static(activations: Tensor, range: Range, bits: int) -> Tensor:
    """The nearest values of the asymmetric grid over a static range (`StaticGrid.round`).

    Args:
        activations: Any shape and floating type.
        range: What `static_range` found.
        bits: 2 to 8.
    """
    return static_grid(range, bits).round(activations)


def quantize_per_token(activations: Tensor, bits: int, *, symmetric: bool = True) -> Tensor:
    """The nearest values of the grid over each token's own range: nothing to calibrate, nothing clipped.

    A token that is not finite everywhere is left as it is, for it has no range.

    Args:
        activations: [..., in], any floating type.
        bits: 2 to 8.
        symmetric: Without a zero point, as integer kernels want it.
    """
    integers, scales = token_integers(activations, bits, symmetric=symmetric)
    return integers.mul_(scales).to(activations.dtype)


def token_integers(activations: Tensor, bits: int, *, symmetric: bool = True) -> tuple[Tensor, Tensor]:
    """`quantize_per_token`'s values in steps of each token's grid, and the steps.

    Args:
        activations: [..., in], any floating type.
        bits: 2 to 8.
        symmetric: Without a zero point.

    Returns:
        Whole float32 [..., in], of magnitude below 2^bits, and float32 [..., 1]. A token that is not finite everywhere is returned as it
        is, with the step 1.
    """
    grid = _grid(bits, symmetric)
    tokens = activations.to(torch.float32).reshape(-1, 1, activations.shape[-1])
    scale, zero = grid.span(tokens)
    finite = torch.isfinite(tokens).all(dim=-1, keepdim=True)
    integers = torch.where(finite, grid.encode(tokens, scale, zero) - zero, tokens)
    return integers.reshape(activations.shape), torch.where(finite, scale, 1.0).reshape(*activations.shape[:-1], 1)


def pact(activations: Tensor, low: Tensor, high: Tensor, bits: int, *, plus: bool = True) -> Tensor:
    r"""Clip to a learned range and round to its \(n = 2^b - 1\) steps (PACT, Choi et al., 2018; two-sided, as IBM's fms-model-optimizer has it).

    \[ z = \operatorname{clamp}\!\left(\frac{x - l}{s}, 0, n\right), \quad s = \frac{h - l}{n}, \quad y = l + s \lfloor z \rceil. \]

    Gradients: of x straight through inside the range, none outside; of h the sum of the gradients above the range, of l of those
    below. PACT+ adds what moving an end does to the rounding error of the values inside: \((\lfloor z \rceil - z)/n\) to h, its
    negative to l.

    Args:
        activations: Any shape.
        low: l, scalar, with gradient where it is learned; below ``high``.
        high: h, likewise.
        bits: 2 to 8.
        plus: Whether to use the gradient of PACT+.

    Raises:
        ParedownError: If the range is empty.
    """
    _grid(bits, symmetric=False)
    if not bool(low < high):
        raise ParedownError(f"the learned range is empty: {float(low)} to {float(high)}; lower its learning rate, or calibrate it again")
    result = _Pact.apply(activations, low, high, (1 << bits) - 1, plus)
    assert isinstance(result, Tensor)
    return result


class _Pact(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, low: Tensor, high: Tensor, steps: int, plus: bool) -> Tensor:
        ctx.save_for_backward(values, low, high)
        ctx.steps, ctx.plus = steps, plus
        scale = (high - low) / steps
        return ((values - low) / scale).clamp(0, steps).round() * scale + low

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (gradient,) = gradients
        values, low, high = ctx.saved_tensors
        above, below = values >= high, values <= low
        inside = gradient * ~(above | below)
        of_low, of_high = (gradient * below).sum(), (gradient * above).sum()
        if ctx.plus:
            place = (values - low) / (high - low) * ctx.steps
            moved = (inside * (place.round() - place)).sum() / ctx.steps
            of_low, of_high = of_low - moved, of_high + moved
        return inside, of_low.view_as(low), of_high.view_as(high), None, None


def _grid(bits: int, symmetric: bool) -> Grid:
    if not 2 <= bits <= 8:
        raise ParedownError(f"activations have 2 to 8 bits, got {bits}")
    return Grid(bits, symmetric)
