r"""Decide the columns of a weight one after another; those that are left make up for the error of those decided.

With the layer's inputs in the second moment \(H = \mathbb{E}[x x^T] + \lambda I\), a change \(\Delta\) of the weight costs
\(\operatorname{tr}(\Delta H \Delta^T)\), the mean squared error of the outputs. If column i becomes \(\hat w_i\), the columns
after it do best with (optimal brain surgeon; Hassibi and Stork, 1992; Frantar et al., GPTQ, 2022)

\[ w_j \leftarrow w_j - e_i U_{ij}, \qquad e_i = (w_i - \hat w_i) / U_{ii}, \qquad H^{-1} = U^T U, \]

U upper triangular. The cost of all decisions together is exactly \(\sum_i \|e_i\|^2\).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks
from paredown.methods.moments import usable

Order = Literal["natural", "activation"]

_CHUNK = 64  # columns that are brought up to date by one matrix product
_LEAF = 128  # inputs of a triangle that is inverted at once


@dataclass(frozen=True, eq=False)
class InverseFactor:
    r"""What depends on the inputs alone; layers that share their inputs share it.

    Attributes:
        backwards: Cholesky factor of H, lower triangular, float64 [in, in], inputs from the last step of the sweep to the first.
        damped: H in the inputs' own order, float32 [in, in].
        order: Input that each step of the sweep decides, int64 [in].
        damping: λ, absolute.
        note: What was done about degenerate input; empty where nothing was.
    """

    backwards: Tensor
    damped: Tensor
    order: Tensor
    damping: float
    note: str = ""

    def check(self, weight: Tensor) -> None:
        """Refuse a weight [out, in] of another width.

        Raises:
            ParedownError: Then.
        """
        if weight.shape[1] != len(self.order):
            raise ParedownError(
                f"the weight has {weight.shape[1]} inputs, its inverse factor {len(self.order)}; factor the second moment of this layer"
            )

    @cached_property
    def upper(self) -> Tensor:
        """U in the order of the sweep, float32 [in, in]."""
        # H = R Rᵀ with R upper triangular, by factoring from the last input to the first; then U is the inverse of R
        return _inverse(self.backwards).to(torch.float32).flip(0, 1)

    @cached_property
    def feed(self) -> Tensor:
        r"""F in the order of the sweep, float32 [in, in]: upper triangular of unit diagonal, \(H = F \operatorname{diag}(1 / U_{ii}^2) F^T\).

        Where all columns before j are decided, with the changes \(\delta_i = w_i - \hat w_i\) of the weight as it was at first, column j does
        best at \(w_j + \sum_{i<j} \delta_i F_{ij}\): what the errors fed forward by U come to, without an inverse.
        """
        factor = self.backwards.to(torch.float32)
        return (factor / factor.diagonal()).flip(0, 1)

    @cached_property
    def importance(self) -> Tensor:
        """What a squared error costs when its column is decided, given that later columns adapt: 1 / U_ii², [in] in the sweep's order."""
        return self.backwards.diagonal().square().to(torch.float32).flip(0)


def inverse_factor(
    moment: Tensor, *, damping: float = 0.01, order: Order = "activation", unit: int = 1, tokens: int | None = None
) -> InverseFactor:
    r"""Factor the inverse of the damped second moment.

    \(\lambda\) is ``damping`` times the mean diagonal. A dead input has nothing on its diagonal but \(\lambda\): it neither gives
    nor takes compensation, and is rounded to nearest. A moment of rank below its width (fewer tokens than inputs) is made regular
    by \(\lambda\) alike; if that does not do, \(\lambda\) is raised tenfold until it does. A zero moment is taken as the identity.

    Cost: a Cholesky factorisation in float64, in³ / 6 multiplications; once U is asked for a triangular inverse, as many again.

    Args:
        moment: Mean of x xᵀ over tokens, [in, in].
        damping: Relative to the mean diagonal.
        order: ``activation`` decides inputs of large second moment first, while many others can still make up for them: better for
            rounding and n:m; ``natural`` goes from first to last: a little better for unstructured pruning.
        unit: Number of consecutive inputs that stay together, such as the m of n:m; units are then ordered by their mean.
        tokens: How many the moment was taken over, for the note.

    Raises:
        ParedownError: If the moment is not [in, in] or not finite, or the damping is negative.
    """
    if damping < 0:
        raise ParedownError(f"damping is a share of the mean diagonal and can't be negative, got {damping}")
    inputs = moment.shape[0]
    moment, note = usable(moment, inputs)
    diagonal = moment.diagonal()
    steps = _order(diagonal, unit) if order == "activation" else torch.arange(inputs, device=moment.device)
    notes = [note] if note else []
    if dead := int((diagonal <= 0).sum()):
        notes.append(f"{dead} dead inputs are rounded to nearest")
    if tokens is not None and tokens < inputs:
        notes.append(f"{tokens} tokens for {inputs} inputs: damping stands in for the directions that were not seen")
    backwards = steps.flip(0)
    moved = moment[backwards][:, backwards]
    mean, share, added = float(diagonal.mean()), damping, 0.0
    while True:
        moved.diagonal().add_(share * mean - added)
        added = share * mean
        lower, failed = torch.linalg.cholesky_ex(moved)
        if not failed and bool((lower.diagonal() > 0).all()):
            break
        share = max(10 * share, 1e-6)
    if share != damping:
        notes.append(f"damping raised from {damping:g} to {share:g} of the mean diagonal: the second moment is not positive definite")
    moment.diagonal().add_(added)
    return InverseFactor(lower, moment.to(torch.float32), steps, added, "; ".join(notes))


def _inverse(lower: Tensor) -> Tensor:
    """Of a lower triangular matrix, half by half: half the work of solving for the identity."""
    size = len(lower)
    if size <= _LEAF:
        return torch.linalg.solve_triangular(lower, torch.eye(size, dtype=lower.dtype, device=lower.device), upper=False)
    half = size // 2
    inverse = torch.zeros_like(lower)
    first, last = inverse[:half, :half], inverse[half:, half:]
    first.copy_(_inverse(lower[:half, :half]))
    last.copy_(_inverse(lower[half:, half:]))
    torch.matmul(last, lower[half:, :half] @ first, out=inverse[half:, :half]).neg_()
    return inverse


def _order(diagonal: Tensor, unit: int) -> Tensor:
    """Units by falling mean, the inputs of a unit by falling diagonal; equal ones from first to last."""
    units = torch.arange(len(diagonal), device=diagonal.device) // unit
    count = torch.bincount(units)
    mean = torch.zeros(len(count), dtype=diagonal.dtype, device=diagonal.device).index_add_(0, units, diagonal) / count
    order = torch.sort(diagonal, descending=True, stable=True).indices
    place = torch.sort(mean, descending=True, stable=True).indices.argsort()  # of each unit
    return order[torch.sort(place[units[order]], stable=True).indices]


class Sweep:
    """The weight on its way: columns in the order of the factor, and the errors made so far.

    Attributes:
        columns: float32 [in, out]: decided columns first, then those that are left, some not yet up to date.
        errors: e, float32 [in, out].
    """

    def __init__(self, weight: Tensor, factor: InverseFactor) -> None:
        weight = checks.finite(checks.matrix(weight))
        factor.check(weight)
        self.order = factor.order
        self.columns = weight.T[factor.order]
        self.errors = torch.zeros_like(self.columns)
        self._upper = factor.upper
        self._diagonal = factor.upper.diagonal().tolist()
        self._seen = [0] * len(factor.order)

    def up_to_date(self, start: int, stop: int) -> Tensor:
        """The columns of these steps, with the compensation of all decided before ``start``; a view, [stop - start, out]."""
        self._bring(start, stop, start)
        return self.columns[start:stop]

    def _bring(self, first: int, stop: int, start: int) -> None:
        while first < stop:
            seen, last = self._seen[first], first
            while last < stop and self._seen[last] == seen:
                self._seen[last] = start
                last += 1
            if seen < start:
                self.columns[first:last].addmm_(self._upper[seen:start, first:last].T, self.errors[seen:start], alpha=-1)
            first = last

    def gathered(self, steps: list[int]) -> Tensor:
        """The columns of ascending steps from the present one on, with the compensation of all decided before the first; a copy."""
        columns, start = self.columns[steps], steps[0]
        for seen in {self._seen[step] for step in steps} - {start}:
            # two or three of them; the columns stay behind, so that chunks are brought up to date together
            among = [place for place, step in enumerate(steps) if self._seen[step] == seen]
            upper = self._upper[seen:start, [steps[place] for place in among]]
            columns[among] -= upper.T @ self.errors[seen:start]
        return columns

    def steps(self) -> Iterator[int]:
        """Each step in turn; its column is up to date."""
        inputs = len(self._seen)
        for start in range(0, inputs, _CHUNK):
            self.up_to_date(start, min(start + _CHUNK, inputs))
            for step in range(start, min(start + _CHUNK, inputs)):
                self.up_to_date(step, step + 1)
                yield step

    def decide(self, step: int, values: Tensor) -> None:
        """Let the column of this step be ``values``, [out]."""
        column, error = self.columns[step], self.errors[step]
        torch.sub(column, values, out=error).div_(self._diagonal[step])
        column.copy_(values)

    def weight(self) -> Tensor:
        """The decided weight in the inputs' own order, [out, in]."""
        return restore(self.columns, self.order)

    def cost(self) -> float:
        """tr(Δ H Δᵀ) of all decisions: mean squared error of the outputs a token, and λ‖Δ‖²."""
        return squared(self.errors)


def squared(errors: Tensor) -> float:
    """The squared norm of a sweep's errors.

    Raises:
        ParedownError: If the compensation left the range of float32, which takes weights or moments of absurd size.
    """
    unit = float(errors.abs().amax())
    if not math.isfinite(unit):
        raise ParedownError(
            "making up for errors left the range of float32; look for absurd weights or second moments, or round to nearest"
        )
    return unit**2 * float((errors / (unit or 1.0)).square_().sum(dtype=torch.float64))


def cost(change: Tensor, factor: InverseFactor) -> float:
    """tr(Δ H Δᵀ) of any change of the weight, float32 [out, in]."""
    unit = float(change.abs().amax()) or 1.0
    relative = change / unit
    return unit**2 * float((relative @ factor.damped * relative).sum(dtype=torch.float64))


def restore(columns: Tensor, order: Tensor) -> Tensor:
    """Columns in the order of a sweep, [in, out], as a matrix [out, in]."""
    result = torch.empty_like(columns)
    result[order] = columns
    return result.T.contiguous()
