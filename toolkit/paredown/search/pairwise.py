r"""Allocation with terms between layers: \(\min \sum_g c_{g,s_g} + \sum_{g<h} I_{g s_g, h s_h}\) within a budget.

A quadratic multiple-choice knapsack, which is hard in general; CLADO's authors warn that commercial solvers may not finish either. Small
ones are solved as an integer program, larger ones searched, and both say how far from the optimum they can be at most.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from paredown.search.integer_program import SECONDS, Budget, room_for
from paredown.search.knapsack import Selection, solve

PRODUCTS = 4_000
"""Products of two choices up to which the integer program is tried."""


def allocate_pairs(costs: Sequence[np.ndarray], pairs: np.ndarray, budget: Budget, *, products: int = PRODUCTS) -> Selection:
    r"""The least sum of single and pair terms within a budget.

    - A bound that always holds: half of each pair term goes to either side, at its least over the other side's choices; what is left
      is additive, and `paredown.search.knapsack.solve` minimises it.
    - A plan: from the best additive plans, the best change of one or two groups at a time until none helps.
    - Up to `products` products of two choices that interact, the integer program with a variable for each (Adams and Sherali, 1986),
      which is exact if HiGHS finishes in time.

    Args:
        costs: Per group, [choices].
        pairs: Terms between any two choices, in the order of the groups' choices, symmetric; those within a group are ignored, [n, n].
        budget: The limit.
        products: See above.

    Returns:
        The selection; its bound is certain.

    Raises:
        ParedownError: If nothing fits.
    """
    sizes = [len(cost) for cost in costs]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    terms = np.where(owner[:, None] == owner, 0.0, pairs)
    cuts = np.cumsum(sizes)[:-1]
    flat, amounts = np.concatenate(costs), np.concatenate(budget.amounts).astype(float)
    starts = np.append(0, cuts)
    least = np.minimum.reduceat(terms, starts, axis=1).sum(1) / 2
    below = solve(np.split(flat + least, cuts), budget.amounts, budget.most)
    plans = [
        below,
        solve(costs, budget.amounts, budget.most),
        solve(np.split(flat + terms.mean(1) * len(sizes) / 2, cuts), budget.amounts, budget.most),
    ]
    found = [_improved(starts + plan.choices, owner, flat, terms, amounts, budget.most) for plan in plans]
    cost, picked = min(((_total(flat, terms, each), each) for each in found), key=lambda pair: pair[0])
    bound = min(below.bound, cost)
    if np.count_nonzero(np.triu(_blocks(terms, owner))) <= products:
        cost, picked, bound = _exact(flat, terms, owner, budget, cost, picked, bound)
    return Selection(picked - starts, float(cost), float(min(bound, cost)))


def _total(flat: np.ndarray, terms: np.ndarray, picked: np.ndarray) -> float:
    return float(flat[picked].sum() + terms[np.ix_(picked, picked)].sum() / 2)


def _improved(picked: np.ndarray, owner: np.ndarray, flat: np.ndarray, terms: np.ndarray, amounts: np.ndarray, most: float) -> np.ndarray:
    """Change the choice of one or two groups at a time, the best change first, until none helps."""
    while True:
        current = picked[owner]  # of each choice, the one that its group has now
        alone = flat + terms[:, picked].sum(1)
        gain = alone - alone[current]  # of changing to it
        together = gain[:, None] + gain + terms - terms[:, current] - terms[current] + terms[np.ix_(current, current)]
        taken = amounts - amounts[current]
        fits = amounts[picked].sum() + taken[:, None] + taken <= most
        same = owner[:, None] == owner
        np.fill_diagonal(together, gain)  # the diagonal stands for a single change
        np.fill_diagonal(fits, amounts[picked].sum() + taken <= most)
        np.fill_diagonal(same, False)
        together[~fits | same] = np.inf
        at = np.unravel_index(together.argmin(), together.shape)
        if not together[at] < -1e-12 * max(abs(_total(flat, terms, picked)), np.abs(flat).max()):
            return picked
        picked = picked.copy()
        for choice in at:
            picked[owner[choice]] = choice


def _blocks(terms: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Which pairs of choices belong to two groups that interact at all, [n, n] bool."""
    one = (np.arange(owner.max() + 1)[:, None] == owner).astype(float)
    return (one.T @ ((one @ (terms != 0) @ one.T) > 0) @ one) > 0


def _exact(
    flat: np.ndarray, terms: np.ndarray, owner: np.ndarray, budget: Budget, cost: float, picked: np.ndarray, bound: float
) -> tuple[float, np.ndarray, float]:
    """The integer program, as far as it is better than the plan and the bound that are there."""
    count = len(flat)
    left, right = np.nonzero(np.triu(_blocks(terms, owner)))
    scale = max(float(np.abs(flat).max()), float(np.abs(terms).max()), np.finfo(float).tiny)
    width = count + len(left)
    groups = int(owner.max()) + 1
    one_each = csr_array((np.ones(count), (owner, np.arange(count))), shape=(groups, width))
    links = []  # for each choice and each group that it interacts with, its products with that group's choices add up to it
    products = np.arange(len(left)) + count
    for choice, other in ((left, right), (right, left)):
        row = choice * groups + owner[other]
        names, row = np.unique(row, return_inverse=True)
        size = len(names)
        places = np.append(products, names // groups)
        values = np.append(np.ones(len(left)), -np.ones(size))
        links.append(LinearConstraint(csr_array((values, (np.append(row, np.arange(size)), places)), shape=(size, width)), 0, 0))
    extra, room = room_for(budget)
    result = milp(
        np.append(flat, terms[left, right]) / scale,
        integrality=np.append(np.ones(count), np.zeros(len(left))),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            *links,
            LinearConstraint(np.append(extra, np.zeros(len(left)))[None], -np.inf, room),
        ],
        options={"mip_rel_gap": 1e-9, "time_limit": SECONDS},
    )
    if result.mip_dual_bound is not None:
        bound = max(bound, float(result.mip_dual_bound) * scale)
    if result.x is not None:
        starts = np.flatnonzero(np.append(True, np.diff(owner) > 0))
        solved = starts + [int(part.argmax()) for part in np.split(result.x[:count], starts[1:])]
        if budget.total(solved - starts) <= budget.most and _total(flat, terms, solved) < cost:
            cost, picked = _total(flat, terms, solved), solved
    return cost, picked, bound
