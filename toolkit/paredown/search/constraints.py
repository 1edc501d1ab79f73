"""What a plan must hold to besides its budget: locks, lists by role, what a runtime takes, how many schemes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from paredown.errors import ParedownError
from paredown.search.problem import Problem
from paredown.search.resources import Resource
from paredown.specs import LayerRef, Scheme

Value = TypeVar("Value")

Refusal = Callable[[LayerRef, Scheme], str]
"""Why a runtime can't take a scheme on a layer; empty where it can."""


@dataclass(frozen=True, slots=True)
class Constraints:
    """What a plan must hold to besides its budget.

    Attributes:
        locked: Layers whose scheme is given; a lock on one layer of a fused group locks all of it.
        roles: Role (`LayerRef.role`) to the schemes that its layers may get; other roles may get all that was priced.
        refusal: What the target runtime can't take.
        distinct: How many different schemes a plan may have, `KEEP` and schemes that stand in for others not counted; None for any.
    """

    locked: Mapping[str, Scheme] = field(default_factory=dict)
    roles: Mapping[str, Sequence[Scheme]] = field(default_factory=dict)
    refusal: Refusal | None = None
    distinct: int | None = None

    def __post_init__(self) -> None:
        if self.distinct is not None and self.distinct < 1:
            raise ParedownError(f"a plan has at least one scheme, got distinct={self.distinct}; leave it out where any number will do")


def narrowed(problem: Problem, constraints: Constraints) -> Problem:
    """The problem with the choices that the constraints leave; `Constraints.distinct` is about a whole plan, and for `allocate`.

    Args:
        problem: The choices.
        constraints: What they must hold to.

    Returns:
        The smaller problem.

    Raises:
        ParedownError: If a lock names an unknown layer or scheme, a list an unknown role, or a group is left without a choice; says
            which constraints stand in each other's way.
    """
    unknown = set(constraints.locked) - {name for group in problem.groups for name in group}
    if unknown:
        raise ParedownError(f"locked layers that the problem does not have: {', '.join(sorted(unknown))}")
    known = {layer.role for layer in problem.layers.values()}
    if problem.layers and (strange := set(constraints.roles) - known):
        raise ParedownError(
            f"there are lists for roles that no layer has: {', '.join(sorted(strange))}; expected some of {', '.join(sorted(known))}"
        )
    return problem.narrowed([_left(problem, constraints, place) for place in range(len(problem.groups))])


def _left(problem: Problem, constraints: Constraints, place: int) -> np.ndarray:
    """Which choices of a group are left, [choices] bool."""
    group, offered = problem.groups[place], problem.schemes[place]
    left = np.ones(len(offered), bool)
    reasons: list[str] = []
    locks: list[str] = []
    for position, name in enumerate(group):
        if name in constraints.locked:
            wanted = _meant(problem, place, position, [constraints.locked[name]])
            if not wanted.any():
                raise ParedownError(
                    f"{name} is locked to {constraints.locked[name]}, which was not priced; expected one of {', '.join(map(str, offered))}"
                )
            left &= wanted
            locks.append(name)
            reasons.append(f"{name} is locked to {constraints.locked[name]}")
    if not left.any():
        raise ParedownError(f"the locks within the fused group {', '.join(group)} disagree; lock them to one scheme")
    for position, name in enumerate(group):
        layer = problem.layers.get(name)
        if layer is None:
            continue
        if layer.role in constraints.roles:
            schemes = constraints.roles[layer.role]
            left &= _meant(problem, place, position, schemes)
            reasons.append(f"the list for role {layer.role} ({', '.join(map(str, schemes)) or 'empty'})")
        if constraints.refusal is not None:
            said = [constraints.refusal(layer, choice[position].effective) for choice in problem.candidates[place]]
            if any(said):
                first = next(index for index, words in enumerate(said) if words)
                left &= np.array([not words for words in said])
                reasons.append(f"the runtime ({offered[first]}: {said[first]})")
    if not left.any():
        raise ParedownError(
            f"nothing is left for {', '.join(group)}: {'; '.join(dict.fromkeys(reasons))}; priced were {', '.join(map(str, offered))}. "
            f"{'Unlock it, or widen' if locks else 'Widen'} the list, or price other schemes"
        )
    return left


def _meant(problem: Problem, place: int, position: int, schemes: Sequence[Scheme]) -> np.ndarray:
    """Which choices of a group are one of the schemes for the layer at that position, as asked or as applied; [choices] bool."""
    choices = zip(problem.schemes[place], problem.candidates[place], strict=True)
    return np.array([asked in schemes or choice[position].effective in schemes for asked, choice in choices])


def standing_in_the_way(problem: Problem, constraints: Constraints, resource: Resource) -> str:
    """Words for the constraints without which a plan could take less of the resource; empty where there are none."""
    least = narrowed(problem, constraints).least(resource)

    def helps(**without: object) -> bool:
        return narrowed(problem, replace(constraints, **without)).least(resource) < least  # pyright: ignore[reportArgumentType]

    words = []
    if helps(locked={}):
        alone = [name for name in constraints.locked if helps(locked=_without(constraints.locked, name))]
        words.append(
            f"{', '.join(sorted(alone or constraints.locked))} locked; unlock some"
        )  # of two locks on one group neither helps alone
    if lists := [role for role in constraints.roles if helps(roles=_without(constraints.roles, role))]:
        words.append(f"the lists for {', '.join(sorted(lists))}; add smaller schemes to them")
    if constraints.refusal is not None and helps(refusal=None):
        words.append("what the runtime takes; choose another one")
    return " and with ".join(words)


def _without(mapping: Mapping[str, Value], key: str) -> dict[str, Value]:
    return {other: value for other, value in mapping.items() if other != key}
