"""Held-out KL at equal bytes: measured refinement against the additive optimum, HAWQ-V2, EvoPress, uniform and random plans.

Everyone chooses among the same candidates with fused groups decided together. Calibration and search samples are drawn anew for each seed, out
of the calibration pool and of held-out samples beyond those that results are measured on. Differences have paired bootstrap intervals.
``python benchmarks/search.py --help``.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from _evopress import Plan as EvoPlan
from _evopress import evopress
from _rows import Row, options, row, show
from allocation import random_scores
from paredown import models, tasks
from paredown.curvature.surface import rows_of
from paredown.errors import ParedownError
from paredown.evaluation.paired import Samples, compare_samples
from paredown.evaluation.search_split import SearchSplit, cut
from paredown.models import LoadedModel
from paredown.search import allocate
from paredown.search.refinement import Refinement
from paredown.specs import Scheme, StudyConfig
from paredown.study import Study
from paredown.study.steps import UniformSizes
from paredown.tasks import Batch, Task

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
ALL = 10**9


def main() -> None:
    parser = options(__doc__)
    parser.add_argument(
        "--models",
        default="tiny-vit",
        help="tiny-vit and tiny-lm, the fixtures of the tests, in minutes; sentiment, vision and lm in hours; comma separated",
    )
    parser.add_argument("--bits", default="2.5,3,3.5,4")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plans", type=int, default=32, help="plans that refinement tries at each budget")
    parser.add_argument("--generations", type=int, default=30, help="of EvoPress at each budget, whose authors take 150; 0 leaves it out")
    parser.add_argument("--samples", type=int, default=256, help="of the search split")
    parser.add_argument("--schemes", help="comma separated; the default schemes where not given")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [each for name in arguments.models.split(",") for each in of_model(name, arguments)]
    show("Held-out KL, nats; rival's beside ours. EvoPress: samples run, over all plans of one budget", rows, arguments.json)


def of_model(name: str, arguments: argparse.Namespace) -> list[Row]:
    found: dict[tuple[float, str], list[tuple[float, float, float, float]]] = {}
    runs: dict[float, list[tuple[float, float, float]]] = {}
    for seed in range(arguments.seeds):
        for bits, rivals, reached in of_seed(name, seed, arguments):
            for rival, figures in rivals.items():
                found.setdefault((bits, rival), []).append(figures)
            runs.setdefault(bits, []).append(reached)
    rows = []
    for (bits, rival), figures in sorted(found.items()):
        ours, theirs, low, high = np.array(figures).T
        won, lost = int((high < 0).sum()), int((low > 0).sum())
        spread = f"sd {ours.std(ddof=1) if len(ours) > 1 else 0:.2g}/{theirs.std(ddof=1) if len(theirs) > 1 else 0:.2g}"
        rows.append(
            row(f"{name} {bits:g} bits vs {rival}: {won} ahead, {lost} behind of {len(ours)}, {spread}", ours.mean(), "nats", theirs.mean())
        )
    for bits, reached in sorted(runs.items()):
        ours, theirs, until = np.array(reached).T
        if theirs.any():
            rows.append(row(f"{name} {bits:g} bits: samples run; EvoPress", ours.mean(), "samples", theirs.mean()))
            known = until[np.isfinite(until)]
            rows.append(
                row(
                    f"{name} {bits:g} bits: samples run until as good on the search split as EvoPress's end; {len(known)} of {len(until)} seeds got there",
                    known.mean() if len(known) else float("nan"),
                    "samples",
                    theirs.mean(),
                )
            )
    return rows


def of_seed(name: str, seed: int, arguments: argparse.Namespace):
    loaded, task = case(name)
    drawn = Drawn(task, seed)
    widths = tuple(float(each) for each in arguments.bits.split(","))
    schemes = None if arguments.schemes is None else tuple(arguments.schemes.split(","))
    config = StudyConfig(
        model=loaded.id, task=drawn.name, schemes=schemes, export_format="paredown", budgets=widths, hessian_seconds=0, seed=seed
    )
    with tempfile.TemporaryDirectory() as folder:
        study = Study(folder, config, model=loaded, task=drawn)
        study.run()
        session, problem, record = study.session(), study.problem(), study.record()
        assert problem is not None
        sizes = UniformSizes.of(record.plans.values())
        split = SearchSplit(session.evaluator, None, arguments.samples, "kl")
        original = session.original()

        def held_out(chosen: Mapping[str, Scheme]) -> Samples:
            return Samples.of(original, session.evaluator.observe(problem.effective(chosen)))

        budgets = {float(sizes.at(bits)): bits for bits in widths}
        refined, reach = {}, {}
        for budget in budgets:  # each alone, so that its samples can be counted; a study shares what it learns between budgets
            search = Refinement(problem, [budget], split.units, plans=arguments.plans, seed=seed)
            trace = []
            while requests := search.ask():
                for request in requests:
                    losses = split.losses(request.schemes, cut(search.order, search.parts, request.start, request.stop))
                    if search.tell(request, losses):
                        trace.append((search.evaluated, search.loss(request.choices)))
            best = search.best(budget)
            assert best is not None
            refined[budget], reach[budget] = best.schemes, (search, trace)
        for budget, bits in budgets.items():
            ours = held_out(refined[budget])
            rivals: dict[str, Mapping[str, Scheme]] = {
                "additive": allocate(problem, budget),
                "HAWQ-V2": allocate(problem, budget, objective="trace"),
                "random": allocate(random_scores(problem, seed), budget, objective="loss_increase"),
            }
            whole = [p for p in record.plans.values() if p.found_by.startswith("uniform") and p.bytes == int(budget)]
            if whole:
                rivals["uniform"] = whole[0].schemes
            search, trace = reach[budget]
            spent, until = 0, float("inf")
            if arguments.generations:
                spent, plan = evolved(session.evaluator, problem, budget, bits, split, seed, arguments.generations)
                rivals["EvoPress"] = plan
                target = split.losses(plan, cut(search.order, search.parts, 0, len(split))).sum() / split.units.sum()
                until = next((at for at, loss in trace if loss <= target), float("inf"))
            against = {}
            for rival, chosen in rivals.items():
                theirs = held_out(chosen)
                compared = compare_samples(ours, theirs, metric=task.metric, higher_is_better=task.higher_is_better)
                assert compared.kl is not None
                mean = float(ours.kl.sum() / ours.units.sum())
                against[rival] = (mean, mean - compared.kl.value, compared.kl.low, compared.kl.high)
                print(f"{name} seed {seed} {bits:g} bits vs {rival}: {mean:.5f} {compared.kl}", flush=True)
            print(
                f"{name} seed {seed} {bits:g} bits: ran {search.evaluated} samples, EvoPress {spent}, as good as its end after {until}",
                flush=True,
            )
            yield bits, against, (search.evaluated, spent, until)


def evolved(evaluator, problem, budget: float, bits: float, split: SearchSplit, seed: int, generations: int):
    """What EvoPress finds on the search split: samples that it ran, and the plan."""

    def fitness(plan: EvoPlan, chosen: np.ndarray) -> float:
        return float(split.once(problem.decide(plan), chosen).sum() / split.units[chosen].sum())

    spent, parent = next(itertools.islice(evopress(problem, budget, bits, len(split), fitness, seed), generations - 1, None))
    return spent, problem.decide(parent)


class Drawn(Task):
    """A task whose calibration samples are drawn at random from all that results are not measured on.

    Args:
        task: The task.
        seed: Of the draw.
    """

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.name, self.label, self.unit = task, f"{task.name} drawn {seed}", task.label, task.unit
        self.metric, self.higher_is_better, self.offers_probabilities = task.metric, task.higher_is_better, task.offers_probabilities
        self.default_samples = task.default_samples
        results = {i for batch in task.batches("held_out") for i in batch.ids}
        rest = [
            rows_of(batch, torch.tensor([row for row, i in enumerate(batch.ids) if i not in results]))
            for batch in task.batches("held_out", ALL)
            if not results.issuperset(batch.ids)
        ]
        self.pool = [*task.batches("calibration", ALL), *rest]
        self.order = np.random.default_rng(seed).permutation(sum(len(batch.ids) for batch in self.pool))

    def batches(self, split, limit=None) -> Sequence[Batch]:
        """The first samples in the drawn order; the held-out ones as they are."""
        if split == "held_out":
            return self.task.batches(split, limit)
        place = np.empty_like(self.order)
        place[self.order] = np.arange(len(self.order))  # the number of each sample of the pool in the drawn order
        count = self.default_samples[split] if limit is None else limit
        found, start = [], 0
        for batch in self.pool:
            numbers = place[start : start + len(batch.ids)]
            rows = torch.from_numpy(np.flatnonzero(numbers < count))
            start += len(batch.ids)
            if len(rows):
                cut_down = rows_of(batch, rows)
                found.append(Batch(cut_down.inputs, cut_down.targets, tuple(int(i) for i in numbers[rows.numpy()])))
        return found

    def predictions(self, model, batch):
        """The task's."""
        return self.task.predictions(model, batch)

    def loss(self, model, batch):
        """The task's."""
        return self.task.loss(model, batch)

    def scores(self, model, batches, predictions=None):
        """The task's."""
        return self.task.scores(model, batches, predictions)


def case(name: str) -> tuple[LoadedModel, Task]:
    if name == "tiny-vit":
        loaded = models.load(str(FIXTURES / "tiny-vit-fashion"))
        with np.load(FIXTURES.parent / "vision" / "fashion_mnist_small.npz") as data:
            arrays = {key: torch.from_numpy(data[key]) for key in data.files}
        return loaded, tasks.ImageClassification(
            loaded,
            calibration=arrays["calib_x"],
            calibration_labels=arrays["calib_y"],
            held_out=arrays["test_x"],
            held_out_labels=arrays["test_y"],
            prepare=lambda images: (images.float()[:, None] / 255 - 0.286) / 0.353,  # mean and deviation of the training set
            batch_size=64,
            default_samples={"calibration": 64, "held_out": 500},
            name="tiny-vit",
        )
    if name == "tiny-lm":
        loaded = models.load(str(FIXTURES / "tiny-llama-austen"))
        texts = [
            (FIXTURES.parent / "text" / f"{file}.txt").read_text() for file in ("austen_persuasion_calib", "austen_northanger_abbey_test")
        ]
        return loaded, tasks.LanguageModelling(
            loaded,
            calibration=texts[0],
            held_out=texts[1],
            window=64,
            batch_size=16,
            default_samples={"calibration": 64, "held_out": 128},
            name="tiny-lm",
        )
    if name not in ("sentiment", "vision", "lm"):
        raise ParedownError(f"expected sentiment, vision, lm, tiny-vit or tiny-lm, got {name!r}")
    loaded = models.load(f"demo:{name}")
    return loaded, tasks.load(f"demo:{name}", loaded)


if __name__ == "__main__":
    main()
