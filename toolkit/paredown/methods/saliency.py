r"""What pruning one weight costs, by criterion, for `paredown.methods.masks.select` to compare.

K-FAC's criteria are in `paredown.methods.kfac_pruning`, those of the optimal brain surgeon in `paredown.methods.brain_surgeon`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks


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
    Where all inputs are dead the moment says nothing, and the saliency is the magnitude.

    Args:
        weight: [out, in].
        moment: Mean of x xᵀ over tokens, [in, in].
    """
    weight = checks.finite(checks.matrix(weight))
    squares = checks.second_moment(moment, weight.shape[1]).diagonal().clamp(min=0)
    if not squares.any():
        return Saliency(weight.abs(), "no input is ever active; weights are compared by magnitude")
    return Saliency(weight.abs() * squares.sqrt().float())


def diagonal_fisher(weight: Tensor, fisher: Tensor) -> Saliency:
    r"""\(\tfrac12 F_{ij} w_{ij}^2\), optimal brain damage with a diagonal Fisher (LeCun et al. 1989; Theis et al. 2018).

    Comparable across rows and layers. Where the whole diagonal is zero it says nothing, and the saliency is \(\tfrac12 w^2\).

    Args:
        weight: [out, in].
        fisher: Mean of squared gradients of single samples (or stated batches), [out, in].

    Raises:
        ParedownError: If the shapes differ, or the diagonal is negative or not finite somewhere.
    """
    weight = checks.finite(checks.matrix(weight))
    if fisher.shape != weight.shape or not bool((fisher >= 0).all()) or not bool(fisher.isfinite().all()):
        raise ParedownError(
            f"expected a mean of squared gradients {list(weight.shape)}, finite and nowhere negative, got {list(fisher.shape)}"
            f" from {fisher.min().item():.3g} to {fisher.max().item():.3g}"
        )
    if not fisher.any():
        return Saliency(weight.square() / 2, "no gradient reaches the layer; weights are compared by magnitude")
    return Saliency(weight.square() * fisher.float() / 2)
