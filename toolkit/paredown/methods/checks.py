"""What every method asks of the tensors that it is given, in one wording."""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.errors import ParedownError


def matrix(weight: Tensor) -> Tensor:
    """The weight without its gradient.

    Args:
        weight: [out, in].

    Raises:
        ParedownError: If it is no matrix, or an empty one.
    """
    if weight.ndim != 2 or 0 in weight.shape:
        raise ParedownError(f"expected a weight of shape [out, in] with at least one element, got {list(weight.shape)}")
    return weight.detach()


def finite(weight: Tensor) -> Tensor:
    """The weight as float32.

    Raises:
        ParedownError: If it holds NaN or infinite values.
    """
    weight = weight.to(torch.float32)
    if not all_finite(weight):
        raise ParedownError(
            "the weight holds NaN or infinite values; compress a checkpoint that computes finite outputs, or keep this layer"
        )
    return weight


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite; one pass where the sum, which holds on to both, is finite."""
    return bool(torch.isfinite(values.sum()) or torch.isfinite(values).all())


def group_size(size: int | None, inputs: int) -> int:
    """Inputs of one group; None means all of them.

    Raises:
        ParedownError: If the groups do not fill the inputs.
    """
    size = size or inputs
    if inputs % size:
        raise ParedownError(
            f"the group size {size} does not divide the {inputs} inputs of the weight; take what paredown.sizes.fit returns, or a group size that divides them"
        )
    return size


def runs(groups: int | None, out: int) -> int:
    """Runs of output channels that share their scales; None means that none do.

    Raises:
        ParedownError: If the runs are not equally long.
    """
    groups = groups or out
    if out % groups:
        raise ParedownError(
            f"{groups} neuron groups do not divide the {out} outputs of the weight; take what paredown.sizes.fit returns, or a number that divides them"
        )
    return groups


def second_moment(moment: Tensor, inputs: int) -> Tensor:
    """The input second moment as float64, made symmetric.

    Args:
        moment: Mean of x xᵀ over tokens, [in, in].
        inputs: Inputs of the weight that it belongs to.

    Raises:
        ParedownError: If it is not [in, in], or holds NaN or infinite values.
    """
    if tuple(moment.shape) != (inputs, inputs):
        raise ParedownError(f"expected the mean of x xᵀ over tokens, shape [{inputs}, {inputs}], got {list(moment.shape)}")
    moment = moment.detach()
    if not torch.isfinite(moment).all():
        raise ParedownError("the input second moment holds NaN or infinite values; calibrate in float32, or leave the failing samples out")
    symmetric = torch.equal(moment, moment.T)  # a fifth of the work of making it so
    moment = moment.to(torch.float64, copy=True)
    return moment if symmetric else (moment + moment.T).div_(2)
