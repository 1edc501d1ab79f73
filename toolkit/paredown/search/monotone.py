"""HAWQ-V2's search: bits that never rise as the sensitivity falls (Dong et al., 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb

import numpy as np

from paredown.errors import ParedownError
from paredown.search.front import Front
from paredown.search.knapsack import undominated
from paredown.search.problem import Problem
from paredown.search.sensitivities import Sensitivity, curvature_of
from paredown.specs import Scheme

PLANS = 2_000_000
"""Plans that are enumerated at most."""


@dataclass(frozen=True, eq=False, slots=True)
class MonotoneFront:
    """What HAWQ-V2 finds.

    Attributes:
        order: Places of the groups that have a choice by falling sensitivity, [those groups].
        enumerated: How many plans were looked at.
        front: The best of them at each size. Its gaps are not known (NaN): better plans may break the rule.
    """

    order: np.ndarray
    enumerated: int
    front: Front


def monotone_front(problem: Problem, ladder: Sequence[Scheme], *, sensitivity: Sensitivity = "trace") -> MonotoneFront:
    r"""The Pareto front of all plans whose bits don't rise along the groups sorted by falling sensitivity.

    With L groups and m schemes there are \(\binom{L+m-1}{m-1}\) such plans, each given by the places where one scheme ends and the next
    begins; their sizes and costs come from running sums. The cost is half the sensitivity times \(\|\Delta W\|^2\), the sensitivity of
    a group the mean over its weights.

    Args:
        problem: The choices.
        ladder: The schemes, from most bits to fewest; each group must offer all of them, or have a single choice, which it keeps.
        sensitivity: The curvature in one number that the groups are sorted by: the average trace (HAWQ-V2), or the top eigenvalue (HAWQ).

    Returns:
        The front.

    Raises:
        ParedownError: If a group lacks a scheme, none has a choice, the sensitivity was not estimated, or there are more than `PLANS` plans.
    """
    free = np.array([place for place, offered in enumerate(problem.schemes) if len(offered) > 1], int)
    if not len(free):
        raise ParedownError("every group has a single choice, so that there is nothing to enumerate; offer them more schemes")
    for group, offered in ((problem.groups[place], problem.schemes[place]) for place in free):
        if missing := [str(scheme) for scheme in ladder if scheme not in offered]:
            raise ParedownError(
                f"{', '.join(group)} is not offered {', '.join(missing)}; leave it out of the ladder, or price it there too"
            )
    count = comb(len(free) + len(ladder) - 1, len(ladder) - 1)
    if not ladder or count > PLANS:
        raise ParedownError(
            f"{len(ladder)} schemes for {len(free)} groups make {count:,} monotone plans, expected 1 to {PLANS:,};"
            f" name fewer schemes, or let `allocate` minimise the same cost with objective={sensitivity!r}"
        )
    places = np.array([[problem.schemes[place].index(scheme) for scheme in ladder] for place in free])  # [groups, m]
    order = np.argsort([-_average(problem, problem.groups[place], sensitivity) for place in free], kind="stable")
    cuts = np.array(list(combinations_with_replacement(range(len(order) + 1), len(ladder) - 1)), int).reshape(count, len(ladder) - 1)
    edges = np.hstack([np.zeros((count, 1), int), cuts, np.full((count, 1), len(order))])  # where each scheme begins, and the end
    totals = []
    for column in (problem.bytes, problem.costs(sensitivity)):
        each = np.stack([column[group][place] for group, place in zip(free, places, strict=True)])[order]  # [groups, m]
        running = np.vstack([np.zeros(len(ladder)), np.cumsum(each, 0)])
        steps = np.arange(len(ladder))
        totals.append(
            (running[edges[:, 1:], steps] - running[edges[:, :-1], steps]).sum(1) + sum(values[0] for values in column if len(values) == 1)
        )
    size, cost = totals
    best = np.lexsort((cost, size))
    best = best[undominated(size[best], cost[best])]
    level = (np.arange(len(order)) >= cuts[best][:, :, None]).sum(1)  # which scheme each sorted group has, [plans, groups]
    choices = np.zeros((len(best), len(problem.groups)), int)
    choices[:, free[order]] = places[order, level]
    amounts = np.rint(size[best]).astype(np.int64) + problem.fixed_bytes
    return MonotoneFront(free[order], count, Front(problem, "bytes", amounts, cost[best], choices, np.full(len(best), np.nan)))


def _average(problem: Problem, group: Sequence[str], sensitivity: Sensitivity) -> float:
    layers = [problem.layers[name] for name in group]
    weights = [layer.parameters for layer in layers]
    return float(np.average([curvature_of(sensitivity, layer, problem.curvature) for layer in layers], weights=weights))
