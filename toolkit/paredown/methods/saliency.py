r"""What pruning one weight costs, by criterion, for `paredown.methods.masks.select` to compare.

K-FAC's criteria are in `paredown.methods.kfac_pruning`, those of the optimal brain surgeon in `paredown.methods.brain_surgeon`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks, moments

DAMPING = 0.1
"""Of the diagonal Fisher, relative to its mean."""


@dataclass(frozen=True, eq=False, slots=True)
class Saliency:
    """What pruning each weight of a layer costs.

    Attributes:
        values: Float32 [out, in], nowhere negative.
        note: What was done about degenerate input; empty where nothing was.
    """

    values: Tensor
    note: str = ""


def magnitude(weight: Tensor) -> Saliency:
    r"""\(|w_{ij}|\).

    Args:
        weight: [out, in].
    """
    return Saliency(checks.finite(checks.matrix(weight)).abs())


def wanda(weight: Tensor, moment: Tensor) -> Saliency:
    r"""\(|w_{ij}| \sqrt{E[x_j^2]}\): the root mean square of what the output loses with one weight (Sun et al. 2024, Wanda).

    To be compared within a row (``Unstructured(fraction, per_row=True)`` or n of m). A dead input has no saliency and goes first.
    Where all inputs are dead, the saliency is the magnitude.

    Args:
        weight: [out, in].
        moment: Mean of x xᵀ over tokens, [in, in].
    """
    weight = checks.finite(checks.matrix(weight))
    inputs, note = moments.usable_diagonal(moment, weight.shape[1])
    return Saliency(weight.abs() * inputs.clamp(min=0).sqrt().float(), note)


def diagonal_fisher(weight: Tensor, fisher: Tensor, *, damping: float = DAMPING) -> Saliency:
    r"""\(\tfrac12 (F_{ij} + \lambda) w_{ij}^2\), optimal brain damage with a damped diagonal Fisher (LeCun et al. 1989; Theis et al. 2018).

    Some hundred samples leave much of the diagonal near zero that more samples would not. Without damping such weights go first, however
    large they are: half of the sentiment demo's linear weights then cost a KL of 0.35 nats, by magnitude 0.11, and with \(\lambda\) a
    tenth of the mean 0.02.

    Comparable across the rows of a layer. Where the whole diagonal is zero, the saliency grows with \(w^2\) alone.

    Args:
        weight: [out, in].
        fisher: Mean of squared gradients of single samples (or stated batches), [out, in].
        damping: \(\lambda\) relative to the mean of the diagonal, as in M-FAC; 0 is the paper's, comparable across layers too.

    Raises:
        ParedownError: If the damping is negative, or the Fisher has another shape or is not finite.
    """
    if not damping >= 0:
        raise ParedownError(f"expected a damping of at least 0, relative to the mean squared gradient, got {damping}")
    weight = checks.finite(checks.matrix(weight))
    fisher, note = moments.usable_fisher(fisher, weight.shape)
    return Saliency(weight.square() * (fisher + damping * fisher.mean()).float() / 2, note)
