"""What workers bring: plans per second with one and two of them, what handing a plan over costs, and where the search becomes the limit.

The curve is simulated, for this machine has few cores: rounds of searched plans, evaluation times drawn from those measured, the driver's
work one plan after the other, and the search's own time before each round, during which all workers wait. Evaluations are those of a
study, drawn plans of one demo on its held-out split.

Plans per second by the clock hold for an idle machine alone; beside them stand those of workers that have a core each, from the CPU time
of a plan while all of them work: what they take from each other in cache and memory is in it, what other programs take is not.
"""

from __future__ import annotations

import heapq
import itertools
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from _rows import options, row, show, spent
from _timed_work import Timed, nothing
from paredown.executors import Executor, Workers, executor
from paredown.search import Problem, Refinement
from paredown.specs import Event, Plan, Scheme, StudyConfig
from paredown.study import Study
from paredown.study.arrays import MappedArrays
from paredown.study.bench import Bench
from paredown.study.session import Session

SCHEMES = ("int8g64sym", "int4g64sym", "int3g64sym", "int2g64sym")
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WIDTHS = (8, 32)


@dataclass(frozen=True)
class Costs:
    """What was measured of some workers.

    Attributes:
        seconds: By the clock, for all plans.
        evaluations: CPU seconds of each plan, in its worker.
        driver: CPU seconds of a plan in the driver.
        peak_bytes: Most that a worker held at once, libraries and model included.
    """

    seconds: float
    evaluations: Sequence[float]
    driver: float
    peak_bytes: int


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--demo", default="demo:sentiment")
    parser.add_argument("--samples", type=int, default=128, help="held-out samples of an evaluation")
    parser.add_argument("--plans", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", default="{}", help="what stands for so many workers, such as ray:{}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        study = priced(folder, arguments.demo, arguments.samples)
        session, problem = study.session(), study.problem()
        assert problem is not None
        plans = drawn(session, arguments.plans)
        found: dict[int, list[Costs]] = {1: [], 2: []}
        for _, count in itertools.product(range(arguments.rounds), found):
            arrays = MappedArrays(study.store.artifacts.resolve())
            found[count].append(measured(arguments.workers.format(count), count, session, arrays, plans))
        searches = {width: search_seconds(problem, width) for width in WIDTHS}
    name = arguments.demo.removeprefix("demo:")
    best = {count: min(each, key=lambda costs: costs.seconds) for count, each in found.items()}
    rate = {count: len(plans) / costs.seconds for count, costs in best.items()}
    core = {count: count / float(np.mean([each.evaluations for each in costs])) for count, costs in found.items()}
    driver = min(costs.driver for each in found.values() for costs in each)
    rows = [
        row(
            f"{name}, {arguments.samples} samples: plans, two workers beside one, by the clock (bar 1.6 x)",
            rate[2],
            "1/s",
            rate[1],
            better="more",
        ),
        row("the same, each worker with a core of its own (bar 1.6 x)", core[2], "1/s", core[1], better="more"),
        row("a plan: CPU time in its worker", 1e3 / core[1], "ms"),
        row("a plan: CPU time in the driver", 1e3 * driver, "ms"),
        row("a worker: peak memory", max(costs.peak_bytes for each in found.values() for costs in each) / 1e6, "MB"),
        row("an empty job there and back, by the clock", 1e3 * there_and_back(arguments.workers), "ms"),
    ]
    rows += [row(f"search: a round of {width} plans, CPU time", 1e3 * seconds, "ms") for width, seconds in searches.items()]
    evaluations = [seconds for costs in found[1] for seconds in costs.evaluations]
    for width, search in searches.items():
        rates = {count: simulated(evaluations, driver, search, width, count) for count in WORKERS}
        rows += [
            row(f"simulated, rounds of {width}: {count} workers", rates[count], "1/s", rates[1], better="more") for count in WORKERS[1:]
        ]
        ideal = simulated(evaluations, driver, 0.0, width, WORKERS[-1])
        rows.append(
            row(f"rounds of {width}, {WORKERS[-1]} workers: share of the time that is search", 100 * (1 - rates[WORKERS[-1]] / ideal), "%")
        )
        limit = next((count for count in range(1, 4097) if waiting(evaluations, driver, width, count) < search), None)
        rows.append(
            row(f"rounds of {width}: workers from which a round's search takes longer than its evaluations (0: never)", limit or 0, "")
        )
    show("Workers", rows, arguments.json)


def priced(folder: str, demo: str, samples: int) -> Study:
    """A study that was stopped when plans were to be measured."""
    study = Study(folder, StudyConfig(demo, demo, SCHEMES, calibration_samples=16, held_out_samples=samples, hessian_seconds=0))

    def stop(event: Event) -> None:
        if event.kind == "front":
            study.cancel()

    study.run(stop)
    return study


def drawn(session: Session, count: int) -> list[Plan]:
    """Plans of the schemes that are offered, drawn."""
    draw = random.Random(0)
    plans = []
    for _ in range(count):
        schemes: dict[str, Scheme] = {
            layer.name: draw.choice(session.offers[layer.name]) for layer in session.layers if session.offers[layer.name]
        }
        plans.append(Plan(session.loaded.id, session.loaded.digest, schemes, 0))
    return plans


def measured(workers: str, count: int, session: Session, arrays: MappedArrays, plans: Sequence[Plan]) -> Costs:
    """All plans, after each worker has prepared its weights: it has run the uniform plans."""
    uniform = [replace(plans[0], schemes=dict.fromkeys(plans[0].schemes, Scheme.parse(scheme))) for scheme in SCHEMES]
    with closing(executor(Workers.parse(workers), lambda load: Timed(Bench.of(session, load)), arrays, arrays.names)) as pool:
        through(pool, uniform * count)
        cpu, started = time.process_time(), time.monotonic()
        evaluations, peaks = zip(*through(pool, plans), strict=True)
        return Costs(time.monotonic() - started, evaluations, (time.process_time() - cpu) / len(plans), max(peaks))


def through(pool: Executor[Any, Any], jobs: Sequence[Any]) -> list[Any]:
    """Jobs handed over as a run does."""
    waiting, answers = list(jobs)[::-1], []
    while len(answers) < len(jobs):
        while waiting and pool.free:
            pool.submit(waiting.pop())
        for done in pool.finished(1.0):
            if done.error is not None:
                raise done.error
            answers.append(done.answer)
    return answers


def there_and_back(workers: str) -> float:
    """Median seconds of a job that does nothing."""
    with closing(executor(Workers.parse(workers.format(1)), lambda load: nothing, {}.get, list)) as pool:
        through(pool, range(5))
        times = []
        for _ in range(50):
            started = time.monotonic()
            through(pool, [None])
            times.append(time.monotonic() - started)
    return float(np.median(times))


def search_seconds(problem: Problem, width: int) -> float:
    """CPU seconds of the search for a round of plans, from the proposal to the last answer, given by the additive model with noise."""
    budgets = np.linspace(1.1 * problem.smallest_bytes, 0.6 * problem.largest_bytes, 6)
    search = Refinement(problem, list(budgets), np.ones(128), plans=2 * width, width=width)
    draw, parts, rounds = np.random.default_rng(0), [], 0
    while True:
        seconds, requests = spent(search.ask)
        if not requests:
            return sum(parts[1:]) / rounds  # the first are the plans that it begins with
        rounds += bool(parts) and requests[0].start == 0
        for request in requests:
            loss = problem.predict(request.schemes).loss_increase or 0.0
            values = loss * np.exp(draw.normal(0, 0.1, request.stop - request.start))
            seconds += spent(lambda request=request, values=values: search.tell(request, values))[0]
        parts.append(seconds)


def simulated(evaluations: Sequence[float], driver: float, search: float, width: int, workers: int) -> float:
    """Plans per second."""
    return width / (search + waiting(evaluations, driver, width, workers))


def waiting(evaluations: Sequence[float], driver: float, width: int, workers: int, rounds: int = 20) -> float:
    """Mean seconds that a round's evaluations take: the driver hands over one after the other, each to whom is free first."""
    draw = random.Random(0)
    total = 0.0
    for _ in range(rounds):
        free, clock, end = [0.0] * min(workers, width), 0.0, 0.0
        for _ in range(width):
            clock = max(clock, heapq.heappop(free)) + driver
            heapq.heappush(free, clock + draw.choice(evaluations))
        end = max(free)
        total += end
    return total / rounds


if __name__ == "__main__":
    main()
