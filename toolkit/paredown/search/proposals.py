"""Which plans to measure next: those that a surrogate expects most of, one after another as if those before had been measured.

Plans are arrays with the number of each group's choice, [groups]; the choices of all groups are numbered one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtr

from paredown.search.knapsack import solve
from paredown.search.mutations import crossovers, switches
from paredown.search.surrogate import Outlook, Surrogate

Origin = Literal["start", "switch", "crossover", "draw"]
"""Where a plan comes from: what the search begins with, a level switch, two plans crossed, or the optimum of drawn costs."""

DRAWS = 4
"""Draws of the surrogate at each budget of a round."""

PER_DRAW = 32
"""Switches that each draw proposes."""

CROSSED = 8
"""Crossovers with each other plan."""

NEAR = 1e-3
"""How much of its cost the optimum of drawn costs may leave: a draw is one of many."""

NEGLIGIBLE = 1e-4
"""Expected improvement, as a share of the loss, below which nothing is proposed."""


@dataclass(frozen=True, eq=False, slots=True)
class Proposal:
    """A plan that may be measured.

    Attributes:
        plan: It, [groups].
        origin: Where it comes from.
        budget: What it is meant for.
        there: What the best plan there is believed to lose.
        weight: How much more an improvement counts there than elsewhere.
    """

    plan: np.ndarray
    origin: Origin
    budget: float
    there: float
    weight: float


def around(
    surrogate: Surrogate, best: np.ndarray, others: Sequence[np.ndarray], amounts: np.ndarray, most: float, draw: np.random.Generator
) -> list[tuple[np.ndarray, Origin]]:
    """Switches of the best plan and optima of expected and of drawn costs, and crossovers with other plans.

    Args:
        surrogate: What is believed.
        best: The plan, [groups].
        others: Those that it is crossed with.
        amounts: What each choice takes, [choices].
        most: Most that the choices may take together.
        draw: Draws.
    """
    owner = surrogate.terms.owner
    ends = np.flatnonzero(np.diff(owner)) + 1
    first = np.append(0, ends)
    made: list[tuple[np.ndarray, Origin]] = []
    for costs in (surrogate.costs(best), *(surrogate.draw(draw) for _ in range(DRAWS))):
        made.extend((plan, "switch") for plan in switches(best, costs, amounts, owner, most - amounts[best].sum(), PER_DRAW))
        made.append((first + np.array(solve(np.split(costs, ends), np.split(amounts, ends), most, tolerance=NEAR).choices), "draw"))
    for other in others:
        made.extend((plan, "crossover") for plan in crossovers(best, other, amounts, most, CROSSED, draw))
    return made


def selected(surrogate: Surrogate, pool: Sequence[Proposal], count: int) -> list[tuple[Proposal, float]]:
    """Those of a pool that improve most on what is there, as a share of it, by expectation (Jones et al., 1998).

    The losses to improve on are those that the best plans are believed to have, not those that they were measured to have (plug-in
    expected improvement, for noisy measurements).

    Args:
        surrogate: What is believed.
        pool: What there is to choose from.
        count: How many are wanted.

    Returns:
        At most so many, each with the loss that is expected of it.
    """
    if not pool:
        return []
    plans = np.array([each.plan for each in pool])
    there = np.array([each.there for each in pool])
    weights = np.array([each.weight for each in pool])
    taken = np.zeros(len(pool), bool)
    found: list[tuple[Proposal, float]] = []
    outlook = surrogate.outlook(plans)
    while len(found) < count:
        expected = _improvement(outlook, there)
        worth = np.where((expected > NEGLIGIBLE) & ~taken, weights * expected, -np.inf)
        at = int(worth.argmax())
        if worth[at] == -np.inf:
            break
        found.append((pool[at], float(surrogate.response.measured(outlook.mean[at]))))
        taken |= (plans == plans[at]).all(1)
        outlook.take(at)
    return found


def _improvement(outlook: Outlook, losses: np.ndarray) -> np.ndarray:
    """Expected improvement on what is there, as a share of it, [n]; what a plan has of its own counts as spread."""
    mean = outlook.mean
    there = outlook.surrogate.response.additive(losses)
    spread = np.sqrt(outlook.spread**2 + (outlook.surrogate.misfit * mean) ** 2).clip(min=np.finfo(float).tiny)
    z = (there - mean) / spread
    expected = (there - mean) * ndtr(z) + spread * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    scale = np.abs(there)
    return expected / np.where(scale > 0, scale, max(float(np.median(scale)), np.finfo(float).tiny))
