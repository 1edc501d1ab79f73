"""Two resources at once: plans that no other found plan beats in loss, bytes and latency together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paredown.search.problem import Objective, Problem
from paredown.search.resources import Resource
from paredown.search.sweep import sweep
from paredown.specs import Scheme


@dataclass(frozen=True, eq=False, slots=True)
class TradeOffs:
    """Plans by rising loss, none of which another one beats in everything.

    Attributes:
        problem: The choices.
        resources: What is weighed against the loss.
        loss: Objective, [n].
        amounts: What each plan takes of both resources, [n, 2].
        choices: Place of each group's choice, [n, groups].
    """

    problem: Problem
    resources: tuple[Resource, Resource]
    loss: np.ndarray
    amounts: np.ndarray
    choices: np.ndarray

    def __len__(self) -> int:
        return len(self.loss)

    def schemes(self, index: int) -> dict[str, Scheme]:
        """Decision of the plan at that index, layer name to scheme as asked."""
        return self.problem.decide([int(choice) for choice in self.choices[index]])


def trade_offs(
    problem: Problem,
    *,
    objective: Objective = "loss_increase",
    resources: tuple[Resource, Resource] = ("bytes", "seconds"),
    mixes: int = 9,
    tolerance: float = 0.01,
) -> TradeOffs:
    r"""The fronts of the loss against mixes \(\mu a + (1-\mu) b\) of two resources, filtered.

    Each plan is the best one, up to the tolerance, for its mix, and no other found plan beats it; plans that are best for no mix in
    between are not all found, so that this is a subset of all trade-offs.

    Args:
        problem: The choices.
        objective: What is summed.
        resources: The two.
        mixes: Values of \(\mu\) from 0 to 1, each resource measured by its range.
        tolerance: Of each front.

    Returns:
        The plans.

    Raises:
        ParedownError: If the objective or a resource is not known.
    """
    costs = problem.costs(objective)
    both = [problem.amounts(name) for name in resources]
    spans = [sum(float(np.ptp(each)) for each in amounts) or 1.0 for amounts in both]
    found = []
    for share in np.linspace(0, 1, mixes):
        mixed = [share * a / spans[0] + (1 - share) * b / spans[1] for a, b in zip(*both, strict=True)]
        found.append(sweep(costs, mixed, tolerance=tolerance).choices)
    choices = np.unique(np.concatenate(found), axis=0)
    loss, *amounts = (_sums(column, choices) for column in (costs, *both))
    amounts = np.stack([amount + problem.fixed(name) for name, amount in zip(resources, amounts, strict=True)], 1)
    kept = _unbeaten(loss, amounts)
    return TradeOffs(problem, resources, loss[kept], amounts[kept], choices[kept])


def _sums(column: Sequence[np.ndarray], choices: np.ndarray) -> np.ndarray:
    return np.sum([values[choice] for values, choice in zip(column, choices.T, strict=True)], axis=0)


def _unbeaten(loss: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Places of the points that no other beats in all three, by rising loss; O(n log n) but for moving list items."""
    kept = []
    firsts: list[float] = []  # the staircase of both amounts among the points so far: first rising, second falling
    seconds: list[float] = []
    for place in np.lexsort((amounts[:, 1], amounts[:, 0], loss)):
        first, second = amounts[place]
        at = bisect_right(firsts, first)
        if at and seconds[at - 1] <= second:
            continue
        kept.append(place)
        end = at
        while end < len(firsts) and seconds[end] >= second:
            end += 1
        start = at - (at > 0 and firsts[at - 1] == first)
        firsts[start:end], seconds[start:end] = [first], [second]
    return np.array(kept)
