"""Every budget at once: the Pareto front of the additive model, and that of what was measured."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from paredown.search.knapsack import STATES
from paredown.search.problem import Objective, Problem
from paredown.search.resources import Resource
from paredown.search.sweep import sweep
from paredown.specs import Scheme

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, eq=False, slots=True)
class Front:
    """The plans that no other plan beats in both resource and loss, by rising resource.

    Attributes:
        problem: The choices.
        resource: What is spent.
        amounts: What each plan takes of it, bytes of the whole file as a rule, [n], rising.
        loss: Objective of each plan, [n], falling.
        choices: Place of each group's choice, [n, groups].
        gaps: Share of its loss that a better plan could save at most at any budget from this plan's to the next one's, [n].
    """

    problem: Problem
    resource: Resource
    amounts: np.ndarray
    loss: np.ndarray
    choices: np.ndarray
    gaps: np.ndarray

    def __len__(self) -> int:
        return len(self.amounts)

    @property
    def bytes(self) -> np.ndarray:
        """Size of the whole file of each plan, [n]; rising where bytes are the resource."""
        if self.resource == "bytes":
            return self.amounts
        return self.problem.fixed_bytes + np.sum(
            [size[choice] for size, choice in zip(self.problem.bytes, self.choices.T, strict=True)], axis=0
        )

    @property
    def exact(self) -> bool:
        """Whether these are all the plans that no other plan beats."""
        return not self.gaps.any()

    def within(self, budget: float) -> int | None:
        """Index of the best plan that takes at most so much; None where none fits."""
        index = int(np.searchsorted(self.amounts, budget, side="right")) - 1
        return index if index >= 0 else None

    def schemes(self, index: int) -> dict[str, Scheme]:
        """Decision of the plan at that index, layer name to scheme as asked."""
        return self.problem.decide([int(choice) for choice in self.choices[index]])


def pareto_front(
    problem: Problem,
    *,
    objective: Objective = "loss_increase",
    resource: Resource = "bytes",
    tolerance: float = 0.0,
    between: tuple[float, float] | None = None,
    limit: int = STATES,
) -> Front:
    """All plans of the additive model that are Pareto-optimal (`paredown.search.sweep` says how).

    Up to some dozens of groups they are found in milliseconds to a second. 300 layers with 40 schemes have some millions, many of them a
    few bytes apart, which nobody looks at. There three things are exact, each in about a second or less: the best plan of one budget
    (`best_plan`), every plan of a narrow range, such as half a percent to either side of a budget (`between`), and, for all budgets at once, the bound: with a
    tolerance of 0.01 the front is at no budget more than 1 % above the best, which `gaps` prove.

    Args:
        problem: The choices; `paredown.search.narrowed` leaves out some.
        objective: What is summed.
        resource: What it is weighed against.
        tolerance: Share of the loss that a better plan may save at some budget.
        between: The budgets of interest.
        limit: Partial plans to keep; where that is not enough, the front's `gaps` say so.

    Returns:
        The front.

    Raises:
        ParedownError: If the objective or the resource is not known.
    """
    found = sweep(
        problem.costs(objective),
        problem.amounts(resource),
        tolerance=tolerance,
        between=between and _less(between, problem.fixed(resource)),
        states=limit,
    )
    amounts = found.weights + problem.fixed(resource)
    return Front(problem, resource, amounts.astype(np.int64) if resource == "bytes" else amounts, found.costs, found.choices, found.gaps)


def _less(between: tuple[float, float], fixed: float) -> tuple[float, float]:
    return between[0] - fixed, between[1] - fixed


def measured_front(points: Mapping[Key, tuple[float, float]]) -> list[Key]:
    """Keys of the (size, loss) points that no other point beats in both, by rising size; O(n log n).

    Example:
        >>> measured_front({"a": (1, 3.0), "b": (2, 1.0), "c": (3, 2.0)})
        ['a', 'b']
    """
    front, best = [], float("inf")
    for key, (_, loss) in sorted(points.items(), key=lambda item: item[1]):
        if loss < best:
            front.append(key)
            best = loss
    return front
