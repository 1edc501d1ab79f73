"""What measured refinement found: plans that became the best of a budget, each beside the one that it replaced.

Folded from the events: trials on the search split, and the plans that a study names after the budget that they were refined at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from paredown.record import Record
from paredown.specs import Event, Plan, Trial

Origin = Literal["start", "switch", "crossover", "draw"]
_REFINED = re.compile(r"refined at (?P<bits>[\d.]+(?:e[+-]?\d+)?) bits(?:, (?P<words>.*))?")

_TRIED = re.compile(r"Refin(?:ing|ed): (?P<tried>\d+) plans tried")


@dataclass(frozen=True, slots=True)
class Improvement:
    """A plan that was better on the whole search split than all before it at a budget.

    Attributes:
        plan: The plan.
        bits: The budget, mean bits per compressible weight.
        before: The best one until then; None for the first, or where it is not in the store.
        origin: How it was found.
        tried: Plans that had been tried by then beyond those that the search began with; None where the study did not say.
        loss: Mean of its losses beyond the original's over the search split's samples; None where its trials are not in the store.
        loss_before: The same of the one before.
        gain_sd: Standard error of the difference of the two, sample by sample.
    """

    plan: Plan
    bits: float
    before: Plan | None
    origin: Origin
    tried: int | None = None
    loss: float | None = None
    loss_before: float | None = None
    gain_sd: float | None = None


@dataclass(slots=True)
class History:
    """The fold.

    Attributes:
        improvements: In the order found.
        objective: What the trials measured; empty before the first.
        samples: Samples of the search split.
        tried: Plans that have been tried beyond those that the search began with.
    """

    improvements: list[Improvement] = field(default_factory=list)
    objective: str = ""
    samples: int = 0
    tried: int = 0
    _parts: dict[str, dict[int, np.ndarray]] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict)  # digest to index
    _budgets: dict[float, int] = field(default_factory=dict)  # bits to bytes
    _best: dict[float, Plan] = field(default_factory=dict)

    def update(self, events: Iterable[Event], record: Record) -> None:
        """Take the events behind those that it has; `record` knows them already."""
        for event in events:
            for value in event.payload:
                if isinstance(value, Trial):
                    self._take(value)
                elif isinstance(value, Plan) and (match := _REFINED.fullmatch(value.found_by)):
                    self._improve(value, float(match["bits"]), match["words"] or "", record)
            if match := _TRIED.match(event.message):
                self._count(int(match["tried"]))

    def before(self, digest: str) -> Plan | None:
        """The plan that a plan replaced; None where it replaced none."""
        at = self._places.get(digest)
        return None if at is None else self.improvements[at].before

    def best(self, bits: float) -> Plan | None:
        """The plan that stands at a budget by now."""
        return self._best.get(bits)

    def _count(self, tried: int) -> None:
        """The study says it behind each plan that it has found."""
        self.tried = max(self.tried, tried)
        if self.improvements and self.improvements[-1].tried is None:
            self.improvements[-1] = replace(self.improvements[-1], tried=tried)

    def _take(self, trial: Trial) -> None:
        self.objective = trial.objective
        self._parts.setdefault(trial.plan_digest, {})[trial.start] = np.array(trial.losses)
        self.samples = max(self.samples, trial.start + len(trial.losses))

    def _losses(self, plan: Plan) -> np.ndarray | None:
        """Of each sample of the split; None where it did not run on all."""
        parts = self._parts.get(plan.digest, {})
        if not parts or sum(map(len, parts.values())) < self.samples:
            return None
        return np.concatenate([parts[start] for start in sorted(parts)])

    def _improve(self, plan: Plan, bits: float, words: str, record: Record) -> None:
        if plan.digest in self._places:
            return  # written again, perhaps timed on another machine
        self._places[plan.digest] = len(self.improvements)
        if bits not in self._budgets:
            self._open(bits, plan, record)
        before, losses = self._best.get(bits), self._losses(plan)
        old = None if before is None else self._losses(before)
        gaps = losses - old if losses is not None and old is not None else None
        self.improvements.append(
            Improvement(
                plan, bits, before, _origin(words), None,
                None if losses is None else float(losses.mean()),
                None if old is None else float(old.mean()),
                float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if gaps is not None and len(gaps) > 1 else None,
            )
        )  # fmt: skip
        self._best[bits] = plan
        for other, size in self._budgets.items():  # one plan may be the best of several budgets, and is named after one of them
            if plan.bytes <= size and self._lower(plan, self._best.get(other)):
                self._best[other] = plan

    def _open(self, bits: float, plan: Plan, record: Record) -> None:
        """A budget is met for the first time: which of the plans that were there stood at it."""
        from paredown.study.steps import UniformSizes  # a study has been imported where there are any

        sizes = UniformSizes.of(record.plans.values())
        known = bool(sizes.bits) and sizes.bits[0] <= bits <= sizes.bits[-1]
        self._budgets[bits] = sizes.at(bits) if known else plan.bytes
        found = list(record.plans)
        for digest in found[: found.index(plan.digest)] if plan.digest in record.plans else found:
            other = record.plans[digest]
            if other.bytes <= self._budgets[bits] and self._losses(other) is not None and self._lower(other, self._best.get(bits)):
                self._best[bits] = other

    def _lower(self, plan: Plan, than: Plan | None) -> bool:
        losses = self._losses(plan)
        if losses is None:
            return False
        other = None if than is None else self._losses(than)
        return other is None or float(losses.mean()) < float(other.mean())


def is_refined(plan: Plan) -> bool:
    """Whether measured refinement found a plan."""
    return _REFINED.fullmatch(plan.found_by) is not None


def _origin(words: str) -> Origin:
    """From the words of a study."""
    if "switch" in words:
        return "switch"
    return "crossover" if "crossed" in words else "draw" if "corrected" in words else "start"
