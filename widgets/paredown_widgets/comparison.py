"""Plans side by side: which ones, what each did to each held-out sample, and what one does beyond another on the same samples."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from paredown.errors import ParedownError
from paredown.outcomes import Outcomes
from paredown.search.paired import Difference, difference
from paredown.specs import Measurement, Plan, Shown

if TYPE_CHECKING:
    from paredown.evaluation.paired import Compared
    from paredown_widgets.model import ExplorerModel

LETTERS = "ABCD"
"""A is the plan in the user's hands."""

Kind = Literal["any", "wrong", "right"]
KINDS: dict[Kind, str] = {"any": "Any change", "wrong": "Newly wrong", "right": "Newly right"}
PAGE = 50
"""Flipped answers that are shown at once."""

_SOUNDS = 8
_READ = 16  # plans whose outcomes stay in memory, those that were last looked at: of a language model they take a megabyte each


@dataclass(frozen=True, eq=False)
class Pair:
    """One measured plan less another; below 0 where the first is better.

    Attributes:
        compared: KL, loss and metric.
        flips: Share of units whose answer changed; None where the answers were not kept.
    """

    compared: Compared
    flips: Difference | None

    def turned(self) -> Pair:
        """The other less the one."""
        kl, loss, metric = map(_turned, (self.compared.kl, self.compared.loss, self.compared.metric))
        return Pair(replace(self.compared, kl=kl, loss=loss, metric=metric), _turned(self.flips))


def _turned(found: Difference | None) -> Difference | None:
    return None if found is None else replace(found, value=-found.value, low=-found.high, high=-found.low)


@dataclass(frozen=True)
class Entry:
    """A plan in the comparison.

    Attributes:
        letter: A to D.
        plan: The plan.
        name: What it is called.
        measurement: What was measured of it; None where it is predicted only.
        outcomes: What it did to each sample; None where that was not kept, or not read yet.
    """

    letter: str
    plan: Plan
    name: str
    measurement: Measurement | None
    outcomes: Outcomes | None


class Comparison:
    """What an explorer compares. Its figures are worked out once for each pair of measured plans, in the background."""

    def __init__(self) -> None:
        self.added: tuple[str, ...] = ()  # digests, B first
        self.opened = False  # whether somebody has looked at the view
        self.kind: Kind = "any"
        self.rows = PAGE
        self.heard: tuple[int, ...] = ()  # places of the samples whose sound was asked for, the last one last
        self.copied = {"n": 0, "text": ""}
        self.ready = 0  # rises with everything that was worked out
        self._pinned: dict[str, Plan] = {}  # plans that the study does not hold: states of the plan while it was edited
        self._read: dict[str, tuple[Measurement, Outcomes | None]] = {}
        self._pairs: dict[tuple[str, str], tuple[Measurement, Measurement, Pair]] = {}
        self._shown: tuple[Shown, ...] = ()
        self._working = threading.Lock()

    # -- which plans

    def find(self, model: ExplorerModel, digest: str) -> Plan | None:
        """A plan that can be compared: of the study, or one that was kept here."""
        return model.record.plans.get(digest) or self._pinned.get(digest)

    def entries(self, model: ExplorerModel) -> list[Entry]:
        """The plan in the user's hands, then the others; none before the layers are known."""
        if model.plan is None:
            return []
        chosen = [
            ("recorded plan" if model.offline else "this plan", model.plan),
            *((name_of(model, plan), plan) for plan in self.plans(model)),
        ]
        return [
            Entry(letter, plan, name, measured := model.record.measurements.get(plan.digest), self._of(plan.digest, measured))
            for letter, (name, plan) in zip(LETTERS, chosen, strict=False)
        ]

    def add(self, model: ExplorerModel, plan: Plan) -> str:
        """Put a plan beside the others; returns its letter.

        Raises:
            ParedownError: If there are four already.
        """
        if plan.digest in self.added:
            return LETTERS[1 + self.added.index(plan.digest)]
        if len(self.added) == len(LETTERS) - 1:
            raise ParedownError(f"{len(LETTERS)} plans are compared already; remove one in the view Compare first")
        if plan.digest not in model.record.plans:
            self._pinned[plan.digest] = plan
        self.added = (*self.added, plan.digest)
        self.rows = PAGE
        return LETTERS[len(self.added)]

    def plans(self, model: ExplorerModel) -> list[Plan]:
        """The plans that stand beside the user's, B first."""
        return [plan for digest in self.added if (plan := self.find(model, digest))]

    def restore(self, model: ExplorerModel, plans: Sequence[Plan]) -> None:
        """Take up what was compared when the study was left."""
        self.added = ()
        for plan in plans[: len(LETTERS) - 1]:
            self.add(model, plan)

    def begin(self, model: ExplorerModel, like: Comparison | None = None) -> None:
        """Compare what another explorer compares, or else the measured uniform plan of the nearest size."""
        self.opened = True
        if like is not None:
            self.added, self._pinned = like.added, dict(like._pinned)
        size, measured = model.plan.bytes if model.plan else 0, model.measured_plans()
        uniform = [digest for digest in measured if model.uniform_bits(digest) is not None]
        if not self.added and uniform:
            self.added = (min(uniform, key=lambda digest: abs(measured[digest].bytes - size)),)
        self.work(model)

    def remove(self, digest: str) -> None:
        """Take a plan out again; the letters behind it move up."""
        self.added = tuple(other for other in self.added if other != digest)
        self.rows = PAGE

    def hear(self, sample: int) -> None:
        """Have the sound of a sample sent; the last few stay with the browser."""
        self.heard = (*(other for other in self.heard if other != sample), sample)[-_SOUNDS:]

    # -- what they did

    def original(self, model: ExplorerModel) -> Outcomes | None:
        """What the original model did."""
        baseline = model.record.baseline
        return None if baseline is None else self._of(baseline.plan_digest, baseline)

    @property
    def shown(self) -> tuple[Shown, ...]:
        """The held-out samples as a person sees them."""
        return self._shown

    def pair(self, one: Measurement | None, other: Measurement | None) -> Pair | None:
        """One plan less another; None while it is not known."""
        if one is None or other is None:
            return None
        first, second, found = self._pairs.get((one.plan_digest, other.plan_digest), (None, None, None))
        return found if first is one and second is other else None

    def hurry(self, model: ExplorerModel) -> None:
        """Work out in the background what is not known yet, and tell the views; nothing where nobody looks, or all is known."""
        if not self.opened or not self._missing(model):
            return

        def work() -> None:
            try:
                self.work(model)
            except Exception as error:
                model.fail(error)
            model.changed()

        threading.Thread(target=work, name="explorer-compare", daemon=True).start()

    def work(self, model: ExplorerModel) -> None:
        """Read and compare what is not known yet: up to a second."""
        with self._working:
            with model.lock:
                measured, seed = self._measured(model), model.config.seed
            if measured and not self._shown:
                self._shown = tuple(model.study.shown())
            for m, plan in measured:
                kept = self._read.get(m.plan_digest)
                kept = kept if kept is not None and kept[0] is m else (m, model.study.outcomes(plan))
                self._read = {**{digest: read for digest, read in self._read.items() if digest != m.plan_digest}, m.plan_digest: kept}
            base = self.original(model)
            for (one, plan), (other, rival) in combinations(measured, 2):
                its, theirs = self._of(one.plan_digest, one), self._of(other.plan_digest, other)
                if self.pair(one, other) is not None or its is None or theirs is None:
                    continue
                answered = base is not None and base.answered and its.answered and theirs.answered
                flips = difference(its.changed(base), theirs.changed(base), its.units, seed=seed) if answered and base is not None else None
                pair = Pair(model.study.compare(plan, rival), flips)
                self._pairs[one.plan_digest, other.plan_digest] = (one, other, pair)
                self._pairs[other.plan_digest, one.plan_digest] = (other, one, pair.turned())
            self._forget()
            self.ready += 1

    def _forget(self) -> None:
        """Let go of plans that nobody has looked at for long."""
        self._read = dict([*self._read.items()][-_READ:])
        self._pairs = {pair: found for pair, found in self._pairs.items() if set(pair) <= set(self._read)}

    def _measured(self, model: ExplorerModel) -> list[tuple[Measurement, Plan]]:
        """The original and the compared plans, as far as they were measured."""
        found = [m for m in (model.record.baseline, *(entry.measurement for entry in self.entries(model))) if m is not None]
        by_digest = {m.plan_digest: m for m in found}
        return [(m, plan) for digest, m in by_digest.items() if (plan := self.find(model, digest)) is not None]

    def _missing(self, model: ExplorerModel) -> bool:
        measured = [m for m, _ in self._measured(model)]
        if any(self._read.get(m.plan_digest, (None,))[0] is not m for m in measured):
            return True
        known = [m for m in measured if self._of(m.plan_digest, m) is not None]
        return any(self.pair(one, other) is None for one, other in combinations(known, 2))

    def _of(self, digest: str, measured: Measurement | None) -> Outcomes | None:
        kept, found = self._read.get(digest, (None, None))
        return found if measured is not None and kept is measured else None


def name_of(model: ExplorerModel, plan: Plan, digest: str | None = None) -> str:
    """What a plan is called in a table: by how it was found, where that tells it from others."""
    digest = digest or plan.digest
    bits = model.uniform_bits(digest)
    if bits is not None:
        return f"uniform W{bits}"
    head = plan.found_by.partition(",")[0]
    return head if " " in head else f"plan {digest[:6]}"
