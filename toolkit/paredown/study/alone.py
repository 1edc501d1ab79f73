"""Layers and pairs of them compressed alone, on the search split: the measured score of every candidate, and what pairs lose beyond it.

Plans are ordered from the model's end to its beginning, so that each begins like the one before for as long as it can
(`paredown.evaluation.prefix`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from paredown.errors import ParedownError
from paredown.search import Problem, measure_interactions
from paredown.specs import KEEP, MEASURED, Candidate, LayerInteractions, Plan, Scheme, Trial
from paredown.study.bench import PlanExecutor
from paredown.study.dispatch import finished
from paredown.study.journal import Journal
from paredown.study.session import Session
from paredown.study.steps import plan_of
from paredown.study.trials import Try, search_split

USUAL_BITS = 4
"""Width whose scheme interactions are measured at where none is named."""


def alone(session: Session, journal: Journal, executor: PlanExecutor, between: Callable[[], None]) -> None:
    """Measure every candidate alone where the study asks for `MEASURED`; what is known of this split is not run again.

    Args:
        session: Model and task.
        journal: Where the candidates go, with the score added, and the trials.
        executor: Who runs them.
        between: Called before each run: what a person asked for goes first.
    """
    if MEASURED not in session.config.scores:
        return
    with journal.tolerating("the layers could not be measured alone"):
        tried = _Tried(session, journal, executor, between)
        wanted: dict[str, list[Candidate]] = {}
        plans: list[Plan] = []
        for layer in reversed(session.layers):
            for candidate in journal.record.candidates.get(layer.name, {}).values():
                if candidate.effective == KEEP:
                    continue
                plan = tried.plan({layer.name: candidate.effective})
                if plan.digest not in wanted:
                    plans.append(plan)
                wanted.setdefault(plan.digest, []).append(candidate)

        def scored(plan: Plan) -> list[Candidate]:
            loss = float(tried.per_unit(plan).mean())
            return [replace(each, scores={**each.scores, MEASURED: loss}) for each in wanted[plan.digest]]

        known = [candidate for plan in plans if tried.knows(plan) for candidate in scored(plan)]
        if stale := [candidate for candidate in known if candidate != journal.record.candidates[candidate.layer][candidate.scheme]]:
            journal.write("candidates", payload=stale)  # of another split since
        for plan, trial, done in tried.run(plans, "Measuring every layer alone under every scheme"):
            candidates = scored(plan)
            journal.write("candidates", layer=candidates[0].layer, done=done, total=len(plans), payload=[trial, *candidates])


def interactions(session: Session, journal: Journal, executor: PlanExecutor, between: Callable[[], None]) -> None:
    """Measure pair terms between groups of layers, with as many plans as the study grants.

    Args:
        session: Model and task.
        journal: Where the terms go, and the trials.
        executor: Who runs them.
        between: Called before each run: what a person asked for goes first.
    """
    config = session.config
    if not config.interactions:
        return
    with journal.tolerating("the interactions could not be measured"):
        tried = _Tried(session, journal, executor, between)
        if len(tried.split) < 2:
            raise ParedownError("pair terms need at least 2 samples for their standard errors, the search split has 1; give more")
        problem = Problem.of(session.info().fixed_bytes, session.layers, journal.record.candidates, fuse=config.fuse)
        scheme = _scheme(session)
        groups = _groups(problem, scheme, config.interactions)

        def together(some: Sequence[int]) -> Plan:
            return tried.plan({name: scheme for i in some for name in groups[i]})

        chosen = [some for i in reversed(range(len(groups))) for some in ((i,), *((i, j) for j in reversed(range(i + 1, len(groups)))))]
        plans: dict[tuple[int, ...], Plan] = {some: together(some) for some in chosen}
        for _, trial, done in tried.run(list(plans.values()), f"Measuring pairs of {len(groups)} groups of layers at {scheme}"):
            journal.write("progress", done=done, total=len(plans), payload=[trial])
        if tried.failed:
            raise ParedownError(tried.failed[0])
        nothing = np.zeros(len(tried.split))
        found = measure_interactions(
            lambda some: tried.per_unit(plans[tuple(sorted(some))]) if some else nothing, [group[0] for group in groups]
        )
        value = LayerInteractions(
            scheme,
            groups,
            tuple(found.single.tolist()),
            tuple(found.single_sd.tolist()),
            tuple(map(tuple, found.pairs.tolist())),
            tuple(map(tuple, found.pairs_sd.tolist())),
            tried.split.objective,
            tried.split.digest,
            len(tried.split),
            len(problem.groups),
        )
        if value != journal.record.interactions:
            journal.write("interactions", payload=[value])


def _scheme(session: Session) -> Scheme:
    if session.config.interaction_scheme is not None:
        return Scheme.parse(session.config.interaction_scheme)
    return min(map(Scheme.parse, session.schemes), key=lambda scheme: (abs(scheme.nominal_bits - USUAL_BITS), scheme.nominal_bits))


def _groups(problem: Problem, scheme: Scheme, plans: int) -> tuple[tuple[str, ...], ...]:
    """As many groups as so many plans suffice for, those that lose most by the scheme, in model order."""
    offering = [i for i, offered in enumerate(problem.schemes) if scheme in offered]
    count = (math.isqrt(8 * plans + 1) - 1) // 2  # count (count + 1) / 2 plans
    worst = sorted(offering, key=lambda i: -problem.guarded_loss[i][problem.schemes[i].index(scheme)])[:count]
    if len(worst) < 2:
        raise ParedownError(f"pairs need at least 2 groups of layers that offer {scheme}, got {len(offering)}; name another scheme")
    return tuple(problem.groups[i] for i in sorted(worst))


class _Tried:
    """What plans lose on the whole search split; each is run once, and its trial kept."""

    def __init__(self, session: Session, journal: Journal, executor: PlanExecutor, between: Callable[[], None]) -> None:
        self.split = search_split(session)
        self.failed: list[str] = []
        self._journal, self._executor, self._between = journal, executor, between
        self._info, self._seed = session.info(), session.config.seed
        self._problem = Problem.of(self._info.fixed_bytes, session.layers, journal.record.candidates, fuse=False)
        self._order = f"{self.split.digest} whole"  # not the order in which refinement looks at the samples
        self._losses = {
            trial.plan_digest: np.array(trial.losses) for trial in journal.store.payloads(Trial) if trial.data_digest == self._order
        }

    def plan(self, schemes: Mapping[str, Scheme]) -> Plan:
        """Some layers compressed, all others kept."""
        return plan_of(self._info, self._problem, schemes, "alone", self._seed)

    def knows(self, plan: Plan) -> bool:
        return plan.digest in self._losses

    def per_unit(self, plan: Plan) -> np.ndarray:
        """Loss of each sample beyond the original's, such that the mean over samples is the loss per unit, [samples]."""
        return self._losses[plan.digest] / self.split.units.mean()

    def run(self, plans: Sequence[Plan], message: str) -> Iterator[tuple[Plan, Trial, int]]:
        """Run those that are not known; gives each with its trial, which is to be written, and how many are known then."""
        new = [plan for plan in plans if not self.knows(plan)]
        if not new:
            return
        done = len(plans) - len(new)
        self._journal.stage("measure", message, done=done, total=len(plans))
        jobs = (Try(plan, [np.arange(len(self.split))]) for plan in new)
        for result in finished(self._executor, jobs, lambda _: "a plan that was tried", self._journal, self._between):
            job, answer = result.job, result.answer
            assert isinstance(job, Try)
            if answer is None or answer.losses is None:
                self.failed.append(str(result.error))
                continue
            done += 1
            self._losses[job.plan.digest] = answer.losses
            losses = tuple(answer.losses.tolist())
            yield job.plan, Trial(job.plan.digest, self._order, self.split.objective, 0, losses), done
        if self.failed:
            words = f"{len(self.failed)} plans could not be run, and were left out: {self.failed[0]}"
            self._journal.write("notice", message=words)
