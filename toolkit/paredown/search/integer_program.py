"""The allocation as an integer program, for what the knapsack alone does not cover: several budgets, few schemes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from paredown.errors import ParedownError
from paredown.search.knapsack import Selection

SECONDS = 60.0
"""Time that the solver has; what is certain by then is in the result."""

ROUNDS = 5
"""How often a budget is tightened by what the solver's tolerance let through."""


@dataclass(frozen=True, eq=False, slots=True)
class Budget:
    """A limit on a sum over the groups.

    Attributes:
        amounts: Per group, what each choice takes, [choices].
        most: Largest sum.
    """

    amounts: Sequence[np.ndarray]
    most: float

    def total(self, choices: Sequence[int] | np.ndarray) -> float:
        """What a selection takes."""
        return sum(amount[choice] for amount, choice in zip(self.amounts, choices, strict=True))


def integer_program(
    costs: Sequence[np.ndarray],
    budgets: Sequence[Budget],
    labels: Sequence[np.ndarray] | None = None,
    distinct: int | None = None,
    *,
    seconds: float = SECONDS,
) -> Selection:
    """The least cost within several budgets, solved by HiGHS (branch and bound).

    Args:
        costs: Per group, [choices].
        budgets: The limits.
        labels: Per group, the label of each choice, [choices]; below 0 for those that don't count.
        distinct: Largest number of different labels.
        seconds: When to stop.

    Returns:
        The selection, with the solver's own bound.

    Raises:
        ParedownError: If nothing fits all of it, or nothing was found in time.
    """
    sizes = [len(cost) for cost in costs]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    count = len(owner)
    scale = max(float(np.abs(np.concatenate(costs)).max()), np.finfo(float).tiny)  # HiGHS has absolute tolerances of about 1e-6
    switches = 0 if labels is None or distinct is None else int(max(label.max() for label in labels)) + 1
    constraints = [LinearConstraint(csr_array((np.ones(count), (owner, np.arange(count))), shape=(len(sizes), count + switches)), 1, 1)]
    if labels is not None and distinct is not None and switches:
        label = np.concatenate(labels)
        counted = np.flatnonzero(label >= 0)
        rows = np.arange(len(counted))
        values = np.repeat([1.0, -1.0], len(counted))  # a choice is used only where its label's switch is on
        places = (np.append(rows, rows), np.append(counted, count + label[counted]))
        constraints.append(LinearConstraint(csr_array((values, places), shape=(len(rows), count + switches)), -np.inf, 0))
        constraints.append(LinearConstraint(np.append(np.zeros(count), np.ones(switches))[None], -np.inf, distinct))
    rooms = [budget.most for budget in budgets]
    for _ in range(ROUNDS):
        limits = [_limit(Budget(budget.amounts, room), switches) for budget, room in zip(budgets, rooms, strict=True)]
        result = milp(
            np.append(np.concatenate(costs) / scale, np.zeros(switches)),
            integrality=np.ones(count + switches),
            bounds=Bounds(0, 1),
            constraints=[*constraints, *limits],
            options={"mip_rel_gap": 1e-9, "time_limit": seconds},
        )
        if result.x is None:
            raise ParedownError(
                "no plan fits all the limits at once; raise one of them, or allow more schemes"
                if result.status == 2
                else f"the integer program was not solved ({result.message}); try other limits, or fewer of them"
            )
        picked = np.array([int(part.argmax()) for part in np.split(result.x[:count], np.cumsum(sizes)[:-1])])
        over = [budget.total(picked) - budget.most for budget in budgets]
        if max(over) <= 0:
            cost = float(sum(each[choice] for each, choice in zip(costs, picked, strict=True)))
            return Selection(picked, cost, min(cost, float(result.mip_dual_bound) * scale))
        rooms = [room - max(excess, 0) for room, excess in zip(rooms, over, strict=True)]  # the solver's tolerance let it through
    raise ParedownError("the integer program keeps exceeding a limit by its tolerance; lower that limit a little")


def room_for(budget: Budget) -> tuple[np.ndarray, float]:
    """Amounts above the least of each group, [all choices], and what may be spent on them, in small numbers: tolerances are absolute."""
    least = sum(float(amount.min()) for amount in budget.amounts)
    extra = np.concatenate([amount - amount.min() for amount in budget.amounts]).astype(float)
    whole = bool((extra == np.rint(extra)).all())
    unit = (float(np.gcd.reduce(extra.astype(np.int64))) if whole else float(extra.max()) / 1e6) or 1.0
    room = (budget.most - least) / unit
    return extra / unit, float(np.floor(room)) if whole else room


def _limit(budget: Budget, switches: int) -> LinearConstraint:
    extra, room = room_for(budget)
    return LinearConstraint(np.append(extra, np.zeros(switches))[None], -np.inf, room)
