"""Held-out KL at equal bytes: measured refinement against ModelOpt, AutoRound, EvoPress, HAWQ, the additive optimum, uniform and random plans.

Everyone chooses among the same candidates with fused groups decided together. Calibration and search samples are drawn anew for each seed, out
of the calibration pool and of held-out samples beyond those that results are measured on. Differences have paired bootstrap intervals: one
is ahead or behind where 0 lies outside, else the difference is undecided; so is the mean over the seeds, on the same held-out samples.
Results are measured on the held-out split and on whatever of the pool a seed's calibration and search left over; the metric on the former.
Refinement shares one search between the budgets, EvoPress searches each. Tokens are those of the samples that ran forward, without padding;
the calibration pass that prices the candidates comes to ours.
ModelOpt and AutoRound decide no embeddings: they get, of their plans for each width of these, the one that is best on half of the search split.
With ``--joint`` schemes that sparsify and correct by low rank compete too, and the rival is the refined plan of bits alone.

``--keep FOLDER`` keeps the studies, the rivals' plans and all that was measured: another run there costs what it asks anew, and shows the
rows of all runs there.
``python benchmarks/search.py --help``.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from _evopress import Plan as EvoPlan
from _evopress import evopress
from _found import Found, rows, verdict
from _kept import Kept, digest
from _method_rivals import MissingRivalError
from _rows import options, show
from _search_data import ALL, Drawn, loaded_case
from _search_rivals import DRIVERS, plans
from allocation import random_scores
from paredown.errors import ParedownError
from paredown.evaluation.comparison import sample_divergences
from paredown.evaluation.screening import drawn
from paredown.evaluation.search_split import SearchSplit, cut
from paredown.models import LoadedModel
from paredown.search import CLASSICS, Problem, allocate, compare, difference
from paredown.search.refinement import Refinement
from paredown.specs import Scheme, StudyConfig
from paredown.study import Study
from paredown.study.steps import UNIFORM, UniformSizes
from paredown.tasks import Batch, Predictions, Task

Schemes = Mapping[str, Scheme]
NAMES = {"modelopt": "ModelOpt", "autoround": "AutoScheme"}
TENTH = 0.1


def main() -> None:
    parser = options(__doc__)
    parser.add_argument(
        "--models",
        default="sentiment,vision",
        help="sentiment, vision and lm take hours; tiny-vit and tiny-lm, the fixtures of the tests, minutes; comma separated",
    )
    parser.add_argument("--bits", default="2.5,3,3.5,4")
    parser.add_argument("--seeds", default="0,1,2", help="of the calibration data; comma separated")
    parser.add_argument("--plans", type=int, default=32, help="plans that refinement tries for each budget")
    parser.add_argument("--generations", type=int, default=30, help="of EvoPress at each budget, whose authors take 150; 0 leaves it out")
    parser.add_argument("--evolved-bits", help="budgets at which EvoPress runs, which takes longest; all where not given")
    parser.add_argument(
        "--rivals", default="random," + ",".join(DRIVERS), help="besides HAWQ, additive and uniform; some have environments of their own"
    )
    parser.add_argument("--samples", type=int, default=256, help="of the search split")
    parser.add_argument("--held-out", type=int, help="samples that results are measured on; the task's number where not given")
    parser.add_argument(
        "--left-over", type=int, default=ALL, help="samples that results are measured on besides, of those that a seed's draws leave over"
    )
    parser.add_argument("--schemes", default="int2g64,int3g64,int4g64,int8g64")
    parser.add_argument("--joint", help="schemes that compete besides, such as int4g64+2:4,int2g64+eora16:8; held against bits alone")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what is found and measured, and go on from what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        for name, seed in itertools.product(arguments.models.split(","), map(int, arguments.seeds.split(","))):
            for each in of_seed(name, seed, folder, arguments):
                found.append(each)
                print(
                    f"{each.case}, seed {each.seed}, {each.bits:g} bits vs {each.rival}: {each.kl[0]:.4g}, {each.kl[1]:.4g}, {verdict(each)}",
                    flush=True,
                )
    if arguments.keep:
        file = arguments.keep / "found.json"  # rows of other runs in this folder stay
        before = [Found(**each) for each in json.loads(file.read_text())] if file.exists() else []
        new = {(each.case, each.seed, each.bits, each.rival): each for each in (*before, *found)}
        found = list(new.values())
        file.write_text(json.dumps([asdict(each) for each in found], indent=1))
    show("Held-out KL, nats; rival's beside ours", rows(found), arguments.json)


def of_seed(name: str, seed: int, folder: Path, arguments: argparse.Namespace) -> Iterator[Found]:
    loaded, task = loaded_case(name)
    task = Drawn(task, seed, arguments.held_out)
    schemes, joint = tuple(arguments.schemes.split(",")), tuple(arguments.joint.split(",")) if arguments.joint else ()
    widths = [float(bits) for bits in arguments.bits.split(",")]
    case = Case(folder, f"{name}-{seed}", loaded, task, schemes, seed, arguments)
    budgets = {bits: float(case.sizes.at(bits)) for bits in widths}
    search, history = case.refined(list(budgets.values()), arguments.plans * len(budgets))
    if joint:
        other = Case(folder, f"{name}-{seed}-joint", loaded, task, (*schemes, *joint), seed, arguments)
        chosen, _ = other.refined(list(budgets.values()), arguments.plans * len(budgets))
        for bits, budget in budgets.items():
            plan = chosen.best(budget), search.best(budget)
            assert plan[0] is not None
            assert plan[1] is not None
            used = {str(scheme): sum(s == scheme for s in plan[0].schemes.values()) for scheme in set(plan[0].schemes.values())}
            ours, theirs = other.held_out(plan[0].schemes), case.held_out(plan[1].schemes)
            note = "layers by scheme: " + ", ".join(f"{used[each]} {each}" for each in sorted(used))
            yield case.found(f"{name}, bits × sparsity × rank", bits, "bits alone", ours, theirs, note=note)
        return
    others = case.rivals(list(budgets.values()))
    evolved_bits = [float(bits) for bits in (arguments.evolved_bits or arguments.bits).split(",")]
    for bits, budget in budgets.items():
        best = search.best(budget)
        assert best is not None
        ours = case.held_out(best.schemes)
        against = {
            "additive": (allocate(case.problem, budget), ""),
            **{name: (plan, "") for name, plan in classics(case.problem, budget, schemes).items()},
            **{rival: at[budget] for rival, at in others.items() if budget in at},
        }
        if "random" in case.rival_names:
            against["random"] = (allocate(random_scores(case.problem, seed), budget, objective="loss_increase"), "")
        uniform = [p for p in case.study.record().plans.values() if p.found_by.startswith(UNIFORM) and p.bytes == int(budget)]
        if uniform:
            against["uniform"] = (uniform[0].schemes, "")
        for rival, (plan, note) in against.items():
            yield case.found(name, bits, rival, ours, case.held_out(plan), note=note)
    for bits in evolved_bits if arguments.generations else ():
        budget, best = budgets[bits], search.best(budgets[bits])
        assert best is not None
        spent, plan = case.evolved(budget, bits, arguments.generations)
        theirs, note = case.held_out(plan), f"{arguments.generations} of its authors' 150 generations"
        ran = history[-1][0] / len(budgets)
        yield case.found(name, bits, "EvoPress", case.held_out(best.schemes), theirs, tokens=(ran, spent), note=note)
        early = [(tokens / len(budgets), at[budget]) for tokens, at in history if tokens / len(budgets) <= TENTH * spent and at[budget]]
        if early:
            rival = "EvoPress, ours stopped at a tenth of its tokens"
            yield case.found(name, bits, rival, case.held_out(early[-1][1]), theirs, tokens=(early[-1][0], spent), note=note)


class Case:
    """One model, one draw of its data and what may be chosen from, with all that was measured of it.

    Args:
        folder: Where studies and measurements are kept.
        name: Of the case.
        loaded: The model.
        task: With its calibration data drawn.
        schemes: What may be chosen.
        seed: Of all draws.
        arguments: Those of the command line.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        loaded: LoadedModel,
        task: Task,
        schemes: Sequence[str],
        seed: int,
        arguments: argparse.Namespace,
    ) -> None:
        config = StudyConfig(
            loaded.id,
            task.name,
            tuple(schemes),
            export_format="paredown",
            budgets=(Scheme.parse(schemes[0]).nominal_bits,),
            held_out_samples=arguments.held_out,
            hessian_seconds=0,
            seed=seed,
        )
        self.seed, self.task, self.rival_names = seed, task, arguments.rivals.split(",")
        self.study = Study(folder / name, config, model=loaded, task=task)
        self.study.run()
        self.session = self.study.session()
        problem = self.study.problem()
        assert problem is not None
        self.problem: Problem = problem
        self.sizes = UniformSizes.of(self.study.record().plans.values())
        self.evaluator = self.session.evaluator
        self.split = SearchSplit(self.evaluator, None, arguments.samples, "kl")
        settings = {
            "schemes": list(schemes),
            "seed": seed,
            "search": self.split.digest,
            "held_out": task.data_digest("held_out", arguments.held_out),
        }
        self.kept = Kept(folder / f"{name}.jsonl" if arguments.keep else None, settings)
        self.tokens = np.concatenate([tokens_of(batch) for batch in self.split.batches])
        """Of each search sample, [samples]."""
        pool = task.batches("calibration", ALL)
        decided = [i for batch in (*task.batches("calibration"), *self.split.batches) for i in batch.ids]
        self.left_over = np.flatnonzero(~np.isin([i for batch in pool for i in batch.ids], decided))[: arguments.left_over]
        """Places in the pool of what decides nothing."""
        self.more = drawn(pool, self.left_over) if len(self.left_over) else []
        self.priced = float(sum(tokens_of(batch).sum() for batch in task.batches("calibration")))

    def refined(self, budgets: Sequence[float], tried: int) -> tuple[Refinement, list[tuple[float, dict[float, Schemes | None]]]]:
        """Measured refinement at all budgets.

        Returns:
            The search, and after each of its batches how many tokens had run, those that price included, and the best plan of each budget.
        """
        search = Refinement(self.problem, budgets, self.split.units, plans=tried, seed=self.seed)
        spent, history = self.priced, []
        while requests := search.ask():
            for request in requests:
                pieces = cut(search.order, search.parts, request.start, request.stop)
                key = "search " + digest(named(request.schemes), request.start, request.stop)
                search.tell(
                    request, self.kept.get(key, lambda r=request, p=pieces: [float(f"{x:.6g}") for x in self.split.losses(r.schemes, p)])
                )
                spent += self.tokens[search.order[request.start : request.stop]].sum()
            bests = {budget: search.best(budget) for budget in search.budgets}
            history.append((float(spent), {budget: best and best.schemes for budget, best in bests.items()}))
        return search, history

    def quick_loss(self, schemes: Schemes) -> float:
        """Of a plan on half of the search split."""
        half = [np.random.default_rng(self.seed).permutation(len(self.split))[: (len(self.split) + 1) // 2]]
        return self.kept.get("half " + digest(named(schemes)), lambda: float(self.split.losses(schemes, half).sum()))

    def held_out(self, schemes: Schemes) -> dict[str, Any]:
        """KL of each held-out sample and of each that is left over, their units and places, and the metric of the former."""

        def measured() -> dict[str, Any]:
            seen = self.session.outcomes(self.session.original(), self.evaluator.observe(self.problem.effective(schemes)))
            kl = [float(f"{each:.6g}") for each in seen.kl]
            return {"kl": kl, "units": seen.units.tolist(), "metric": float(seen.numerator.sum() / seen.denominator.sum())}

        def measured_more() -> dict[str, Any]:
            sizes = [len(batch.ids) for batch in self.more]
            made = self.evaluator.predictions(self.problem.effective(schemes), self.more)
            kl, units = sample_divergences(self.original_of_more, made, sizes)
            return {"kl": [float(f"{each:.6g}") for each in kl], "units": units.tolist()}

        key = digest(named(self.problem.effective(schemes)))
        found = self.kept.get("held out " + key, measured)
        more = self.kept.get(f"left over {len(self.left_over)} {key}", measured_more) if self.more else {"kl": [], "units": []}
        places = [*range(len(found["kl"])), *(self.left_over + len(found["kl"])).tolist()]
        return {**found, "kl": found["kl"] + more["kl"], "units": found["units"] + more["units"], "places": places}

    @functools.cached_property
    def original_of_more(self) -> Sequence[Predictions]:
        """What the original says of the samples that are left over."""
        return self.evaluator.predictions({}, self.more)

    def found(self, name: str, bits: float, rival: str, ours: dict[str, Any], theirs: dict[str, Any], **more: Any) -> Found:
        """Ours beside a rival's."""
        one, other, units = (np.array(values) for values in (ours["kl"], theirs["kl"], ours["units"]))
        gap = difference(one, other, units)
        gaps = [float(f"{each:.6g}") for each in one - other]
        kl = float(one.sum() / units.sum()), float(other.sum() / units.sum())
        metric = "log perplexity" if self.task.metric == "perplexity" else self.task.metric
        sizes = len(self.split), len(units)
        return Found(
            name,
            self.seed,
            bits,
            rival,
            metric,
            kl,
            gap.low,
            gap.high,
            (ours["metric"], theirs["metric"]),
            sizes,
            ours["places"],
            gaps,
            units.tolist(),
            **more,
        )

    def rivals(self, budgets: Sequence[float]) -> dict[str, dict[float, tuple[Schemes, str]]]:
        """What the rivals with environments of their own decide, by rival and budget, and what they took."""
        offered = [Scheme.parse(each).weight for each in self.study.config.schemes]
        (group_size, symmetric), *others = {(each.group_size, each.symmetric) for each in offered if each is not None}
        if others:
            raise ParedownError("expected integers of one group size, all with zero points or all without, which is what the rivals take")
        chosen: dict[str, dict[float, tuple[Schemes, str]]] = {}
        for rival in (each for each in DRIVERS if each in self.rival_names):

            def decided(rival=rival) -> dict[str, Any]:
                bits = [each.bits for each in offered if each is not None]
                batches = self.task.batches("calibration")
                wanted = [int(budget) for budget in budgets]
                made, costs = plans(
                    rival,
                    self.session.loaded,
                    self.session.layers,
                    batches,
                    wanted,
                    self.problem.fixed_bytes,
                    self.seed,
                    bits=bits,
                    group_size=group_size,
                    symmetric=symmetric,
                )
                versions = " ".join(map(" ".join, costs.versions.items()))
                return {"plans": {str(budget): [named(plan) for plan in some] for budget, some in made.items()}, "versions": versions}

            try:
                found = self.kept.get(f"{rival} {digest(list(budgets))}", decided)
            except MissingRivalError as error:
                print(f"left out: {error}", flush=True)
                continue
            for budget in budgets:
                made = [{layer: Scheme.parse(each) for layer, each in plan.items()} for plan in found["plans"][str(int(budget))]]
                fitting = [plan for plan in made if self.problem.predict(plan).bytes <= budget]
                if fitting:
                    chosen.setdefault(NAMES[rival], {})[budget] = (min(fitting, key=self.quick_loss), "")
        return chosen

    def evolved(self, budget: float, bits: float, generations: int) -> tuple[float, Schemes]:
        """What EvoPress finds on the search split: tokens that it ran, and the plan."""
        starts = np.cumsum([0, *(len(batch.ids) for batch in self.split.batches)])
        original: list[Predictions] = []  # asked once

        def fitness(plan: EvoPlan, chosen: np.ndarray) -> float:
            def measured() -> float:
                original[:] = original or self.evaluator.predictions({}, self.split.batches)
                rows = [torch.from_numpy(np.sort(chosen[(chosen >= a) & (chosen < b)]) - a) for a, b in itertools.pairwise(starts)]
                before = [some(made, few) for made, few in zip(original, rows, strict=True) if len(few)]
                after = self.evaluator.predictions(self.problem.decide(plan), drawn(self.split.batches, chosen))
                return float(sample_divergences(before, after)[0].sum() / self.split.units[chosen].sum())

            nonlocal spent
            spent += self.tokens[chosen].sum()
            return self.kept.get("evopress " + digest([int(each) for each in plan], chosen.tolist()), measured)

        spent = 0.0
        run = evopress(self.problem, budget, bits, len(self.split), fitness, self.seed)
        _, parent = next(itertools.islice(run, generations - 1, None))
        return float(spent), self.problem.decide(parent)


def some(made: Predictions, rows: torch.Tensor) -> Predictions:
    """The predictions of some samples of a batch, [rows], rising."""
    mask = torch.isin(made.sample, rows)
    return Predictions(made.logits[mask], None, torch.searchsorted(rows, made.sample[mask]))


def tokens_of(batch: Batch) -> np.ndarray:
    """Tokens of each sample, without padding; of images each counts as one, since they are alike."""
    mask = batch.inputs.get("attention_mask")
    if mask is not None:
        return mask.sum(1).numpy().astype(float)
    ids = batch.inputs.get("input_ids")
    return np.full(len(batch.ids), 1.0 if ids is None else float(ids.shape[1]))


def named(schemes: Schemes) -> dict[str, str]:
    """As JSON holds it."""
    return {layer: str(scheme) for layer, scheme in schemes.items()}


def classics(problem: Problem, budget: float, schemes: Sequence[str]) -> dict[str, Schemes]:
    """The plans of HAWQ-V2 and HAWQ-V3, where they have one."""
    ladder = sorted(map(Scheme.parse, schemes), key=lambda scheme: -scheme.nominal_bits)
    table = compare(problem, budget, classics=[each for each in CLASSICS if each.name in ("HAWQ-V2", "HAWQ-V3")], ladder=ladder)
    return {str(name): plan for name, plan in table["schemes"].items() if plan is not None}


if __name__ == "__main__":
    main()
