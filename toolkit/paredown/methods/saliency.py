r"""What pruning one weight costs, by criterion, for `paredown.methods.masks.select` to compare.

K-FAC's criteria are in `paredown.methods.kfac_pruning`, those of the optimal brain surgeon in `paredown.methods.brain_surgeon`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from paredown.methods import checks, moments


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


def diagonal_fisher(weight: Tensor, fisher: Tensor) -> Saliency:
    r"""\(\tfrac12 F_{ij} w_{ij}^2\), optimal brain damage with a diagonal Fisher (LeCun et al. 1989; Theis et al. 2018).

    Comparable across rows and layers. Where the whole diagonal is zero, the saliency is \(\tfrac12 w^2\).

    Args:
        weight: [out, in].
        fisher: Mean of squared gradients of single samples (or stated batches), [out, in].
    """
    weight = checks.finite(checks.matrix(weight))
    fisher, note = moments.usable_fisher(fisher, weight.shape)
    return Saliency(weight.square() * fisher.float() / 2, note)
