"""The stages of a run. Each skips what the record already has, so that the same command goes on where the last one stopped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch

from paredown.calibration import Captured, capture, passes
from paredown.curvature import probe_objective
from paredown.errors import ParedownError
from paredown.layers import weight_of
from paredown.profiling import profile
from paredown.search import Problem, allocate
from paredown.sensitivity import price
from paredown.sizes import layer_bytes
from paredown.specs import KEEP, WHOLE_MODEL, Candidate, LayerProfile, LayerRef, Measurement, ModelInfo, Plan, Scheme
from paredown.study.bench import PlanExecutor
from paredown.study.dispatch import finished
from paredown.study.journal import Journal
from paredown.study.session import Session, calibration_batches, tokens_of
from paredown.study.side_by_side import side_by_side
from paredown.study.spectra import SAMPLES, Estimates, exact_passes, refined, trace_of
from paredown.tasks import Batch

UNIFORM = "uniform "
"""How `Plan.found_by` begins for the plans that treat every layer alike."""


def baseline(session: Session, journal: Journal) -> None:
    """Measure the original model."""
    if journal.record.baseline is not None:
        return
    journal.stage("baseline", f"Measuring the original model on {session.task.label}", total=1)
    plan = session.original_plan()
    journal.write("plan", payload=[plan])
    journal.write("measurement", done=1, total=1, payload=[session.measure(plan)])


def sensitivity(session: Session, journal: Journal, between: Callable[[], None]) -> None:
    """Price every scheme on every layer that is not priced yet; one forward and backward pass for as many as fit into memory.

    Layers are priced side by side, and written in their order.

    Args:
        session: Model and task.
        journal: Where the candidates go.
        between: Called after each layer: what a person asked for goes first.
    """
    config, task, model = session.config, session.task, session.loaded.model
    pending = [layer for layer in session.layers if layer.name not in journal.record.candidates]
    if not pending:
        return
    total = len(session.layers)
    journal.stage("sensitivity", "Reading the calibration data", done=total - len(pending), total=total)
    batches = calibration_batches(config, session.loaded, task)
    units = torch.cat([task.units(batch) for batch in batches])
    ids = [i for batch in batches for i in batch.ids]
    matrix = journal.record.sensitivity_matrix
    probe = probe_objective(model, task, seed=config.seed)

    def objective(batch: Batch) -> torch.Tensor:
        journal.check()
        return probe(batch)

    def job(layer: LayerRef, seen: Captured | None) -> Callable[[], tuple[list[Candidate], LayerProfile, torch.Tensor, Estimates] | None]:
        if seen is None:
            return lambda: None
        weight, offers, keep_made = weight_of(model, layer), session.offers[layer.name], functools.partial(session.kept.keep, layer)
        return lambda: (
            price(layer, weight, seen, units, offers, keep_made, config.scores),
            profile(layer.name, weight, seen),
            *refined(seen, units, ids, matrix, exact=exact, seed=config.seed),
        )

    done = total - len(pending)
    exact = exact_passes(session.surface(SAMPLES)) == 1
    whole = torch.zeros(len(units), dtype=torch.float64)
    for layers in passes(pending, tokens_of(batches)):
        journal.stage("sensitivity", f"Calibrating {len(layers)} layers on {len(units)} samples", done=done, total=total)
        captured = capture(model, layers, batches, objective)
        jobs = (job(layer, captured.pop(layer.name, None)) for layer in layers)
        with closing(side_by_side(jobs)) as results:
            for layer, priced in zip(layers, results, strict=True):
                done += 1
                if priced is None:
                    note = "never run by the calibration data, so it is kept"
                    payload = [Candidate(layer.name, KEEP, KEEP, layer_bytes(layer, KEEP), 0.0, 0.0, 0.0, note)]
                    message = f"{layer.name} is kept: the calibration data never runs it"
                    journal.write("candidates", layer=layer.name, done=done, total=total, message=message, payload=payload)
                else:
                    candidates, profiled, norms, curvature = priced
                    whole += norms
                    journal.write("candidates", layer=layer.name, done=done, total=total, payload=[*candidates, profiled, *curvature])
                    between()
                journal.check()
    if len(pending) == total:  # otherwise a part of the sum is lost with the process that had it
        journal.write(
            "curvature", done=done, total=total, payload=[trace_of(WHOLE_MODEL, matrix, whole, units, exact=exact, seed=config.seed)]
        )


def plans(session: Session, journal: Journal) -> None:
    """Decide which plans are worth measuring: the uniform ones, and the best predicted one at each budget."""
    known = {plan.found_by for plan in journal.record.plans.values()}
    info, seed = session.info(), session.config.seed
    problem = Problem.of(info.fixed_bytes, session.layers, journal.record.candidates, fuse=session.config.fuse)
    journal.stage("search", "Searching the plans of each budget", total=1)
    found: list[Plan] = []
    for scheme in map(Scheme.parse, session.schemes):
        everywhere = problem.decide([_at_least(scheme, offered) for offered in problem.schemes])
        found.append(plan_of(info, problem, everywhere, f"{UNIFORM}{scheme}", seed))
    sizes = UniformSizes.of(found)
    for bits in session.config.budgets or sizes.default_budgets():
        found.append(plan_of(info, problem, allocate(problem, sizes.at(bits)), f"searched at {bits:g} bits", seed))
    for plan in [plan for plan in found if plan.found_by.startswith(UNIFORM)]:
        if (seconds := plan.seconds_per_token) is not None:
            as_fast = allocate(problem, seconds * (1 + 1e-9), resource="seconds")  # a sum in another order is another one
            found.append(plan_of(info, problem, as_fast, f"searched at the latency of {plan.found_by.removeprefix(UNIFORM)}", seed))
    digests = set(journal.record.plans)
    for plan in found:
        if plan.digest not in digests and plan.found_by not in known:
            digests.add(plan.digest)
            journal.write("plan", payload=[plan])
    journal.write("front", done=1, total=1)


def measurements(session: Session, journal: Journal, executor: PlanExecutor, between: Callable[[], None]) -> None:
    """Measure every plan that is not measured yet.

    Args:
        session: Model and task.
        journal: Where the measurements go; whatever stops the run, those that are there by then.
        executor: Who measures.
        between: Called before each one: plans that a person asked for go first, and are measured in this process.

    Raises:
        ParedownError: If a plan can't be measured, such as one whose few bits make the model's outputs infinite; after all others were.
    """
    record = journal.record
    waiting = _outside_in([plan for digest, plan in record.plans.items() if digest not in record.measurements])
    total = len(record.plans)
    journal.stage("measure", "Measuring plans", done=total - len(waiting), total=total)
    failed = measure_by(executor, session, journal, _wanted_first(waiting, journal), between)
    if failed:
        raise ParedownError(
            f"{len(failed)} of {total} plans could not be measured, and the others are kept; the same command tries again. {failed[0]}"
        )


def measure_by(executor: PlanExecutor, session: Session, journal: Journal, plans: Iterable[Plan], between: Callable[[], None]) -> list[str]:
    """Measure those of the plans that are not measured, each once, and write them down as they come; returns why others can't be."""
    known, failed = journal.record.measurements, []
    for done in finished(executor, (plan for plan in plans if plan.digest not in known), lambda plan: plan.found_by, journal, between):
        plan = done.job
        assert isinstance(plan, Plan)
        if done.error is not None:
            failed.append(f"{plan.found_by}: {done.error}")
        elif done.answer is not None and done.answer.measurement is not None and plan.digest not in known:
            for name, arrays in done.answer.arrays.items():
                session.store.save_arrays(name, arrays)
            _write(journal, done.answer.measurement)
    return failed


def measure(session: Session, journal: Journal, plan: Plan) -> None:
    """Measure one plan and write it down."""
    _write(journal, session.measure(plan))


def _write(journal: Journal, result: Measurement) -> None:
    known = {*journal.record.measurements, result.plan_digest}
    journal.write("measurement", done=len(known & set(journal.record.plans)), total=len(journal.record.plans), payload=[result])


@dataclass(frozen=True, slots=True)
class UniformSizes:
    """The yardstick of budgets: bytes of the uniform plans, interpolated in between.

    Attributes:
        bits: Nominal bits of the schemes, rising; those with low-rank factors are left out where there are others.
        bytes: Size of the smallest uniform plan of each, rising.
    """

    bits: tuple[float, ...]
    bytes: tuple[int, ...]

    @classmethod
    def of(cls, plans: Iterable[Plan]) -> UniformSizes:
        """Read the uniform ones among the plans."""
        uniform = [(Scheme.parse(plan.found_by.removeprefix(UNIFORM)), plan.bytes) for plan in plans if plan.found_by.startswith(UNIFORM)]
        smallest: dict[float, int] = {}
        for scheme, size in [pair for pair in uniform if pair[0].low_rank is None] or uniform:
            smallest[scheme.nominal_bits] = min(size, smallest.get(scheme.nominal_bits, size))
        rising = [width for width in sorted(smallest) if all(smallest[other] < smallest[width] for other in smallest if other < width)]
        return cls(tuple(rising), tuple(smallest[width] for width in rising))

    def at(self, bits: float) -> int:
        """Bytes of the uniform plan of so many bits.

        Raises:
            ParedownError: If there is no uniform plan of as few bits, or none of as many.
        """
        if not self.bits:
            raise ParedownError("bits are counted between the uniform plans, and there is none yet; let the run go on to its search")
        if not self.bits[0] <= bits <= self.bits[-1]:
            raise ParedownError(
                f"expected {self.bits[0]:g} to {self.bits[-1]:g} bits, what the uniform plans have, got {bits:g}:"
                f" the smallest possible is {self.bytes[0]:,} bytes at {self.bits[0]:g} bits; raise or lower the bits, or run another study with other schemes"
            )
        return int(np.interp(bits, self.bits, self.bytes))

    def default_budgets(self) -> list[float]:
        """Every width, and a point between neighbours up to 4 bits, where allocation lives."""
        between = [(low + high) / 2 for low, high in pairwise(self.bits) if high <= 4]
        return sorted({*self.bits, *between})


def plan_of(info: ModelInfo, problem: Problem, schemes: Mapping[str, Scheme], found_by: str, seed: int) -> Plan:
    """A decision with its prediction, and with the schemes that really apply."""
    predicted = problem.predict(schemes)
    applied = {name: scheme for name, scheme in problem.effective(schemes).items() if scheme != KEEP}
    loss = (predicted.loss_increase, predicted.loss_increase_sd)
    plan = Plan(info.model, info.digest, applied, predicted.bytes, *loss, found_by, seed)
    return replace(plan, seconds_per_token=predicted.seconds_per_token, seconds_per_token_sd=predicted.seconds_per_token_sd)


def _at_least(scheme: Scheme, offered: Sequence[Scheme]) -> int:
    """The choice that stands for a uniform scheme where it is not offered: the next wider one, so that uniform is never worse than asked."""
    if scheme in offered:
        return offered.index(scheme)
    wider = [
        (other.nominal_bits, index) for index, other in enumerate(offered) if other != KEEP and other.nominal_bits >= scheme.nominal_bits
    ]
    return min(wider)[1] if wider else offered.index(KEEP)


def _wanted_first(waiting: Iterable[Plan], journal: Journal) -> Iterator[Plan]:
    """In that order, but for those whose size a person wants to see first by then."""
    left = list(waiting)
    while left:
        wanted = journal.record.priority
        yield left.pop(next((place for place, plan in enumerate(left) if wanted and wanted.holds(plan.bytes)), 0))


def _outside_in(waiting: list[Plan]) -> list[Plan]:
    """By size from both ends and then the middle, so that the front spans the chart after a few plans."""
    by_size = sorted(waiting, key=lambda plan: plan.bytes)
    ordered: list[Plan] = []
    step = max(1, len(by_size) // 2)
    while len(ordered) < len(by_size):
        ordered += [plan for plan in by_size[::step] if plan not in ordered]
        step = max(1, step // 2)
    return ordered
