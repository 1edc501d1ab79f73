"""Plans made from measured ones: level switches that keep the budget (EvoPress, Sieberling et al., 2024), and crossovers.

Plans are arrays with the number of each group's choice, [groups]; the choices of all groups are numbered one after another.
"""

from __future__ import annotations

import numpy as np

MOST_CHOICES = 600
"""Choices that switches are made of; with more, those that cost most for what they save are left out."""


def switches(plan: np.ndarray, costs: np.ndarray, amounts: np.ndarray, owner: np.ndarray, room: float, count: int) -> np.ndarray:
    """The best changes of one group, or of two, one of which may pay for the other.

    Args:
        plan: What is changed, [groups].
        costs: Of each choice, [choices].
        amounts: What each choice takes, [choices].
        owner: Group of each choice, rising, [choices].
        room: What the changes may take more.
        count: How many are wanted.

    Returns:
        Plans by rising cost, [at most count, groups]; those that cost more than the plan itself are among them.
    """
    current = plan[owner]
    gain, taken = costs - costs[current], amounts - amounts[current]
    used = np.flatnonzero(np.arange(len(owner)) != current)
    if len(used) > MOST_CHOICES:
        unit = np.abs(gain).mean() / max(np.abs(taken).mean(), np.finfo(float).tiny)
        used = np.sort(used[np.argsort(gain[used] + unit * taken[used], kind="stable")[:MOST_CHOICES]])
    if not len(used):
        return np.empty((0, len(plan)), int)
    gain, taken, group = gain[used], taken[used], owner[used]
    together, more = np.add.outer(gain, gain), np.add.outer(taken, taken)
    np.fill_diagonal(together, gain)  # the diagonal stands for a single change
    np.fill_diagonal(more, taken)
    allowed = (more <= room) & np.triu(group[:, None] != group)
    np.fill_diagonal(allowed, taken <= room)
    first, second = np.nonzero(allowed)
    order = np.argsort(together[first, second], kind="stable")[:count]
    made = np.tile(plan, (len(order), 1))
    rows = np.arange(len(order))
    for side in (first[order], second[order]):
        made[rows, group[side]] = used[side]
    return made


def crossovers(one: np.ndarray, other: np.ndarray, amounts: np.ndarray, room: float, count: int, seed: np.random.Generator) -> np.ndarray:
    """Plans that take each group from one of two plans, at random, and fit.

    Args:
        one: A plan, [groups].
        other: Another, [groups].
        amounts: What each choice takes, [choices].
        room: Most that a plan may take.
        count: How many are tried.
        seed: Draws.

    Returns:
        [at most count, groups]; neither of the two is among them.
    """
    shares = seed.random((count, 1))
    made = np.where(seed.random((count, len(one))) < shares, one, other)
    fits = amounts[made].sum(1) <= room
    new = (made != one).any(1) & (made != other).any(1)
    return np.unique(made[fits & new], axis=0)
