r"""What two changes cost together beyond the sum of what each costs: inter-layer terms of the loss.

\(I_{ij} = L(\Delta_i + \Delta_j) - L(\Delta_i) - L(\Delta_j) + L(0)\) is \(\Delta_i^\top H_{ij} \Delta_j\) to second order (CLADO, Deng et al.,
2023), and exactly that where the loss is quadratic. It is estimated by plain evaluations of the loss: one for the original, one for each
change and one for each pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from paredown.errors import ParedownError

Loss = Callable[[frozenset[int]], np.ndarray]
"""The loss with some changes applied, on the same samples each time: one value a sample, [samples]."""


@dataclass(frozen=True, eq=False, slots=True)
class Interactions:
    r"""What changes cost alone and in pairs.

    Attributes:
        names: Of the changes.
        single: Loss increase of each alone, [n].
        single_sd: Its standard error over the samples, [n].
        pairs: \(I_{ij}\), [n, n], symmetric; 0 on the diagonal and where the pair was left out.
        pairs_sd: Its standard error over the samples, [n, n].
    """

    names: tuple[str, ...]
    single: np.ndarray
    single_sd: np.ndarray
    pairs: np.ndarray
    pairs_sd: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        r"""M with \(\frac12 x^\top M x\) = the predicted loss increase of the changes with \(x_i = 1\), [n, n]; CLADO's matrix."""
        return self.pairs + 2 * np.diag(self.single)

    def predict(self, changes: Sequence[int]) -> float:
        """Loss increase of some changes together, to second order."""
        chosen = list(changes)
        return float(self.single[chosen].sum() + self.pairs[np.ix_(chosen, chosen)].sum() / 2)

    def projected(self) -> Interactions:
        """The same with the nearest positive semi-definite matrix: eigenvalues below 0 become 0 (CLADO).

        A Hessian at a minimum has none; estimates of large changes do. It moves the single terms too. Standard errors stay as they were.
        """
        values, vectors = np.linalg.eigh(self.matrix)
        nearest = (vectors * np.maximum(values, 0)) @ vectors.T
        diagonal = np.diag(nearest) / 2
        return replace(self, single=diagonal, pairs=nearest - np.diag(np.diag(nearest)))


def measure_interactions(loss: Loss, names: Sequence[str], *, groups: Sequence[int] | None = None) -> Interactions:
    r"""Evaluate all changes alone and in pairs: \(1 + n + n(n-1)/2\) evaluations, fewer where groups rule pairs out.

    Args:
        loss: See `Loss`; a loss of one sample leaves the standard errors unknown (NaN).
        names: Of the changes, which are numbered in this order.
        groups: Of each change what it is a choice of; two choices of one group are never made together. None: each its own.

    Returns:
        The terms.

    Raises:
        ParedownError: If a loss is not finite, or the samples change from one evaluation to the next.
    """
    count = len(names)
    owner = range(count) if groups is None else groups
    base = _checked(loss(frozenset()), "of the original", None)
    alone = [_checked(loss(frozenset([i])), f"with {names[i]}", len(base)) - base for i in range(count)]
    pairs, pairs_sd = np.zeros((count, count)), np.zeros((count, count))
    for i, j in combinations(range(count), 2):
        if owner[i] != owner[j]:
            both = _checked(loss(frozenset([i, j])), f"with {names[i]} and {names[j]}", len(base)) - base
            beyond = both - alone[i] - alone[j]  # of each sample, so that what is common to the four evaluations cancels
            pairs[i, j] = pairs[j, i] = beyond.mean()
            pairs_sd[i, j] = pairs_sd[j, i] = _standard_error(beyond)
    return Interactions(
        tuple(names), np.array([each.mean() for each in alone]), np.array([_standard_error(each) for each in alone]), pairs, pairs_sd
    )


def augmented_order(single: np.ndarray, pairs: np.ndarray, *, beta: float = 1.0) -> np.ndarray:
    r"""Changes by rising \(a_i = \hat s_i + \frac{\beta}{2} \sum_{j \ne i} \max(0, \hat I_{ij})\), harmless ones first.

    After Schaefer et al. ("Augmenting Hessians with inter-layer dependencies", 2023), whose exact formula is not published in code: here
    the hats divide by the sum of the positive terms, so that \(\beta = 0\) is the order of the single sensitivities.

    Args:
        single: [n].
        pairs: [n, n].
        beta: Weight of the interactions.
    """
    between = np.maximum(pairs - np.diag(np.diag(pairs)), 0)
    total, single_total = between.sum() / 2, np.maximum(single, 0).sum()
    score = single / (single_total or 1.0) + beta / 2 * between.sum(1) / (total or 1.0)
    return np.argsort(score, kind="stable")


def _checked(values: np.ndarray, when: str, samples: int | None) -> np.ndarray:
    values = np.atleast_1d(np.asarray(values, float))
    if not np.isfinite(values).all():
        raise ParedownError(f"the loss {when} is not finite on {int((~np.isfinite(values)).sum())} samples; leave that change out")
    if samples is not None and len(values) != samples:
        raise ParedownError(f"expected the loss of the same {samples} samples each time, got {len(values)} {when}")
    return values


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
