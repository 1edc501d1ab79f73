"""Do two scores order the choices alike? Spearman's rank correlation with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from paredown.errors import ParedownError
from paredown.search.problem import Objective, Problem
from paredown.specs import KEEP, Scheme

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 1000
"""Bootstrap samples behind an interval."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Spearman's rank correlation of two scores.

    Attributes:
        spearman: Between -1 and 1; NaN where one of the scores is constant.
        low: Lower end of its 95 % interval.
        high: Upper end.
        n: How many values were ranked.
    """

    spearman: float
    low: float
    high: float
    n: int


def rank_agreement(
    first: np.ndarray, second: np.ndarray, *, groups: np.ndarray | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Agreement:
    """Spearman's rank correlation with a percentile bootstrap interval (Efron, 1979).

    Args:
        first: A score of each value, [n].
        second: Another, [n].
        groups: Whole number of the group that each value belongs to; groups are drawn as a whole, for the choices of one layer go
            together. None draws value by value.
        resamples: How often to draw.
        seed: Of the draws.

    Raises:
        ParedownError: If there are fewer than 3 values, or as many of one score as of the other don't belong together.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 1 or len(first) < 3:
        raise ParedownError(f"expected two scores of the same 3 or more values, got {list(first.shape)} and {list(second.shape)}")
    labels = np.arange(len(first)) if groups is None else groups
    return _agreements(np.stack([first, second]), labels, resamples, seed)[0, 1]


def agreement_table(
    problem: Problem, objectives: Sequence[Objective], *, scheme: Scheme | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Rank agreement between any two objectives, ``measured_loss`` among them where it was given.

    Args:
        problem: The choices.
        objectives: What to compare.
        scheme: Rank the groups at this scheme only; None ranks all choices but `KEEP`, groups drawn as a whole.
        resamples: Bootstrap samples.
        seed: Of the draws.

    Returns:
        One row for each pair: ``first``, ``second``, ``spearman``, ``low``, ``high``, ``n``.

    Raises:
        ParedownError: If an objective is not known, or fewer than 3 groups offer the scheme.
    """
    import pandas as pd  # half a second that only tables should cost

    taken = [np.array([s == scheme if scheme else s != KEEP for s in offered]) for offered in problem.schemes]
    groups = np.repeat(np.arange(len(taken)), [mask.sum() for mask in taken])
    if len(groups) < 3:
        raise ParedownError(
            f"expected at least 3 choices to rank, {len(groups)} groups offer {scheme or 'anything but keep'}; name another scheme"
        )
    values = np.stack([np.concatenate([c[m] for c, m in zip(problem.costs(name), taken, strict=True)]) for name in objectives])
    found = _agreements(values, groups, resamples, seed)
    rows = [(objectives[i], objectives[j], each.spearman, each.low, each.high, each.n) for (i, j), each in found.items()]
    return pd.DataFrame(rows, columns=["first", "second", "spearman", "low", "high", "n"])


def _agreements(values: np.ndarray, groups: np.ndarray, resamples: int, seed: int) -> dict[tuple[int, int], Agreement]:
    """Of any two rows of the values [scores, n], on the same draws of whole groups: each draw is ranked once for all of them."""
    labels = np.unique(groups, return_inverse=True)[1]
    members = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    draw = np.random.default_rng(seed)
    drawn = (np.concatenate([members[g] for g in draw.integers(0, len(members), len(members))]) for _ in range(resamples))
    found = np.stack([_spearman(values[:, index]) for index in drawn])  # [resamples, scores, scores]
    whole = _spearman(values)
    agreements = {}
    for i, j in combinations(range(len(values)), 2):
        known = found[:, i, j][np.isfinite(found[:, i, j])]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
        agreements[i, j] = Agreement(float(whole[i, j]), float(low), float(high), values.shape[1])
    return agreements


def _spearman(values: np.ndarray) -> np.ndarray:
    """Between any two rows, [rows, rows]; NaN where one is constant."""
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    norms = np.sqrt((ranks**2).sum(1, keepdims=True))
    ranks /= np.where(norms > 0, norms, np.nan)
    return np.clip(ranks @ ranks.T, -1, 1)
