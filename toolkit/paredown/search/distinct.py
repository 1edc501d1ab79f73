"""At most so many different schemes in a plan: formats cost kernels, files and trust."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb

import numpy as np

from paredown.errors import ParedownError
from paredown.search.integer_program import Budget, integer_program
from paredown.search.knapsack import Selection, Table, best_price, solve

SUBSETS = 100_000
"""Sets of schemes that are tried one by one; more of them are left to an integer program."""

PRICES = (1.0, 0.5, 2.0, 0.25, 4.0, 0.7, 1.4, 0.1, 10.0)
"""At which a set's bound is computed, as multiples of the best price with all labels."""

CHUNK = 2_000
"""Sets whose bounds are computed at once."""


def few_schemes(costs: Sequence[np.ndarray], budgets: Sequence[Budget], labels: Sequence[np.ndarray], distinct: int) -> Selection:
    """The least cost within the budget with at most so many labels.

    With one budget and up to `SUBSETS` sets of labels it is exact: each set's Lagrangian bound at a dozen prices orders the sets,
    and one knapsack after the other is solved until the next bound is no better than what was found. Otherwise an integer program with
    a switch for each label, whose bound says how good the plan is.

    Args:
        costs: Per group, [choices].
        budgets: The limits.
        labels: Per group, the label of each choice, [choices]; below 0 for those that don't count.
        distinct: Largest number of different labels.

    Returns:
        The selection.

    Raises:
        ParedownError: If no so small set of labels has a selection that fits.
    """
    known = int(max(label.max() for label in labels)) + 1
    if distinct >= known and len(budgets) == 1:
        return solve(costs, budgets[0].amounts, budgets[0].most)
    if len(budgets) > 1 or comb(known, distinct) > SUBSETS:
        return integer_program(costs, budgets, labels, distinct)
    amounts, most = budgets[0].amounts, budgets[0].most
    cost, amount = _by_label(costs, labels, known), _by_label(amounts, labels, known)
    sets = np.array(list(combinations(range(known), distinct)))
    lightest = _sums(amount, sets)
    if lightest.min() > most:
        raise ParedownError(
            f"no plan of at most {distinct} schemes fits: the smallest takes {lightest.min():,.6g} of {most:,.6g}; raise the budget, or allow more schemes"
        )
    sets = sets[lightest <= most]
    table = Table.of(costs, amounts)
    price = best_price(table, table.units(most))[0] / table.unit
    bounds = np.full(len(sets), -np.inf)
    best: Selection | None = None
    for factor in PRICES:  # the first price rules out most sets, and the next ones are tried on the rest
        open_ = np.flatnonzero(bounds < (np.inf if best is None else best.cost))
        value = cost + factor * price * np.where(np.isfinite(amount), amount, 0)
        bounds[open_] = np.maximum(bounds[open_], _sums(value, sets[open_]) - factor * price * most)
        if best is None:
            best = _solved(costs, amounts, labels, sets[bounds.argmin()], most)
    assert best is not None
    left = np.inf
    for index in np.argsort(bounds, kind="stable"):
        if bounds[index] >= best.cost:
            break
        found = _solved(costs, amounts, labels, sets[index], most)
        left = min(left, found.bound)
        best = min(best, found, key=lambda each: each.cost)
    return Selection(best.choices, best.cost, min(left, best.cost))


def _solved(
    costs: Sequence[np.ndarray], amounts: Sequence[np.ndarray], labels: Sequence[np.ndarray], allowed: np.ndarray, most: float
) -> Selection:
    kept = [np.flatnonzero((label < 0) | np.isin(label, allowed)) for label in labels]
    found = solve([c[k] for c, k in zip(costs, kept, strict=True)], [a[k] for a, k in zip(amounts, kept, strict=True)], most)
    return Selection(np.array([k[choice] for k, choice in zip(kept, found.choices, strict=True)]), found.cost, found.bound)


def _by_label(values: Sequence[np.ndarray], labels: Sequence[np.ndarray], known: int) -> np.ndarray:
    """A column for each label, and a last one for those that don't count, [groups, known + 1]; infinite where there is no such choice."""
    table = np.full((len(values), known + 1), np.inf)
    for row, (value, label) in enumerate(zip(values, labels, strict=True)):
        np.minimum.at(table[row], label, value)  # -1 is the last column
    return table


def _sums(table: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Sum over the groups of the least value that each set leaves, [sets]."""
    parts = [np.minimum(table[:, part].min(2), table[:, -1:]).sum(0) for part in _chunks(sets)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _chunks(sets: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(sets), CHUNK):
        yield sets[start : start + CHUNK]
