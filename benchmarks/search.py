"""Held-out KL at equal bytes: measured refinement against ModelOpt, AutoRound, EvoPress, HAWQ, the additive optimum, uniform and random plans.

Everyone chooses among the same candidates with fused groups decided together. Calibration and search samples are drawn anew for each seed, out
of the calibration pool and of held-out samples beyond those that results are measured on. Differences have paired bootstrap intervals.
ModelOpt and AutoRound decide no embeddings: they get, of their plans for each width of these, the one that is best on the search split.
With ``--joint`` schemes that sparsify and correct by low rank compete too, and the rival is the refined plan of bits alone.
``python benchmarks/search.py --help``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from _evopress import Plan as EvoPlan
from _evopress import evopress
from _method_rivals import MissingRivalError
from _rows import Row, options, row, show
from _search_rivals import DRIVERS, plans
from allocation import random_scores
from paredown import models, tasks
from paredown.curvature.surface import rows_of
from paredown.errors import ParedownError
from paredown.evaluation.outcomes import outcomes
from paredown.evaluation.paired import compare_samples
from paredown.evaluation.search_split import SearchSplit, cut
from paredown.models import LoadedModel
from paredown.search import CLASSICS, Problem, allocate, compare
from paredown.search.refinement import Refinement
from paredown.specs import Outcomes, Scheme, StudyConfig
from paredown.study import Study
from paredown.study.session import Session
from paredown.study.steps import UNIFORM, UniformSizes
from paredown.tasks import Batch, Task

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
ALL = 10**9
Schemes = Mapping[str, Scheme]


@dataclass(frozen=True)
class Found:
    """Our plan beside a rival's, of one seed at one budget.

    Attributes:
        case: The model.
        seed: Of the calibration data.
        bits: The budget.
        rival: Whose plan.
        metric: Its name.
        kl: Held-out, nats: ours, the rival's.
        low: Lower end of the paired interval of ours less the rival's.
        high: Upper end.
        metrics: Ours, the rival's.
        ran: Samples run, over all plans: by us, by the rival, by us until as good on the search split as its end; where they were counted.
    """

    case: str
    seed: int
    bits: float
    rival: str
    metric: str
    kl: tuple[float, float]
    low: float
    high: float
    metrics: tuple[float, float]
    ran: tuple[int, int, float | None] | None = None


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
    parser.add_argument("--rivals", default=",".join(DRIVERS), help="those with environments of their own; may be empty")
    parser.add_argument("--samples", type=int, default=256, help="of the search split")
    parser.add_argument("--held-out", type=int, help="samples that results are measured on; all where not given")
    parser.add_argument("--schemes", default="int2g64,int3g64,int4g64,int8g64")
    parser.add_argument("--joint", help="schemes that compete besides, such as int4g64-gptq+2:4,int2g64+eora16:8; held against bits alone")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep what is found, a line each, and go on from what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines = arguments.keep.read_text().splitlines() if arguments.keep and arguments.keep.exists() else []
    found = [Found(**json.loads(line)) for line in lines]
    for name, seed in itertools.product(arguments.models.split(","), range(arguments.seeds)):
        case = f"{name}, bits × sparsity × rank" if arguments.joint else name
        missing = [b for b in map(float, arguments.bits.split(",")) if not any((f.case, f.seed, f.bits) == (case, seed, b) for f in found)]
        for each in of_seed(name, case, seed, missing, arguments) if missing else ():
            found.append(each)
            print(each, flush=True)
            if arguments.keep:
                with arguments.keep.open("a") as file:
                    file.write(json.dumps(asdict(each)) + "\n")
    show("Held-out KL, nats; rival's beside ours. EvoPress: samples run, over all plans of one budget", rows(found), arguments.json)


def rows(found: Sequence[Found]) -> list[Row]:
    made = []
    for case, bits, rival in sorted({(each.case, each.bits, each.rival) for each in found}):
        some = [each for each in found if (each.case, each.bits, each.rival) == (case, bits, rival)]
        ours, theirs = np.array([each.kl for each in some]).T
        won, lost = sum(each.high < 0 for each in some), sum(each.low > 0 for each in some)
        differences = "; ".join(f"{each.low:+.2g} to {each.high:+.2g}" for each in some)
        metrics = np.mean([each.metrics for each in some], axis=0)
        name = f"{case} {bits:g} bits vs {rival}"
        words = f"{won} ahead, {lost} behind of {len(some)} seeds ({differences}); {some[0].metric} {metrics[0]:.4g} vs {metrics[1]:.4g}"
        made.append(row(f"{name}: {words}", ours.mean(), "nats", theirs.mean()))
        ran = [each.ran for each in some if each.ran is not None]
        if ran:
            theirs = np.mean([their for _, their, _ in ran])
            known = [until for _, _, until in ran if until is not None]
            made.append(row(f"{name}: samples run", np.mean([our for our, _, _ in ran]), "samples", theirs))
            until = f"{name}: samples run until as good on the search split as its end; {len(known)} of {len(ran)} seeds got there"
            made.append(row(until, np.mean(known), "samples", theirs) if known else row(until, float("nan"), "samples"))
    return made


def of_seed(name: str, case: str, seed: int, widths: Sequence[float], arguments: argparse.Namespace) -> Iterator[Found]:
    loaded, task = loaded_case(name)
    drawn = Drawn(task, seed)
    schemes = tuple(arguments.schemes.split(","))
    with tempfile.TemporaryDirectory() as folder:
        study = studied(Path(folder) / "bits", loaded, drawn, schemes, arguments.held_out, seed)
        session, problem = study.session(), problem_of(study)
        sizes = UniformSizes.of(study.record().plans.values())
        split = SearchSplit(session.evaluator, None, arguments.samples, "kl")
        budgets = {bits: float(sizes.at(bits)) for bits in widths}
        joint = None
        if arguments.joint:
            joint = studied(Path(folder) / "joint", loaded, drawn, (*schemes, *arguments.joint.split(",")), arguments.held_out, seed)
        others = {} if joint else of_others(session, problem, list(budgets.values()), split, seed, arguments)
        for bits, budget in budgets.items():
            refined, search, reached = improved(problem, budget, split, arguments.plans, seed)
            ours = outcomes(session.original(), session.evaluator.observe(problem.effective(refined)))
            rivals: dict[str, Outcomes] = {}
            ran = {}
            if joint:
                rivals["bits alone"] = ours
                other, evaluator = problem_of(joint), joint.session().evaluator
                chosen, *_ = improved(other, budget, SearchSplit(evaluator, None, arguments.samples, "kl"), arguments.plans, seed)
                ours = outcomes(joint.session().original(), evaluator.observe(other.effective(chosen)))
                print(case, bits, {str(scheme): sum(s == scheme for s in chosen.values()) for scheme in set(chosen.values())}, flush=True)
            else:
                against = {
                    "additive": allocate(problem, budget),
                    **classics(problem, budget, schemes),
                    "random": allocate(random_scores(problem, seed), budget, objective="loss_increase"),
                    **{rival: at[budget] for rival, at in others.items() if budget in at},
                }
                uniform = [p for p in study.record().plans.values() if p.found_by.startswith(UNIFORM) and p.bytes == int(budget)]
                if uniform:
                    against["uniform"] = uniform[0].schemes
                if arguments.generations:
                    spent, plan = evolved(session.evaluator, problem, budget, bits, split, seed, arguments.generations)
                    against["EvoPress"] = plan
                    target = mean_loss(split, search, plan)
                    ran["EvoPress"] = (search.evaluated, spent, next((at for at, loss in reached if loss <= target), None))
                for rival, chosen in against.items():
                    rivals[rival] = outcomes(session.original(), session.evaluator.observe(problem.effective(chosen)))
            for rival, theirs in rivals.items():
                compared = compare_samples(ours, theirs, metric=task.metric, higher_is_better=task.higher_is_better)
                assert compared.kl is not None
                kl = (float(ours.kl.sum() / ours.units.sum()), float(theirs.kl.sum() / theirs.units.sum()))
                metrics = (float(ours.numerator.sum() / ours.denominator.sum()), float(theirs.numerator.sum() / theirs.denominator.sum()))
                metric = "log perplexity" if task.metric == "perplexity" else task.metric
                yield Found(case, seed, bits, rival, metric, kl, compared.kl.low, compared.kl.high, metrics, ran.get(rival))


def studied(folder: Path, loaded: LoadedModel, task: Task, schemes: tuple[str, ...], held_out: int | None, seed: int) -> Study:
    """A study whose layers are priced."""
    budget = (Scheme.parse(schemes[0]).nominal_bits,)
    config = StudyConfig(
        loaded.id, task.name, schemes, export_format="paredown", budgets=budget, held_out_samples=held_out, hessian_seconds=0, seed=seed
    )
    study = Study(folder, config, model=loaded, task=task)
    study.run()
    return study


def problem_of(study: Study) -> Problem:
    problem = study.problem()
    assert problem is not None
    return problem


def improved(
    problem: Problem, budget: float, split: SearchSplit, tried: int, seed: int
) -> tuple[Schemes, Refinement, list[tuple[int, float]]]:
    """The refined plan of one budget alone, so that its samples can be counted; a study shares what it learns between budgets.

    Returns:
        The plan, the search, and after how many samples it had which loss.
    """
    search = Refinement(problem, [budget], split.units, plans=tried, seed=seed)
    reached = []
    while requests := search.ask():
        for request in requests:
            losses = split.losses(request.schemes, cut(search.order, search.parts, request.start, request.stop))
            if search.tell(request, losses):
                reached.append((search.evaluated, search.loss(request.choices)))
    best = search.best(budget)
    assert best is not None
    return best.schemes, search, reached


def classics(problem: Problem, budget: float, schemes: Sequence[str]) -> dict[str, Schemes]:
    """The plans of HAWQ-V2 and HAWQ-V3, where they have one."""
    ladder = sorted(map(Scheme.parse, schemes), key=lambda scheme: -scheme.nominal_bits)
    table = compare(problem, budget, classics=[each for each in CLASSICS if each.name in ("HAWQ-V2", "HAWQ-V3")], ladder=ladder)
    return {str(name): plan for name, plan in table["schemes"].items() if plan is not None}


def mean_loss(split: SearchSplit, search: Refinement, schemes: Schemes) -> float:
    """Of a plan on the search split."""
    return float(split.losses(schemes, cut(search.order, search.parts, 0, len(split))).sum() / split.units.sum())


def of_others(
    session: Session, problem: Problem, budgets: Sequence[float], split: SearchSplit, seed: int, arguments: argparse.Namespace
) -> dict[str, dict[float, Schemes]]:
    """What the rivals with environments of their own decide, by rival and budget."""
    offered = [Scheme.parse(each).weight for each in arguments.schemes.split(",")]
    (group_size, symmetric), *others = {(each.group_size, each.symmetric) for each in offered if each is not None}
    if others:
        raise ParedownError("expected integers of one group size, all with zero points or all without, which is what the rivals take")
    chosen: dict[str, dict[float, Schemes]] = {}
    everything = [np.arange(len(split))]
    for rival in (each for each in DRIVERS if each in arguments.rivals.split(",")):
        try:
            found, costs = plans(
                rival,
                session.loaded,
                session.layers,
                session.task.batches("calibration"),
                [int(budget) for budget in budgets],
                problem.fixed_bytes,
                seed,
                bits=[each.bits for each in offered if each is not None],
                group_size=group_size,
                symmetric=symmetric,
            )
        except MissingRivalError as error:
            print(f"left out: {error}", flush=True)
            continue
        print(f"{rival}: {costs}", flush=True)
        name = {"modelopt": "ModelOpt", "autoround": "AutoScheme"}[rival]
        for budget in budgets:
            fitting = [plan for plan in found[int(budget)] if problem.predict(plan).bytes <= budget]
            if fitting:
                chosen.setdefault(name, {})[budget] = min(fitting, key=lambda plan: split.losses(plan, everything).sum())
    return chosen


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


def loaded_case(name: str) -> tuple[LoadedModel, Task]:
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
