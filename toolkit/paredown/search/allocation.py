"""One budget: the best plan of the additive model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from paredown.errors import ParedownError
from paredown.search.constraints import Constraints, narrowed, standing_in_the_way
from paredown.search.distinct import few_schemes
from paredown.search.integer_program import Budget, integer_program
from paredown.search.knapsack import solve
from paredown.search.problem import Objective, Problem
from paredown.search.resources import Resource
from paredown.specs import KEEP, Scheme


@dataclass(frozen=True, slots=True)
class Allocation:
    """The best plan of the additive model at a budget, and how good it is known to be.

    Attributes:
        schemes: Layer name to scheme, as asked.
        cost: What was minimised.
        bound: No plan within the budget and the constraints has less; equal to `cost` where the plan is optimal.
    """

    schemes: Mapping[str, Scheme]
    cost: float
    bound: float


def allocate(
    problem: Problem,
    budget: float,
    *,
    locked: Mapping[str, Scheme] | None = None,
    objective: Objective = "guarded_loss",
    resource: Resource = "bytes",
    constraints: Constraints | None = None,
    limits: Mapping[Resource, float] | None = None,
) -> dict[str, Scheme]:
    """Minimise a sum over the groups within a budget; `best_plan` says more of the same plan.

    Args:
        problem: The choices.
        budget: Largest amount of the resource; for bytes, of the whole file.
        locked: Layers whose scheme is given, beside those of `constraints`.
        objective: What is summed (`Problem` says why not the plain prediction).
        resource: What the budget limits.
        constraints: What the plan must hold to besides.
        limits: Largest amounts of other resources.

    Returns:
        Layer name to scheme, as asked.

    Raises:
        ParedownError: As `best_plan`.
    """
    asked = constraints or Constraints()
    asked = replace(asked, locked={**asked.locked, **(locked or {})})
    return dict(best_plan(problem, budget, objective=objective, resource=resource, constraints=asked, limits=limits).schemes)


def best_plan(
    problem: Problem,
    budget: float,
    *,
    objective: Objective = "guarded_loss",
    resource: Resource = "bytes",
    constraints: Constraints | None = None,
    limits: Mapping[Resource, float] | None = None,
) -> Allocation:
    r"""Minimise \(\sum_g c_{g,s_g}\) subject to \(\sum_g b_{g,s_g} \le B\), one scheme \(s_g\) per group, with what is known of the optimum.

    The multiple-choice knapsack of HAWQ-V3 (Yao et al., 2021). One budget is solved by `paredown.search.knapsack`; a limit on the
    number of schemes by trying them (`paredown.search.distinct`); several budgets by an integer program of HiGHS.

    Args:
        problem: The choices.
        budget: Largest amount of the resource; for bytes, of the whole file.
        objective: What is summed.
        resource: What the budget limits.
        constraints: What the plan must hold to besides.
        limits: Largest amounts of other resources.

    Returns:
        The plan.

    Raises:
        ParedownError: If no plan fits (says the smallest possible, and which constraints stand in the way), the constraints
            contradict each other or name what the problem does not have, or the objective or a resource is not known.
    """
    constraints = constraints or Constraints()
    left = narrowed(problem, constraints)
    rooms: dict[Resource, float] = {resource: budget, **(limits or {})}
    for name, most in rooms.items():
        if left.least(name) > most:
            raise ParedownError(_too_small(problem, constraints, name, left.least(name), most))
    costs = left.costs(objective)
    budgets = [Budget(left.amounts(name), most - left.fixed(name)) for name, most in rooms.items()]
    if constraints.distinct is not None:
        found = few_schemes(costs, budgets, _labels(left), constraints.distinct)
    elif len(budgets) > 1:
        found = integer_program(costs, budgets)
    else:
        found = solve(costs, budgets[0].amounts, budgets[0].most)
    return Allocation(left.decide([int(choice) for choice in found.choices]), found.cost, found.bound)


def _too_small(problem: Problem, constraints: Constraints, resource: Resource, least: float, most: float) -> str:
    why = standing_in_the_way(problem, constraints, resource)
    remedy = f" with {why}" if why else "; raise the budget or allow smaller schemes"
    if resource == "bytes":
        return f"no plan fits into {most:,.0f} bytes: the smallest possible has {least:,.0f} bytes{remedy}"
    unit = resource.replace("_", " ")
    return f"no plan fits into {most:.6g} {unit}: the least possible is {least:.6g} {unit}{remedy}"


def _labels(problem: Problem) -> list[np.ndarray]:
    """Per group, which scheme of all each choice is, [choices]; -1 for `KEEP`, which is not counted."""
    number = {scheme: index for index, scheme in enumerate(dict.fromkeys(s for offered in problem.schemes for s in offered if s != KEEP))}
    return [np.array([number.get(scheme, -1) for scheme in offered]) for offered in problem.schemes]
