"""Second moments that methods can use: the one rule for moments that say nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks


def usable(moment: Tensor, inputs: int) -> tuple[Tensor, str]:
    """The moment as symmetric float64, and what was done about it.

    A moment without any trace would make every answer as good as every other; the identity stands in for it, which measures errors
    of the weights instead of the outputs.

    Args:
        moment: Mean of x xᵀ over tokens, [in, in].
        inputs: Its expected width.
    """
    moment = checks.second_moment(moment, inputs)
    if moment.trace() > 0:
        return moment, ""
    return torch.eye(
        inputs, dtype=moment.dtype, device=moment.device
    ), "no input is ever active; its second moment is taken as the identity"


def usable_diagonal(moment: Tensor, inputs: int) -> tuple[Tensor, str]:
    """The diagonal of `usable`, [in], without a pass over the rest where it is good as it is; arguments and note are the same."""
    if tuple(moment.shape) == (inputs, inputs):
        diagonal = moment.detach().diagonal().to(torch.float64)
        if 0 < diagonal.sum() < torch.inf:
            return diagonal, ""
    moment, note = usable(moment, inputs)
    return moment.diagonal(), note


def add_ridge_(moment: Tensor) -> None:
    """Let inputs that were never seen count a little, 1e-10 of the mean: they get the rank that is left over, and only that."""
    moment.diagonal().add_(1e-10 * moment.diagonal().mean())


def usable_fisher(fisher: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, str]:
    """The diagonal Fisher as float64, and what was done about it: where no gradient reaches the layer, ones stand in for it.

    Args:
        fisher: Mean of squared gradients, [out, in].
        shape: Of the weight.

    Raises:
        ParedownError: If the shapes differ, or it is negative or not finite somewhere.
    """
    if fisher.shape != shape or not bool((fisher >= 0).all()) or not bool(fisher.isfinite().all()):
        raise ParedownError(
            f"expected a mean of squared gradients {list(shape)}, finite and nowhere negative, got {list(fisher.shape)}"
            f" from {fisher.min().item():.3g} to {fisher.max().item():.3g}"
        )
    fisher = fisher.detach().double()
    return (fisher, "") if fisher.any() else (torch.ones_like(fisher), "no gradient reaches the layer; all its weights count alike")


def check_damping(damping: float) -> None:
    """Refuse what would leave a matrix singular.

    Raises:
        ParedownError: If the damping is not above zero.
    """
    if not damping > 0:
        raise ParedownError(f"expected a damping above 0, got {damping}; 0.01 to 0.1 of the mean is usual")
