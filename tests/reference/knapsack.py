"""The multiple-choice knapsack by brute force, and by HiGHS."""

import itertools

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp


def every_selection(costs, weights):
    """(weight, cost, choices) of each selection."""
    for choices in itertools.product(*map(range, map(len, costs))):
        yield sum(w[c] for w, c in zip(weights, choices, strict=True)), sum(x[c] for x, c in zip(costs, choices, strict=True)), choices


def best_cost(costs, weights, budget):
    return min(cost for weight, cost, _ in every_selection(costs, weights) if weight <= budget)


def undominated(points):
    """The (weight, cost) points that no other beats, by rising weight."""
    front = []
    for weight, cost in sorted(points):
        if not front or cost < front[-1][1]:
            front.append((weight, cost))
    return front


def by_highs(costs, weights, budget):
    """(cost, solver's bound) of the integer program; costs should be of the order of one."""
    sizes = [len(cost) for cost in costs]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    each = (np.arange(len(sizes))[:, None] == owner).astype(float)
    result = milp(
        np.concatenate(costs),
        integrality=np.ones(len(owner)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(each, 1, 1), LinearConstraint(np.concatenate(weights)[None].astype(float), -np.inf, budget)],
        options={"mip_rel_gap": 1e-9},
    )
    return result.fun, result.mip_dual_bound
