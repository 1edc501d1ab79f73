"""The stage that repairs the plans: they are tried on the search split, switched where the prediction was wrong, and the best are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from paredown.errors import ParedownError
from paredown.evaluation.search_split import cut
from paredown.search import Problem
from paredown.search.paired import FEW
from paredown.search.refinement import Refinement
from paredown.search.trials import Improvement, Request
from paredown.specs import Plan, Priority, Trial
from paredown.study import steps
from paredown.study.bench import PlanExecutor
from paredown.study.dispatch import finished
from paredown.study.journal import Journal
from paredown.study.outcomes import compared, kept
from paredown.study.session import Session
from paredown.study.steps import UNIFORM, UniformSizes, plan_of
from paredown.study.trials import Try, search_split

MOST_BITS = 4
"""Budgets above are refined only where they were asked for: there is little left to gain."""

FAVOUR = 10.0
"""How much more an improvement counts at the budgets that a person wants to see first."""

ORIGINS = {"start": "the optimum of another prediction", "crossover": "two plans crossed", "draw": "the optimum of corrected predictions"}


def refine(session: Session, journal: Journal, executor: PlanExecutor, between: Callable[[], None]) -> None:
    """Try plans on the search split, and measure the best of each budget on the held-out split as soon as they are.

    What was tried is in the store and is not tried again.

    Args:
        session: Model and task.
        journal: Where trials, plans and measurements go.
        executor: Who tries and measures.
        between: Called before each trial: what a person asked for goes first.
    """
    if not session.config.refine_plans:
        return
    with journal.tolerating("the plans could not be refined"):
        _Run(session, journal, executor, between).run()


class _Run:
    def __init__(self, session: Session, journal: Journal, executor: PlanExecutor, between: Callable[[], None]) -> None:
        self.session, self.journal, self.executor, self.between = session, journal, executor, between
        config, record = session.config, journal.record
        self.info = session.info()
        self.problem = Problem.of(self.info.fixed_bytes, session.layers, record.candidates, fuse=config.fuse)
        journal.stage("measure", "Refining: asking the original model about the search split")
        self.split = search_split(session)
        sizes = UniformSizes.of(record.plans.values())
        asked = config.budgets or [bits for bits in sizes.default_budgets() if bits <= MOST_BITS]
        self.bits = {float(sizes.at(bits)): bits for bits in asked if sizes.at(bits) > self.problem.smallest_bytes}
        if not self.bits:
            raise ParedownError(
                f"every budget is at or below the smallest plan of {self.problem.smallest_bytes:,} bytes, where there is nothing to switch; give more bits, or smaller schemes"
            )
        uniform = [plan.schemes for plan in record.plans.values() if plan.found_by.startswith(UNIFORM)]
        self.search = Refinement(
            self.problem, list(self.bits), self.split.units, starts=uniform, plans=config.refine_plans, seed=config.seed
        )
        self.known: dict[tuple[str, int, int], np.ndarray] = {
            (trial.plan_digest, trial.start, len(trial.losses)): np.array(trial.losses)
            for trial in journal.store.payloads(Trial)
            if trial.data_digest == self.split.digest
        }
        self.new: dict[float, Improvement] = {}
        self.live = False  # whether this run has tried anything that no earlier one had

    def run(self) -> None:
        self._say_what_it_rests_on()
        search = self.search
        failed: list[str] = []
        while requests := self._ask():
            self._try(requests, failed)
            if failed and not self.known:
                raise ParedownError(failed[0])
            for request in requests:  # in their order, whoever was done first
                losses = self.known.get(self._key(request))
                for improvement in search.drop(request) if losses is None else search.tell(request, losses):
                    self.new[improvement.budget] = improvement
            self._check_spread()
            self._measure_what_is_new()
        if failed:
            self.journal.write("notice", message=f"{len(failed)} plans could not be tried, and were left out: {failed[0]}")
        self._conclude()

    def _ask(self) -> Sequence[Request]:
        """What to try next, with a person's wish taken up; one of an earlier run from the same round on, so that the same plans are asked for."""
        said = self.journal.store.payloads(Priority)
        wishes, taken = [each for each in said if each.round is None], [each for each in said if each.round is not None]
        if self.live and wishes and wishes[-1:] != [replace(each, round=None) for each in taken[-1:]]:
            taken.append(replace(wishes[-1], round=self.search.rounds))
            self.journal.write("progress", payload=taken[-1:])
        now = [each for each in taken if each.round is not None and each.round <= self.search.rounds]
        self.search.weights = dict.fromkeys(_within(now[-1], list(self.bits)), FAVOUR) if now else {}
        return self.search.ask()

    def _try(self, requests: Sequence[Request], failed: list[str]) -> None:
        """Find out what is not known; what can't be tried is written to the list."""
        new: dict[Plan | Try, Request] = {}
        for request in requests:
            if self._key(request) not in self.known:
                pieces = cut(self.search.order, self.search.parts, request.start, request.stop)
                new[Try(self._plan(request, "tried"), pieces)] = request
        self.live |= bool(new)
        for done in finished(self.executor, new, lambda _: "a plan that was tried", self.journal, self.between):
            if done.answer is None or done.answer.losses is None:
                failed.append(str(done.error))
                continue
            request = new[done.job]
            key = self._key(request)
            self.known[key] = done.answer.losses
            trial = Trial(key[0], self.split.digest, self.split.objective, request.start, tuple(done.answer.losses.tolist()))
            self.journal.write("progress", payload=[trial])

    def _key(self, request: Request) -> tuple[str, int, int]:
        return (self._plan(request, "tried").digest, request.start, request.stop - request.start)

    def _plan(self, request: Request, found_by: str) -> Plan:
        return plan_of(self.info, self.problem, request.schemes, found_by, self.session.config.seed)

    def _measure_what_is_new(self) -> None:
        """The best plan of each budget that has a new one; several budgets may share it."""
        new, self.new = self.new, {}
        plans: dict[str, Plan] = {}
        for budget, improvement in new.items():
            plan = self._plan(improvement.request, f"refined at {self.bits[budget]:g} bits, {self._words(improvement)}")
            plans.setdefault(plan.digest, plan)
        for digest, plan in plans.items():
            if digest not in self.journal.record.plans:
                self.journal.write("plan", payload=[plan])
            if digest not in self.journal.record.measurements:
                self.journal.write("progress", message=f"Refining: {self.search.tried} plans tried; {plan.found_by}")
        failed = steps.measure_by(self.executor, self.session, self.journal, plans.values(), self.between)
        if failed:
            raise ParedownError(failed[0])

    def _words(self, improvement: Improvement) -> str:
        request, before = improvement.request, improvement.before
        if request.origin != "switch" or before is None:
            return ORIGINS.get(request.origin, "a switch")
        problem = self.problem
        changed = [
            f"{_short(group)} {offered[old]} → {offered[new]}"
            for group, offered, old, new in zip(problem.groups, problem.schemes, before, request.choices, strict=True)
            if old != new
        ]
        return f"switch of {', '.join(changed)}" if len(changed) <= 2 else f"switch of {len(changed)} groups"

    def _say_what_it_rests_on(self) -> None:
        """Before anything was tried; a run that goes on has said it."""
        if self.known:
            return
        if not self.split.fresh:
            self.journal.write(
                "notice",
                message=f"Plans are tried on {len(self.split)} calibration samples, those that priced them among them: there are not enough others. Results come from the held-out split",
            )
        if len(self.split) < FEW:
            self.journal.write(
                "notice",
                message=f"Plans are tried on {len(self.split)} samples alone: differences between them are uncertain; give the task more calibration data",
            )

    def _check_spread(self) -> None:
        front = {tuple(self.search.losses(request.choices)) for request in self.search.whole()}
        if self.split.objective != "kl" and len(self.search.whole()) > 2 and len(front) == 1:
            raise ParedownError(
                f"the {self.split.objective} of every plan is the same on the search split, so that there is nothing to choose by; refine by kl"
            )

    def _conclude(self) -> None:
        """Each budget's best plan beside the uniform plan of at most its bytes, on the held-out split."""
        record = self.journal.record
        said: set[str] = set()
        for budget, bits in self.bits.items():
            best = self.search.best(budget)
            uniform = [
                plan
                for digest, plan in record.plans.items()
                if plan.found_by.startswith(UNIFORM) and plan.bytes <= budget and digest in record.measurements
            ]
            if best is None or not uniform:
                continue
            plan, rival = self._plan(best, ""), max(uniform, key=lambda each: each.bytes)
            if plan.digest in (rival.digest, *said) or plan.digest not in record.measurements:
                continue
            said.add(plan.digest)
            if kept(self.journal.store, plan.digest) is None or kept(self.journal.store, rival.digest) is None:
                continue
            words = compared(self.journal.store, self.info, plan, rival, self.session.config.seed).disagreement
            if words:
                self.journal.write("notice", message=f"At {bits:g} bits, refined against {rival.found_by}: {words}")
        self.journal.write(
            "progress",
            message=f"Refined: {self.search.tried} plans tried on {len(self.split)} samples, {self.search.evaluated} runs of one sample",
        )


def _within(wanted: Priority, budgets: Sequence[float]) -> list[float]:
    """The budgets of those sizes; where there is none, the nearest."""
    if not wanted.high_bytes:
        return []
    middle = (wanted.low_bytes + wanted.high_bytes) / 2
    return [budget for budget in budgets if wanted.holds(budget)] or [min(budgets, key=lambda budget: abs(budget - middle))]


def _short(group: tuple[str, ...]) -> str:
    return group[0] if len(group) == 1 else f"{group[0]} and {len(group) - 1} more"
