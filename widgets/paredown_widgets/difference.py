"""What changed between two JSON values: the one way in which news of any panel travel to a browser that has the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

Difference: TypeAlias = "dict[Any, Any] | list[Any]"


def difference(old: Any, new: Any) -> Difference | None:
    """What makes `new` of `old`, as JSON; None where they are equal. `difference.js` takes it.

    ::

        [value]                      is that value now
        {key: change, ...}           an object, or a list of the same length, of which these entries changed; [] stands for one that is gone
        [start, count, [value, ...]] a list in which other values stand in place of `count` of them

    Example:
        >>> difference({"a": 1, "b": [1, 2, 3]}, {"a": 1, "b": [1, 2, 9, 3], "c": 0})
        {'b': [2, 0, [9]], 'c': [0]}
        >>> difference([{"x": 1, "y": 2}, {"x": 3}], [{"x": 1, "y": 5}, {"x": 3}])
        {0: {'y': [5]}}
    """
    if old is new or old == new:
        return None
    if isinstance(old, dict) and isinstance(new, dict):
        kept = [key for key in old if key in new]
        if list(new)[: len(kept)] != kept:
            return [new]  # entries have an order too: what is new stands behind what was there
        changes = {key: change for key, value in new.items() if (change := difference(old[key], value) if key in old else [value])}
        return {**changes, **{key: [] for key in old if key not in new}}
    if isinstance(old, list) and isinstance(new, list):
        return _of_lists(old, new)
    return [new]


def _of_lists(old: Sequence[Any], new: Sequence[Any]) -> Difference:
    shorter = min(len(old), len(new))
    start = next((place for place in range(shorter) if old[place] != new[place]), shorter)
    end = next((place for place in range(shorter - start) if old[-1 - place] != new[-1 - place]), shorter - start)
    count, added = len(old) - end - start, new[start : len(new) - end]
    if count == len(added):
        changes = {start + place: change for place, value in enumerate(added) if (change := difference(old[start + place], value))}
        if 2 * len(changes) <= count or isinstance(added[0], (dict, list)):
            return changes
    return [start, count, list(added)]
