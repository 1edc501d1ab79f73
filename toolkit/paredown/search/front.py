"""Every budget at once: the Pareto front of the additive model, and that of what was measured."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from paredown.search.problem import Objective, Problem
from paredown.specs import Scheme

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, eq=False, slots=True)
class Front:
    """The plans that no other plan beats in both size and loss, by rising size.

    Attributes:
        problem: The choices.
        bytes: Size of the whole file, [n], rising.
        loss: Objective of each plan, [n], falling.
        parents: Per group, for each partial plan the index of the one that it extends, and the choice that it adds.
        exact: False where the front had to be thinned on the way (`pareto_front`).
    """

    problem: Problem
    bytes: np.ndarray
    loss: np.ndarray
    parents: tuple[tuple[np.ndarray, np.ndarray], ...]
    exact: bool

    def __len__(self) -> int:
        return len(self.bytes)

    def within(self, budget_bytes: int) -> int | None:
        """Index of the best plan of at most that size; None where none fits."""
        index = int(np.searchsorted(self.bytes, budget_bytes, side="right")) - 1
        return index if index >= 0 else None

    def schemes(self, index: int) -> dict[str, Scheme]:
        """Decision of the plan at that index, layer name to scheme as asked."""
        choices: list[int] = []
        for origin, choice in reversed(self.parents):
            choices.append(int(choice[index]))
            index = int(origin[index])
        return self.problem.decide(choices[::-1])


def pareto_front(problem: Problem, *, objective: Objective = "loss_increase", limit: int = 50_000) -> Front:
    """All plans of the additive model that are Pareto-optimal.

    Dynamic programming over the groups (Nemhauser and Ullmann, 1969): the front of the first g groups is what is undominated
    among the front of the first g - 1, each extended by every choice. Exact while no partial front exceeds `limit` points; a
    longer one is thinned to `limit` of them, evenly in size, and the result says so.

    Args:
        problem: The choices.
        objective: What is summed beside the bytes.
        limit: Longest partial front.

    Returns:
        The front. Cost: groups x choices x front length, with a sort.
    """
    size, loss = np.array([problem.fixed_bytes], np.int64), np.zeros(1)
    parents: list[tuple[np.ndarray, np.ndarray]] = []
    exact = True
    for added_size, added_loss in zip(problem.bytes, problem.costs(objective), strict=True):
        extended_size = (size[:, None] + added_size[None, :].astype(np.int64)).ravel()
        extended_loss = (loss[:, None] + added_loss[None, :]).ravel()
        order = np.lexsort((extended_loss, extended_size))
        best_before = np.concatenate([[np.inf], np.minimum.accumulate(extended_loss[order])[:-1]])
        kept = order[extended_loss[order] < best_before]
        if len(kept) > limit:
            wanted = np.linspace(extended_size[kept[0]], extended_size[kept[-1]], limit)
            kept = kept[np.unique(np.searchsorted(extended_size[kept], wanted, side="right") - 1)]
            exact = False
        parents.append((kept // len(added_size), kept % len(added_size)))
        size, loss = extended_size[kept], extended_loss[kept]
    return Front(problem, size, loss, tuple(parents), exact)


def measured_front(points: Mapping[Key, tuple[float, float]]) -> list[Key]:
    """Keys of the (size, loss) points that no other point beats in both, by rising size; O(n log n).

    Example:
        >>> measured_front({"a": (1, 3.0), "b": (2, 1.0), "c": (3, 2.0)})
        ['a', 'b']
    """
    front, best = [], float("inf")
    for key, (_, loss) in sorted(points.items(), key=lambda item: item[1]):
        if loss < best:
            front.append(key)
            best = loss
    return front
