r"""Fewer channels of an MLP: which to keep, and a down projection that makes up for the others (MoDeGPT's module I, Lin et al. 2025).

Channels h feed \(W h\). Kept are those of the largest ridge leverage \([C (C + \lambda I)^{-1}]_{jj}\), \(C = E[h h^T]\): what the
others can't say. The Nyström update \(W' = W C S (S^T C S)^{-1}\), S picking the kept ones, is the least squares fit of
\(W h\) by \(W' h_S\). The layers that make the channels lose the same rows, so that the result is really smaller.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks, moments

DAMPING = 1e-4
"""Weight of staying at the old projection, relative to the mean of E[h_j²]."""


@dataclass(frozen=True, eq=False, slots=True)
class KeptChannels:
    r"""A projection of fewer inputs.

    Attributes:
        kept: The inputs that stay, int64 [kept], ascending. Take the same rows of the weights and biases that make them.
        weight: Float32 [out, kept].
        error: \(E\|W h - W' h_S\|^2\), expected by the moment.
        note: What was done about degenerate input; empty where nothing was.
    """

    kept: Tensor
    weight: Tensor
    error: float
    note: str = ""


def leverage(moment: Tensor, keep: int) -> Tensor:
    r"""Ridge leverage of each channel, float64 [channels], between 0 and 1.

    The ridge is \(\lambda = \frac1k \sum_{i>k} \lambda_i(C)\), for which keeping the top scores is within a constant of the best
    subspace (Cohen, Musco and Musco 2017).

    Args:
        moment: C, mean of h hᵀ over tokens, [channels, channels].
        keep: k, how many are to be kept.

    Raises:
        ParedownError: If there are not that many.
    """
    _check_keep(keep, len(moment))
    moment, _ = moments.usable(moment, len(moment))
    values = torch.linalg.eigvalsh(moment)
    tail = float(values[: len(moment) - keep].clamp(min=0).sum()) / keep
    # of fewer tokens than channels, rounding leaves eigenvalues of either sign: they count for nothing
    ridge = max(tail, 1e-10 * float(moment.diagonal().mean()), -100 * float(values[0]))
    moment.diagonal().add_(ridge)
    return 1 - ridge * torch.cholesky_inverse(torch.linalg.cholesky(moment)).diagonal()


def keep_channels(weight: Tensor, moment: Tensor, keep: int, *, damping: float = DAMPING) -> KeptChannels:
    """Keep the channels of the largest leverage, and update the projection.

    Args:
        weight: W, [out, channels].
        moment: C, mean of h hᵀ over tokens, [channels, channels].
        keep: How many channels stay.
        damping: As in `project`.
    """
    kept = leverage(moment, keep).topk(keep).indices.sort().values
    return project(weight, moment, kept, damping=damping)


def project(weight: Tensor, moment: Tensor, kept: Tensor, *, damping: float = DAMPING) -> KeptChannels:
    r"""The projection of the kept inputs that errs least, \(\min E\|W h - W' h_S\|^2 + \epsilon \|W' - W S\|^2\).

    The damping pulls towards plain removal, so that the expected error is never above that of plain removal.

    Args:
        weight: W, [out, in].
        moment: C, mean of h hᵀ over tokens, [in, in].
        kept: Which inputs stay, int64 [kept].
        damping: ε relative to the mean of E[h_j²]; infinity gives plain removal.
    """
    weight = checks.finite(checks.matrix(weight)).double()
    moment, note = moments.usable(moment, weight.shape[1])
    dropped = torch.ones(weight.shape[1], dtype=torch.bool, device=weight.device).index_fill_(0, kept, value=False).nonzero()[:, 0]
    updated = weight[:, kept]
    if damping < float("inf") and len(dropped):
        inner = moment[kept][:, kept]
        inner.diagonal().add_(damping * moment.diagonal().mean())
        wanted = weight[:, dropped] @ moment[dropped][:, kept]
        updated = updated + torch.cholesky_solve(wanted.T, torch.linalg.cholesky(inner)).T
    change = weight.clone()
    change[:, kept] -= updated
    return KeptChannels(kept, updated.float(), float(((change @ moment) * change).sum()), note)


def _check_keep(keep: int, channels: int) -> None:
    if not 1 <= keep <= channels:
        raise ParedownError(f"expected to keep 1 to {channels} of {channels} channels, got {keep}")
