"""GPTQ: round to the grid of each group, column by column, and let the columns that are left make up for the error.

Frantar et al., GPTQ (2022): the same codes, scales and zero points as `paredown.methods.quantize`, found with the second moment of
the layer's inputs. `error_feedback` has the algebra. A group is consecutive inputs whatever the order of the sweep, so that the
file needs no index; its scale is found when the sweep first comes to one of its inputs, on weights that carry the compensation of
everything decided before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks, clip_search
from paredown.methods.error_feedback import InverseFactor, Sweep, restore
from paredown.methods.grid import Grid
from paredown.methods.quantize import Quantized
from paredown.specs import Solver, WeightFormat


@dataclass(frozen=True, eq=False, slots=True)
class Compensated:
    """A weight whose error the layer's inputs see as little as possible.

    Attributes:
        quantized: Codes, scales and zero points; a pruned weight has the code of zero.
        mask: Bool [out, in], True where kept; None where nothing was pruned.
        cost: Mean squared error of the outputs a token as the sweep sees it, damping included: tr(Δ (H + λI) Δᵀ).
        note: What was done about degenerate input; empty where nothing was.
    """

    quantized: Quantized
    mask: Tensor | None
    cost: float
    note: str = ""


class Rounder:
    """Codes, scales and zero points as a sweep finds them."""

    def __init__(self, sweep: Sweep, factor: InverseFactor, format: WeightFormat, solver: Solver) -> None:
        inputs, out = sweep.columns.shape
        self._size = checks.group_size(format.group_size, inputs)
        self._runs = checks.runs(format.neuron_groups, out)
        self._groups = (factor.order // self._size).tolist()
        self._format, self._grid, self._sweep, self._solver = format, Grid(format.bits, format.symmetric), sweep, solver
        self._importance = factor.importance
        self._codes = torch.empty((inputs, out), dtype=torch.uint8, device=sweep.columns.device)
        self._scales = torch.zeros((inputs // self._size, out), device=sweep.columns.device)
        self._zeros = torch.empty_like(self._scales)
        self._found = [False] * len(self._scales)

    def round(self, step: int, column: Tensor, mask: Tensor | None) -> Tensor:
        """The nearest values of the grid to a column, [out]; its codes are kept. The mask, bool [in, out], is the sweep's."""
        group = self._groups[step]
        if not self._found[group]:
            self._span(group, mask)
        scale, zero = self._scales[group], self._zeros[group]
        codes = self._grid.encode(column, scale, zero)
        self._codes[step] = codes
        return codes.sub_(zero).mul_(scale)

    def _span(self, group: int, mask: Tensor | None) -> None:
        steps = [step for step, other in enumerate(self._groups) if other == group]
        columns = self._sweep.gathered(steps)
        if mask is not None:
            columns = torch.where(mask[steps], columns, 0.0)
        weights = columns.T.reshape(self._runs, 1, -1)
        run = columns.shape[1] // self._runs  # output channels that share the scale
        if self._solver == "mse":
            scale, zero = clip_search.find(self._grid, weights, self._importance[steps].repeat(run))
        else:
            scale, zero = self._grid.span(weights)
        self._scales[group], self._zeros[group] = (found.flatten().repeat_interleave(run) for found in (scale, zero))
        self._found[group] = True

    def quantized(self) -> Quantized:
        """What the file will hold."""
        codes = restore(self._codes, self._sweep.order)
        run = codes.shape[0] // self._runs
        scales, zeros = (found.T[::run].contiguous() for found in (self._scales, self._zeros))
        return Quantized(codes, scales.to(torch.float16), None if self._format.symmetric else zeros.to(torch.uint8), self._format)


def gptq(weight: Tensor, factor: InverseFactor, format: WeightFormat, solver: Solver = "mse", *, mask: Tensor | None = None) -> Compensated:
    """Round a weight so that its outputs change little.

    Args:
        weight: [out, in], any floating type.
        factor: Of the second moment of its inputs; shared by layers that share them.
        format: Bits, groups and symmetry. Scales that span all inputs are found before the first of them is decided.
        solver: How the range of a group is found: ``mse`` weighs the squared error of each input by what it costs once later
            columns have adapted (1 / U_ii²); ``rtn`` takes the whole range.
        mask: Bool [out, in], True where kept; pruned weights become exact zeros, and later columns make up for those too. Do
            better by giving the weight that `paredown.methods.refit` made for the mask.

    Returns:
        What the file holds, and the cost.

    Raises:
        ParedownError: If the weight or the mask is refused, the group does not divide the inputs, or the factor is of another width.
    """
    sweep = Sweep(weight, factor)
    rounder = Rounder(sweep, factor, format, solver)
    kept = None if mask is None else _checked(mask, sweep)
    for step in sweep.steps():
        column = sweep.columns[step]
        sweep.decide(step, rounder.round(step, column if kept is None else torch.where(kept[step], column, 0.0), kept))
    return Compensated(rounder.quantized(), mask, sweep.cost(), factor.note)


def _checked(mask: Tensor, sweep: Sweep) -> Tensor:
    if mask.shape != sweep.columns.T.shape or mask.dtype != torch.bool:
        raise ParedownError(f"expected a bool mask {list(sweep.columns.T.shape)}, got {mask.dtype} {list(mask.shape)}")
    return mask.T[sweep.order]
