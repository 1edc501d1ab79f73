"""All budgets of the multiple-choice knapsack: the corners of its hull, and what dynamic programming finds in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from paredown.search.knapsack import ROUNDING, STATES, Points, Table, within
from paredown.search.thinned import LEAST_COST, thinned_front

OPEN = 20
"""Choices that are free at first in a stretch of the front."""

WIDTH = 0.01
"""How far a stretch may lie below its chord, as a share of the cost: wide ones are few, and have much to decide."""


FEW = 30
"""Groups up to which the whole front is found at once, without Lagrange's bound (Nemhauser and Ullmann, 1969)."""


@dataclass(frozen=True, eq=False, slots=True)
class Sweep:
    """Selections that no other of them beats in both weight and cost.

    Attributes:
        choices: Place of each group's choice, [n, groups].
        weights: As given, rising, [n].
        costs: Falling, [n].
        gaps: Share of its cost that a better selection could save at most, at any budget from this one's weight to the next one's,
            [n]; 0 where none can. Costs below a millionth of the largest count as that.
    """

    choices: np.ndarray
    weights: np.ndarray
    costs: np.ndarray
    gaps: np.ndarray


def sweep(
    costs: Sequence[np.ndarray],
    weights: Sequence[np.ndarray],
    *,
    tolerance: float = 0.0,
    between: tuple[float, float] | None = None,
    states: int = STATES,
) -> Sweep:
    r"""The selections that are best at some budget.

    First the corners of the lower hull, which Lagrange's relaxation gives exactly: every group moves along its own hull, the steepest
    step of all first. Then the selections in between, which it can't give, stretch by stretch: dynamic programming over those of
    little excess (`paredown.search.knapsack.within`), then of more, until whatever is missing is known to be beaten by what was found,
    or to save no more than the tolerance (two phases, after Ulungu and Teghem, 1995). Where a tolerance is given, one pass over all
    budgets (`paredown.search.thinned`) finds most of them first.

    Args:
        costs: Per group, [choices].
        weights: Per group, [choices].
        tolerance: Share of the cost that a better selection may save at some budget; 0 asks for all selections that no other beats,
            of which a large problem may have millions.
        between: The budgets of interest; None for all.
        states: Partial selections to keep in a stretch; where that is not enough, the gaps say so.

    Returns:
        The selections; those of budgets somewhat beyond `between` may be among them.
    """
    table = Table.of(costs, weights)
    hull = _corners(table)
    points = hull
    if between is not None:
        low, high = (table.units(budget) for budget in between)
        first = max(int(np.searchsorted(hull.weights, low, side="right")) - 1, 0)
        points = hull.at(slice(first, max(int(np.searchsorted(hull.weights, high, side="right")), first) + 1))
    whole = within(table, 0.0, np.inf, least=0.0, most=np.inf, states=states) if len(costs) <= FEW and between is None else None
    if whole is not None and whole.complete:
        parts = [(Points(whole.weights, whole.costs, whole.places()), np.zeros(len(whole.weights)))]
        stretches = []
    elif tolerance and len(hull.weights) > 1:
        thin = thinned_front(table, hull, tolerance / 5)
        points = points.joined(thin.at((thin.weights >= points.weights[0]) & (thin.weights <= points.weights[-1])))
        gaps = _gaps(points.costs[:-1], np.interp(points.weights[1:], hull.weights, hull.costs), hull)
        weak = _back_to_corners(gaps > tolerance, points, hull)
        parts = [(points.at(np.flatnonzero(np.append(~weak, True))), np.append(gaps[~weak], 0.0))]
        stretches = [points.at(slice(a, b + 1)) for a, b in _runs(weak)]
    else:
        parts = [(points.at(slice(-1, None)), np.zeros(1))]
        ends = _ends(points)
        stretches = [points.at(slice(a, b + 1)) for a, b in pairwise(ends)]
    for stretch in stretches:
        parts.append(_filled(table, hull, stretch, tolerance, states))
    weight, cost = (np.concatenate([getattr(part, name) for part, _ in parts]) for name in ("weights", "costs"))
    order = np.argsort(weight, kind="stable")
    before = np.append(np.inf, np.minimum.accumulate(cost[order])[:-1])
    kept = np.flatnonzero(cost[order] < before - ROUNDING * np.abs(cost[order]))
    gap = np.maximum.reduceat(np.concatenate([gap for _, gap in parts])[order], kept)  # a point answers for those that it beats
    places = np.concatenate([part.places for part, _ in parts])[order[kept]]
    return Sweep(table.given(places), table.lightest + table.unit * weight[order[kept]], cost[order[kept]], gap)


def _corners(table: Table) -> Points:
    """Selections on the lower hull of all, from the lightest to the cheapest."""
    rows = np.arange(len(table.costs))
    at = np.zeros(len(rows), int)
    steps: list[tuple[np.ndarray, ...]] = []
    while True:  # each group's steepest step; a round for each step of the longest hull
        cost, weight = table.costs[rows, at][:, None], table.weights[rows, at][:, None]
        further = np.isfinite(table.costs) & (table.weights > weight)
        slope = np.where(further, (cost - table.costs) / np.where(further, table.weights - weight, 1), -np.inf)
        to = slope.shape[1] - 1 - slope[:, ::-1].argmax(1)  # of equal ones the farthest
        moving = np.flatnonzero(slope[rows, to] > 0)
        if not len(moving):
            break
        steps.append((slope[rows, to][moving], moving, at[moving], to[moving]))
        at[moving] = to[moving]
    if not steps:
        return Points(np.zeros(1), table.costs[:, 0].sum(keepdims=True), np.zeros((1, len(rows)), np.uint16))
    slopes, groups, origins, to = (np.concatenate(column) for column in zip(*steps, strict=True))
    order = np.argsort(-slopes, kind="stable")  # stable: the steps of one group stay in their order
    groups, origins, to = groups[order], origins[order], to[order]
    places = np.zeros((len(rows), len(order) + 1), np.uint16)
    for step, (group, place) in enumerate(zip(groups, to, strict=True), start=1):
        places[group, step:] = place
    weight = np.cumsum(np.append(0.0, table.weights[groups, to] - table.weights[groups, origins]))
    return Points(weight, np.take_along_axis(table.costs, places.astype(int), 1).sum(0), places.T)


def _ends(corners: Points) -> list[int]:
    """Where to cut the corners into stretches that lie about `WIDTH` of their cost below their chords; first and last included."""
    weights, costs = corners.weights, corners.costs
    ends = [0]
    while (start := ends[-1]) < len(weights) - 1:
        low, high = start + 1, len(weights) - 1
        while low < high:
            end = (low + high + 1) // 2
            price = (costs[start] - costs[end]) / (weights[end] - weights[start])
            part = slice(start, end + 1)
            below = costs[start] + price * weights[start] - (costs[part] + price * weights[part]).min()
            low, high = (end, high) if below <= WIDTH * abs(costs[end]) else (low, end - 1)
        ends.append(low)
    return ends


def _filled(table: Table, hull: Points, points: Points, tolerance: float, states: int) -> tuple[Points, np.ndarray]:
    """The front from the first point, a corner, up to the last, which is left out: points with their gaps."""
    ends = np.interp(points.weights[[0, -1]], hull.weights, hull.costs)
    price = (ends[0] - ends[1]) / (points.weights[-1] - points.weights[0])
    value, base = table.priced(price)
    bound = float(value[np.arange(len(base)), base].sum())
    above = value - value.min(1, keepdims=True)
    smallest = np.sort(above[(above > 0) & np.isfinite(above)])[:OPEN]
    excess = float(smallest[-1]) if len(smallest) else 0.0
    end = points.weights[-1]
    while True:
        found = within(table, price, excess, least=points.weights[0], most=end, states=states)
        points = points.joined(Points(found.weights, found.costs, found.places()))
        points = points.at(points.weights < end)  # the last point itself may be beaten by now
        next_weights = np.append(points.weights[1:], end)
        missing = bound + excess - price * next_weights  # what is not found costs more than this, before the next weight
        lower = np.maximum(np.interp(next_weights, hull.weights, hull.costs), missing if found.complete else -np.inf)
        gaps = _gaps(points.costs, np.where(lower >= points.costs - ROUNDING * abs(bound), points.costs, lower), hull)
        if not found.complete or (gaps <= tolerance).all():
            return points, gaps
        excess = min(4 * excess, float((points.costs + price * next_weights).max()) - bound) or float(np.abs(points.costs).max())


def _gaps(costs: np.ndarray, lower: np.ndarray, hull: Points) -> np.ndarray:
    """Share of each cost that would be saved at a lower bound, [n]."""
    return (costs - lower) / np.maximum(np.abs(costs), LEAST_COST * np.abs(hull.costs[0]))


def _back_to_corners(flags: np.ndarray, points: Points, hull: Points) -> np.ndarray:
    """The same flags, each run begun at a corner of the hull: only below a point that none beats is a stretch complete by itself."""
    places = np.arange(len(flags))
    corner = np.maximum.accumulate(np.where(np.isin(points.weights[:-1], hull.weights), places, 0))
    change = np.zeros(len(flags) + 1, int)
    np.add.at(change, corner[flags], 1)
    np.add.at(change, places[flags] + 1, -1)
    return np.cumsum(change)[:-1] > 0


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Start and end (exclusive) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
