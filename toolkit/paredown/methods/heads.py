r"""Fewer heads: which to keep, and an output projection that makes up for the others.

A head is a block of inputs of the output projection; with grouped queries a unit is a key-value head with all the query heads that
share it. Removing unit g, with the others adapting as in `paredown.methods.channels.project`, costs

\[ s_g = \operatorname{tr}\left(W_g \left([C^{-1}]_{gg}\right)^{-1} W_g^T\right), \]

the optimal brain surgeon's saliency of a block of columns, where C is the second moment of the projection's inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import channels, checks, moments
from paredown.methods.channels import DAMPING


@dataclass(frozen=True, eq=False, slots=True)
class KeptHeads:
    """An attention of fewer heads.

    Attributes:
        kept: The units that stay, int64 [kept], ascending.
        output: The output projection, float32 [out, kept × unit].
        error: Expected squared error of the output, by the moment.
        note: What was done about degenerate input; empty where nothing was.
    """

    kept: Tensor
    output: Tensor
    error: float
    note: str = ""


def head_losses(output: Tensor, moment: Tensor, heads: int, *, damping: float = DAMPING) -> Tensor:
    """The expected squared error of the output if one unit alone is removed and the others adapt, float64 [heads].

    Args:
        output: Weight of the output projection, [out, heads × unit].
        moment: Mean of the outer product of its inputs, [in, in].
        heads: Units; the key-value heads where queries are grouped.
        damping: Relative to the mean of the squared inputs.

    Raises:
        ParedownError: If the heads do not divide the inputs.
    """
    output = checks.finite(checks.matrix(output)).double()
    if output.shape[1] % heads:
        raise ParedownError(f"expected a number of heads that divides the {output.shape[1]} inputs of the output projection, got {heads}")
    moment, _ = moments.usable(moment, output.shape[1])
    moment.diagonal().add_(damping * moment.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment)).unflatten(0, (heads, -1)).unflatten(2, (heads, -1))
    blocks = torch.linalg.inv(torch.diagonal(inverse, dim1=0, dim2=2).permute(2, 0, 1))
    weights = output.unflatten(1, (heads, -1)).transpose(0, 1)
    return ((weights @ blocks) * weights).sum((1, 2))


def keep_heads(output: Tensor, moment: Tensor, heads: int, keep: int, *, damping: float = DAMPING) -> KeptHeads:
    """Keep the units whose single removal costs most, and update the output projection.

    The query, key and value projections lose the same units: see `take`.

    Args:
        output: Weight of the output projection, [out, heads × unit].
        moment: Mean of the outer product of its inputs, [in, in].
        heads: Units; the key-value heads where queries are grouped.
        keep: How many stay.
        damping: Relative to the mean of the squared inputs.

    Raises:
        ParedownError: If there are not that many.
    """
    if not 1 <= keep <= heads:
        raise ParedownError(f"expected to keep 1 to {heads} of {heads} heads, got {keep}")
    kept = head_losses(output, moment, heads, damping=damping).topk(keep).indices.sort().values
    columns = torch.arange(output.shape[1], device=kept.device).reshape(heads, -1)[kept].flatten()
    projected = channels.project(output, moment, columns, damping=damping)
    return KeptHeads(kept, projected.weight, projected.error, projected.note)


def take(rows: Tensor, kept: Tensor, heads: int) -> Tensor:
    """What the kept units have of a query, key or value projection: its weight [heads × unit, in] or bias [heads × unit]."""
    return rows.unflatten(0, (heads, -1))[kept].flatten(0, 1)
