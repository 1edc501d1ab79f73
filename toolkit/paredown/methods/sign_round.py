r"""SignRound, as in AutoRound: learn the rounding of each weight and the range of each group (Cheng et al., 2023).

With the ends l, h of a group's range, a weight becomes

\[ \hat w = s (q - z), \quad q = \operatorname{clamp}\bigl(\lfloor w / s + v \rceil + z,\, 0,\, 2^b - 1\bigr), \quad
   s = \frac{\alpha h - \beta l}{2^b - 1}, \quad z = \lfloor -\beta l / s \rceil, \]

and \(v \in [-\tfrac12, \tfrac12]\) of each weight and \(\alpha, \beta \in [0, 1]\) of each group go against the sign of their
gradients, by steps that fall linearly from 1 / steps to zero; the gradient goes through every rounding as if it were none. What is
made small is

\[ \operatorname{tr}\bigl((\hat W - W) H (\hat W - W)^T\bigr), \qquad H = \mathbb{E}[x x^T]. \]

For one linear layer that is the loss of the paper, the mean squared error of the block's outputs, over all calibration tokens instead of
a few samples at a time: no activation is needed, and no noise is in the gradient. The paper's blocks of several layers also learn to
make up for each other, which one layer at a time can't.

Three things are ours. The range starts where `clip_search`, weighted with what each input costs, puts it; the paper starts at the whole
range. Rows do not touch each other in the loss, so that each row keeps its own best iterate. And 50 steps are the default, the paper's
200 gain another 5 to 10 % (layers of the sentiment model at 3 and 4 bits); 25 of ours err less there than 200 of auto-round.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks, clip_search
from paredown.methods.grid import Grid, ends
from paredown.methods.moments import usable
from paredown.methods.quantize import Quantized
from paredown.specs import WeightFormat

STEPS = 50

_LEAST = 1e-3  # of a range: none closes


def sign_round(weight: Tensor, moment: Tensor, format: WeightFormat, *, steps: int = STEPS) -> Quantized:
    """Round a weight so that its outputs change little.

    No row errs more than with rounding to nearest, over the whole range or the searched one. A moment of zeros is taken as the identity;
    dead inputs and directions that were never seen cost nothing and end as they began, rounded to nearest.

    Cost: a product [out, in] x [in, in] a step.

    Args:
        weight: [out, in], any floating type.
        moment: Mean of x xᵀ over tokens, [in, in].
        format: Bits, group size and symmetry. A symmetric grid has one factor for its range, and keeps its zero point.
        steps: Of the descent.

    Returns:
        Codes, scales and zero points.

    Raises:
        ParedownError: If the weight or the moment is refused, the group does not divide the inputs, or there are no steps.
    """
    if steps < 1:
        raise ParedownError(f"expected at least one step, got {steps}; quantize rounds without any")
    weight = checks.finite(checks.matrix(weight))
    size = checks.group_size(format.group_size, weight.shape[1])
    moment, _ = usable(moment, weight.shape[1])
    groups = weight.reshape(len(weight), -1, size)
    grid = Grid(format.bits, format.symmetric)
    best = _Best(groups, (moment / moment.diagonal().mean()).float())
    scale, zero = grid.span(groups)
    best.look(grid.encode(groups, scale, zero), scale, zero)
    importance = best.moment.diagonal().view(-1, size)
    ranges = _Ranges(grid, groups, importance)
    offset = torch.zeros_like(groups)
    for step in range(steps + 1):
        scale, zero = ranges.grid()
        relative = groups / scale
        free = (relative + offset).round_().add_(zero)
        codes = free.clamp(0, grid.largest)
        gradient = best.look(codes, scale, zero)
        rate = (1 - step / steps) / steps
        clipped = free != codes
        ranges.move(rate, gradient, codes.sub_(zero).sub_(relative.masked_fill_(clipped, 0.0)), clipped, scale)
        uphill = gradient.sign_().mul_(scale.sign()).masked_fill_(clipped, 0.0)
        offset.sub_(uphill, alpha=rate).clamp_(-0.5, 0.5)
    zeros = None if format.symmetric else best.zeros.to(torch.uint8)
    return Quantized(best.codes.view_as(weight), best.scales.to(torch.float16), zeros, format)


class _Best:
    """The loss, and the best of each row so far.

    Attributes:
        moment: H, float32 [in, in], of mean diagonal 1.
        codes: uint8 [out, groups, group size].
        scales: float32 [out, groups], exact in float16.
        zeros: float32 [out, groups], whole.
    """

    def __init__(self, groups: Tensor, moment: Tensor) -> None:
        out, count, _ = groups.shape
        self.moment = moment
        self.codes = torch.empty_like(groups, dtype=torch.uint8)
        self.scales = torch.empty((out, count), device=groups.device)
        self.zeros = torch.empty_like(self.scales)
        self._groups = groups
        self._unit = float(groups.abs().amax()) or 1.0  # so that no loss overflows
        self._least = torch.full((out,), torch.inf, device=groups.device)

    def look(self, codes: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        """Keep the rows that became better; half the gradient of the loss by the weights, but for its unit, like ``codes``."""
        error = ((codes - zero).mul_(scale).sub_(self._groups)).div_(self._unit).flatten(1)
        gradient = error @ self.moment
        loss = error.mul_(gradient).sum(1)
        better = (loss < self._least).nonzero().squeeze(1)
        self._least[better] = loss[better]
        self.codes[better] = codes[better].to(torch.uint8)
        self.scales[better], self.zeros[better] = scale[better].squeeze(-1), zero[better].squeeze(-1)
        return gradient.view_as(codes)


class _Ranges:
    """The factors of both ends of each group's range; on a symmetric grid they are one, and the scale may be negative."""

    def __init__(self, grid: Grid, groups: Tensor, importance: Tensor) -> None:
        low, high = ends(groups)
        self._low, self._high, self._grid = low.clamp_(max=0), high.clamp_(min=0), grid
        whole, _ = grid.cover(low, high)
        start, _ = clip_search.find(grid, groups, importance)
        self._sign = start.sign()
        self._below = start.abs() / whole
        self._above = self._below.clone()

    def grid(self) -> tuple[Tensor, Tensor]:
        """Scale (exact in float16) and zero point (whole) of each group."""
        scale, zero = self._grid.cover(self._low * self._below, self._high * self._above)
        return scale * self._sign, zero

    def move(self, rate: float, gradient: Tensor, by_scale: Tensor, clipped: Tensor, scale: Tensor) -> None:
        """Against the gradient by the weights.

        Args:
            rate: Length of the step.
            gradient: [out, groups, group size].
            by_scale: Derivative of each weight by its scale, the zero point held.
            clipped: Whether a weight is, and so goes with the zero point.
            scale: The present one.
        """
        below = above = slope = (gradient * by_scale).sum(-1, keepdim=True).mul_(self._sign)
        if not self._grid.symmetric:
            by_zero = -scale * torch.where(clipped, gradient, 0.0).sum(-1, keepdim=True)
            # before it is rounded the zero point is -l / s
            slope += by_zero * self._low * self._below / scale.square()
            above = slope * self._high
            below = -(slope / self._grid.largest + by_zero / scale) * self._low
        self._below.sub_(below.sign(), alpha=rate).clamp_(_LEAST, 1)
        self._above.sub_(above.sign(), alpha=rate).clamp_(_LEAST, 1)
