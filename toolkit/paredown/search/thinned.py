"""All budgets of the multiple-choice knapsack in one pass: a front that is thinned on the way."""

from __future__ import annotations

import numpy as np

from paredown.search.knapsack import Points, Table

PRICES = 256
"""Prices at which it is looked up which choices may be of use."""

LEAST_COST = 1e-6
"""Costs below this share of the largest are not told apart any finer."""


def thinned_front(table: Table, hull: Points, resolution: float) -> Points:
    r"""Selections close to the lower hull, about `resolution` of their cost apart.

    Dynamic programming over the groups, as for the whole front (Nemhauser and Ullmann, 1969), with two limits. Near price
    \(\lambda\), where the whole selection costs \(C(\lambda)\), only choices whose excess is at most \(2 \cdot\) resolution \(\cdot C\) are
    added; and of the partial selections in each stretch of weight \(\mathrm{resolution} \cdot C / \lambda\) the one of least excess
    stays. What that leaves out is not known: compare with the hull.

    Args:
        table: The choices.
        hull: The corners of the lower hull, at least two.
        resolution: Share of the cost.
    """
    slopes = (hull.costs[:-1] - hull.costs[1:]) / np.diff(hull.weights)
    prices = slopes[np.unique(np.linspace(0, len(slopes) - 1, PRICES).astype(int))]  # falling
    least = np.stack([table.priced(price)[1] for price in prices])  # [prices, groups]
    rows = np.arange(len(table.costs))
    full = table.costs[rows, least].sum(1)
    step = resolution * np.maximum(full, LEAST_COST * full.max())
    weights, costs = np.zeros(1), np.zeros(1)
    reached = np.zeros(len(prices))  # weight of the groups so far, at each price
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    for group in rows:
        own, own_weights = table.costs[group], table.weights[group]
        value = own + prices[:, None] * own_weights
        near = value - value.min(1, keepdims=True) <= 2 * step[:, None]  # [prices, choices]
        columns = np.flatnonzero(near.any(0))
        first, last = near[:, columns].argmax(0), len(prices) - 1 - near[::-1, columns].argmax(0)
        start = np.where(first > 0, np.searchsorted(weights, reached[np.maximum(first - 1, 0)]), 0)
        end = np.searchsorted(weights, reached[np.minimum(last + 1, len(prices) - 1)], side="right")
        end[last == len(prices) - 1] = len(weights)
        sizes = np.maximum(end - start, 0)
        offsets = np.cumsum(sizes) - sizes
        which = np.repeat(np.arange(len(columns)), sizes)
        origin = np.arange(sizes.sum()) - offsets[which] + start[which]
        next_weights = weights[origin] + own_weights[columns[which]]
        next_costs = costs[origin] + own[columns[which]]
        reached = reached + own_weights[least[:, group]]
        marks = np.cumsum(np.append(0.0, np.diff(reached) * (prices[1:] + prices[:-1]) / (step[1:] + step[:-1])))  # stretches so far
        stretch = np.interp(next_weights, reached, marks).astype(int)
        at_price = np.interp(np.arange(stretch.max() + 1) + 0.5, marks, prices)[stretch]
        kept = _least_of(stretch, next_costs + at_price * next_weights)
        kept = kept[np.argsort(next_weights[kept], kind="stable")]
        weights, costs = next_weights[kept], next_costs[kept]
        steps.append((origin[kept], columns[which[kept]].astype(np.uint16)))
    places = np.empty((len(rows), len(weights)), np.uint16)
    index = np.arange(len(weights))
    for group in rows[::-1]:
        origin, column = steps[group]
        places[group], index = column[index], origin[index]
    return Points(weights, costs, places.T)


def _least_of(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Place of a least value of each label, by label."""
    least = np.full(labels.max() + 1, np.inf)
    np.minimum.at(least, labels, values)
    hits = np.flatnonzero(values == least[labels])
    place = np.full(len(least), -1)
    place[labels[hits]] = hits
    return place[place >= 0]
