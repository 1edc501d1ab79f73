r"""The multiple-choice knapsack: one choice a group, the least cost within a budget of weight. Plain arrays.

Everything here rests on Lagrange's bound (Everett, 1963). For any price \(\lambda \ge 0\) of a unit of weight, no selection within the
budget B costs less than \(\sum_g \min_j (c_{gj} + \lambda w_{gj}) - \lambda B\); what a choice costs above its group's minimum, its
*excess* \(r_{gj} \ge 0\), adds up: cost = bound + excess + \(\lambda\) × unused weight. So a selection that beats the bound by less
than \(\varepsilon\) holds no choice whose excess is above \(\varepsilon\), which leaves most groups nothing to decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paredown.errors import ParedownError

STATES = 50_000
"""Partial selections that are kept at once; with more, an optimum is no longer certain."""


ROUNDING = 1e-12
"""What sums may be off by, relative: nothing is made of smaller differences."""


@dataclass(frozen=True, eq=False, slots=True)
class Table:
    """The choices of each group that no other of its own beats, by rising weight and falling cost; padded to one width.

    Attributes:
        costs: [groups, width]; infinite where there is no such choice.
        weights: Above the lightest of the group, in `unit`, whole numbers, [groups, width].
        choices: Their places in what was given, [groups, width].
        lightest: Weight of the lightest selection.
        unit: Weight of one unit.
        whole: Whether the weights were given in whole numbers; others are kept to one part in 10^13 of their range.
    """

    costs: np.ndarray
    weights: np.ndarray
    choices: np.ndarray
    lightest: float
    unit: float
    whole: bool

    @classmethod
    def of(cls, costs: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> Table:
        """Arrange the costs and weights of each group's choices, [choices] each."""
        width = max(map(len, costs))
        cost = np.full((len(costs), width), np.inf)
        weight = np.zeros((len(costs), width))
        for row, (given, heavy) in enumerate(zip(costs, weights, strict=True)):
            cost[row, : len(given)] = given
            weight[row, : len(heavy)] = heavy
            weight[row, len(heavy) :] = max(heavy)
        order = np.lexsort((cost, weight), axis=1)
        cost, weight = np.take_along_axis(cost, order, 1), np.take_along_axis(weight, order, 1)
        kept = np.ones(cost.shape, bool)
        kept[:, 1:] = cost[:, 1:] < np.minimum.accumulate(cost, axis=1)[:, :-1]
        place = np.argsort(~kept, axis=1, kind="stable")[:, : kept.sum(1).max()]
        kept = np.take_along_axis(kept, place, 1)
        cost, above = np.take_along_axis(cost, place, 1), np.take_along_axis(weight - weight[:, :1], place, 1)
        whole = all(np.issubdtype(np.asarray(each).dtype, np.integer) for each in weights)
        span = float(np.where(kept, above, 0).max(1).sum())
        unit = float(max(1, np.gcd.reduce(above[kept].astype(np.int64)))) if whole else span / 2**44 or 1.0
        return cls(
            np.where(kept, cost, np.inf),
            np.where(kept, np.rint(above / unit), 0.0),
            np.take_along_axis(order, place, 1),
            float(sum(min(each) for each in weights)),
            unit,
            whole,
        )

    def units(self, budget: float) -> float:
        """The budget above the lightest selection, in units; below 0 where not even that fits."""
        units = (budget - self.lightest) / self.unit
        return float(np.floor(units if self.whole else units + len(self.costs) / 2))  # so much may have been rounded up

    def priced(self, price: float) -> tuple[np.ndarray, np.ndarray]:
        """Cost plus price × weight of all choices, [groups, width], and each group's first least one, [groups]."""
        value = self.costs + price * self.weights
        return value, value.argmin(1)

    def total(self, places: np.ndarray) -> tuple[float, float]:
        """Weight in units and cost of a selection of columns, [groups]."""
        rows = np.arange(len(places))
        return float(self.weights[rows, places].sum()), float(self.costs[rows, places].sum())

    def given(self, places: np.ndarray) -> np.ndarray:
        """Columns of this table, [..., groups], as places in what was given."""
        return self.choices[np.arange(len(self.choices)), places]


@dataclass(frozen=True, eq=False, slots=True)
class Selection:
    """One choice a group, and what is known about the best one.

    Attributes:
        choices: Place of each group's choice, [groups].
        cost: Sum of its costs.
        bound: No selection within the budget costs less than this; equal to the cost where the selection is optimal.
    """

    choices: np.ndarray
    cost: float
    bound: float

    @property
    def optimal(self) -> bool:
        """Whether no selection within the budget costs less."""
        return self.bound >= self.cost


@dataclass(frozen=True, eq=False, slots=True)
class Points:
    """Selections by rising weight (in units), as columns of the table.

    Attributes:
        weights: [n].
        costs: [n].
        places: [n, groups].
    """

    weights: np.ndarray
    costs: np.ndarray
    places: np.ndarray

    def at(self, index: slice | np.ndarray) -> Points:
        """Some of them."""
        return Points(self.weights[index], self.costs[index], self.places[index])

    def joined(self, other: Points) -> Points:
        """Those of both that no other beats."""
        weights, costs = np.append(self.weights, other.weights), np.append(self.costs, other.costs)
        order = np.argsort(weights, kind="stable")
        order = order[undominated(weights[order], costs[order])]
        return Points(weights[order], costs[order], np.concatenate([self.places, other.places])[order])


@dataclass(frozen=True, eq=False, slots=True)
class Found:
    """Partial results of `within`: complete selections that no other found one beats in both weight and cost.

    Attributes:
        weights: In units, rising, [n].
        costs: Falling, [n].
        excess: Above Lagrange's bound at the price, [n].
        complete: Whether every selection that was asked for is here, or one that beats it.
        base: Column of each group that had nothing to decide, [groups].
        groups: The others, in the order in which they were decided.
        steps: For each of these, where the partial selections came from and the column that they added.
    """

    weights: np.ndarray
    costs: np.ndarray
    excess: np.ndarray
    complete: bool
    base: np.ndarray
    groups: np.ndarray
    steps: tuple[tuple[np.ndarray, np.ndarray], ...]

    def places(self, wanted: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Columns of the table that make up the wanted selections, [wanted, groups]."""
        index = np.arange(len(self.weights))[wanted]
        places = np.tile(self.base.astype(np.uint16), (len(index), 1))
        for group, (origin, place) in zip(self.groups[::-1], self.steps[::-1], strict=True):
            places[:, group] = place[index]
            index = origin[index]
        return places


def solve(
    costs: Sequence[np.ndarray], weights: Sequence[np.ndarray], budget: float, *, tolerance: float = 0.0, states: int = STATES
) -> Selection:
    r"""The least cost within a budget.

    Lagrange's bound at its best price, then dynamic programming over what the bound leaves open: all selections of excess up to
    \(\varepsilon\), which is doubled until one of them fits the budget and is within \(\varepsilon\) of the bound. Exact as long as no
    more than `states` partial selections are undominated at once; what is certain otherwise is in the result.

    Args:
        costs: Per group, [choices].
        weights: Per group, [choices], whole numbers or not.
        budget: Largest sum of weights.
        tolerance: Share of the cost that a better selection may save.
        states: Partial selections to keep.

    Returns:
        The selection.

    Raises:
        ParedownError: If the lightest selection exceeds the budget.
    """
    table = Table.of(costs, weights)
    limit = table.units(budget)
    if limit < 0:
        raise ParedownError(f"expected a budget of at least {table.lightest:,g}, what the lightest choices weigh, got {budget:,g}")
    price, light = best_price(table, limit)
    weight, cost = table.total(light)
    if price == 0:
        return Selection(table.given(light), cost, cost)
    value, base = table.priced(price)
    excess = value - value[np.arange(len(base)), base][:, None]
    gap = float(excess[np.arange(len(base)), light].sum() + price * (limit - weight))
    bound, proven = cost - gap, 0.0
    open_ = np.sort(excess[(excess > 0) & (excess <= gap)])
    step = float(open_[min(12, len(open_) - 1)]) if len(open_) else gap  # with a dozen free choices there are thousands of selections
    best, complete = (cost, gap, light), True
    while complete and proven < best[1] and best[1] > tolerance * abs(best[0]):
        step = min(max(2 * proven, step), best[1])
        found = within(table, price, step, least=limit - step / price, most=limit, states=states, fill=True)
        above = found.excess + price * (limit - found.weights)
        if len(above) and above.min() < best[1]:
            at = int(above.argmin())
            best = float(found.costs[at]), float(above[at]), found.places(slice(at, at + 1))[0]
        complete = found.complete
        proven = step if complete else proven
    return Selection(table.given(best[2]), best[0], best[0] if complete and proven >= best[1] else bound + proven)


def best_price(table: Table, limit: float) -> tuple[float, np.ndarray]:
    """The price whose bound is the highest at that many units, and the heaviest selection found that is least there and fits, [groups].

    The price is 0 where the cheapest selection fits. Otherwise chords of the hull (Aneja and Nair, 1979): a dozen passes over the table.
    """
    light = np.zeros(len(table.costs), int)
    heavy = table.costs.argmin(1)
    (weight, cost), (beyond, cheap) = table.total(light), table.total(heavy)
    if beyond <= limit:
        return 0.0, heavy
    while True:
        price = (cost - cheap) / (beyond - weight)
        _, places = table.priced(price)
        between, lower = table.total(places)
        chord = cost + price * weight
        if lower + price * between >= chord - 1e-13 * abs(chord) or between in (weight, beyond):
            return price, light
        if between <= limit:
            light, weight, cost = places, between, lower
        else:
            beyond, cheap = between, lower


def within(table: Table, price: float, excess: float, *, least: float, most: float, states: int = STATES, fill: bool = False) -> Found:
    """All undominated selections of at most that excess at that price, whose weight is between the two limits.

    Args:
        table: The choices.
        price: Of a unit of weight.
        excess: Largest sum of what the choices cost above their groups' least at that price.
        least: Smallest weight, in units.
        most: Largest weight, in units.
        states: Partial selections to keep; where there are more, the best of each stretch of weight stay, and the result says so.
        fill: Count the price of the weight below `most` as excess too.
    """
    rows = np.arange(len(table.costs))
    value, base = table.priced(price)
    above = value - value[rows, base][:, None]
    fits = above <= excess
    open_ = np.flatnonzero(fits.sum(1) > 1)
    spread = np.where(fits, table.weights, -np.inf).max(1) - np.where(fits, table.weights, np.inf).min(1)
    open_ = open_[np.argsort(-spread[open_], kind="stable")]  # the widest first: the limits cut most when little is left to decide
    columns = [np.flatnonzero(fits[group]) for group in open_]
    closed = np.setdiff1d(rows, open_)
    fixed = float(table.weights[closed, base[closed]].sum())
    kept = 1 if len(open_) or least <= fixed <= most else 0
    weight, cost, over = np.full(kept, fixed), np.full(kept, table.costs[closed, base[closed]].sum()), np.zeros(kept)
    lows = [table.weights[group, held].min() for group, held in zip(open_, columns, strict=True)]
    highs = [table.weights[group, held].max() for group, held in zip(open_, columns, strict=True)]
    lows, highs = np.cumsum([0.0, *lows[::-1]])[::-1], np.cumsum([0.0, *highs[::-1]])[::-1]  # what is still to come
    complete, steps = True, []
    for level, (group, held) in enumerate(zip(open_, columns, strict=True), start=1):
        size = len(weight)
        next_over = (above[group, held][:, None] + over).ravel()
        next_weight = (table.weights[group, held][:, None] + weight).ravel()  # one sorted run a choice: cheap to sort
        reach = most - next_weight - highs[level]  # unused even with the heaviest rest
        fit = (next_over + price * np.maximum(reach, 0) <= excess) if fill else (next_over <= excess) & (reach <= most - least)
        fit &= next_weight + lows[level] <= most
        kept = np.flatnonzero(fit)
        kept = kept[np.argsort(next_weight[kept], kind="stable")]
        next_cost = (table.costs[group, held][:, None] + cost).ravel()[kept]
        kept = kept[undominated(next_weight[kept], next_cost)]
        if len(kept) > states:
            kept = kept[_best_of_stretches(next_weight[kept], next_over[kept], states)]
            complete = False
        place, origin = np.divmod(kept, size)
        weight, over, cost = next_weight[kept], next_over[kept], table.costs[group, held[place]] + cost[origin]
        steps.append((origin, held[place].astype(np.uint16)))
    return Found(weight, cost, over, complete, base, open_, tuple(steps))


def undominated(weights: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Which of the points, by rising weight, cost less than all before them, and are not followed by a cheaper one of their weight."""
    kept = np.ones(len(costs), bool)
    kept[1:] = costs[1:] < np.minimum.accumulate(costs)[:-1]
    kept = np.flatnonzero(kept)
    return kept[np.append(weights[kept][1:] > weights[kept][:-1], True)[: len(kept)]]


def _best_of_stretches(weights: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Place of the least value in each of that many even stretches of weight; empty stretches have none."""
    stretch = np.minimum((weights - weights[0]) * (count / (weights[-1] - weights[0])), count - 1).astype(int)
    starts = np.flatnonzero(np.append(True, stretch[1:] > stretch[:-1]))
    least = np.repeat(np.minimum.reduceat(values, starts), np.diff(np.append(starts, len(values))))
    hits = np.flatnonzero(values == least)
    return hits[np.append(True, stretch[hits][1:] > stretch[hits][:-1])]
