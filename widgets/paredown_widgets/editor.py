"""The user's plan while it is edited: schemes, locks, undo and redo. Plain data, no observers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from paredown.errors import ParedownError
from paredown.specs import KEEP, LayerRef, Scheme, fused_groups

_DEPTH = 200  # undo steps that are kept


Call: TypeAlias = tuple[str, str | float]
"""A name with its value: data and no code, since it is read from a study's folder."""


@dataclass(frozen=True)
class Step:
    """One step of the history.

    Attributes:
        label: What was done, in words.
        schemes: The plan before it; in what can be done again, after it.
        locked: The locks that stood then.
        calls: What does the same again: names of `paredown_widgets.python_code.CALLS` with their value; empty where the layers that differ say it.
    """

    label: str
    schemes: Mapping[str, Scheme]
    locked: frozenset[str] = frozenset()
    calls: tuple[Call, ...] = ()


@dataclass
class PlanEditor:
    """A decision for every layer, and the way back. Fused layers are always edited together.

    Attributes:
        schemes: Layer name to scheme, complete.
        locked: Layers that edits, filling and loading leave alone.
        groups: Layer name to the layers that are decided with it, itself included.
    """

    schemes: dict[str, Scheme] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _undo: list[Step] = field(default_factory=list)
    _redo: list[Step] = field(default_factory=list)
    _gesture: str | None = None

    def set_layers(self, layers: Sequence[LayerRef], start: Scheme, *, fuse: bool) -> None:
        """Begin with one scheme for all layers of a model."""
        groups = fused_groups(layers) if fuse else tuple((layer.name,) for layer in layers)
        self.groups = {name: group for group in groups for name in group}
        self.schemes = {layer.name: start for layer in layers}
        self.locked.clear()
        self._undo.clear()
        self._redo.clear()
        self._gesture = None

    def widened(self, layers: Iterable[str]) -> tuple[str, ...]:
        """Those layers and what is fused with them, in model order; unknown names are dropped."""
        wanted = {member for name in layers if name in self.groups for member in self.groups[name]}
        return tuple(name for name in self.schemes if name in wanted)

    def edit(self, schemes: Mapping[str, Scheme], label: str, *, gesture: str | None = None) -> bool:
        """Change the schemes of some layers. One gesture, such as a drag, is one undo step.

        Returns:
            Whether anything changed.
        """
        return self._move_to({**self.schemes, **schemes}, label, gesture)

    def replace(self, schemes: Mapping[str, Scheme], label: str, *, keep_locked: bool = True, calls: tuple[Call, ...] = ()) -> bool:
        """Take over a whole plan; a layer that it does not name is kept. Returns whether anything changed."""
        after = {name: now if keep_locked and name in self.locked else schemes.get(name, KEEP) for name, now in self.schemes.items()}
        return self._move_to(after, label, None, calls)

    def start_from(self, schemes: Mapping[str, Scheme]) -> None:
        """Set the plan without an undo step: what the explorer itself chooses before the first edit."""
        self.schemes = {name: schemes.get(name, KEEP) for name in self.schemes}

    def lock(self, layers: Iterable[str], locked: bool) -> None:
        """Lock or unlock those layers and what is fused with them."""
        names = self.widened(layers)
        self.locked = self.locked | set(names) if locked else self.locked - set(names)

    def undo(self) -> bool:
        """Go one step back; says whether there was one."""
        return self._swap(self._undo, self._redo)

    def redo(self) -> bool:
        """Go one step forward again; says whether there was one."""
        return self._swap(self._redo, self._undo)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that lead here, the oldest first."""
        return tuple(self._undo)

    @property
    def undone(self) -> tuple[Step, ...]:
        """The steps that can be done again, the next one first."""
        return tuple(self._redo[::-1])

    def go_to(self, place: int) -> bool:
        """Go to where so many steps have been done; says whether that is elsewhere.

        Raises:
            ParedownError: If there are not so many steps.
        """
        here, most = len(self._undo), len(self._undo) + len(self._redo)
        if not 0 <= place <= most:
            raise ParedownError(f"expected a place from 0 to {most} in the history of the plan, got {place}; look at the history again")
        for _ in range(abs(place - here)):
            (self.undo if place < here else self.redo)()
        return place != here

    def restore(self, steps: Iterable[Step], undone: Iterable[Step]) -> None:
        """Take up a history that was left here."""
        self._undo, self._redo = list(steps), list(undone)[::-1]

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to go back to."""
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to go forward to."""
        return bool(self._redo)

    @property
    def undo_label(self) -> str:
        """What the last step did."""
        return self._undo[-1].label if self._undo else ""

    def _move_to(self, after: dict[str, Scheme], label: str, gesture: str | None, calls: tuple[Call, ...] = ()) -> bool:
        if after == self.schemes:
            return False
        if gesture is None or gesture != self._gesture or not self._undo:
            self._undo.append(Step(label, self.schemes, frozenset(self.locked), calls))
            del self._undo[:-_DEPTH]
        self._gesture = gesture
        self._redo.clear()
        self.schemes = after
        return True

    def _swap(self, source: list[Step], target: list[Step]) -> bool:
        self._gesture = None
        if not source:
            return False
        step = source.pop()
        target.append(replace(step, schemes=self.schemes))
        self.schemes = dict(step.schemes)
        return True
