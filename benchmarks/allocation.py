"""Held-out damage at equal bytes: our allocation against uniform, random and ‖ΔW‖² ones, on the four demos.

All of them choose among the same candidates, at the bytes of the uniform plans (between them, where the bits are no whole number),
with fused groups decided together, and are measured on the same held-out samples. ``python benchmarks/allocation.py --help``.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch

from _rows import Row, options, row, show
from paredown.layers import weight_of
from paredown.methods import compress, dequantize
from paredown.search import Problem, allocate
from paredown.specs import KEEP, Measurement, Plan, StudyConfig
from paredown.study import Study
from paredown.study.steps import UniformSizes

BITS = (2.5, 3.0, 4.0)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--demos", default="sentiment,vision,speech,lm")
    parser.add_argument(
        "--format", default="auto", choices=["auto", "compressed-tensors", "paredown"], help="export format, whose schemes are offered"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--studies", type=Path, help="keep the studies in this folder, and go on with those that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        rows = [
            each
            for demo in arguments.demos.split(",")
            for each in of_demo(demo, arguments.format, arguments.seed, (arguments.studies or Path(temporary)) / demo)
        ]
    show("Held-out KL to the original, nats; accuracy or word error rate or perplexity; share of flipped predictions", rows, arguments.json)


def of_demo(demo: str, export_format: str, seed: int, folder: Path) -> list[Row]:
    config = StudyConfig(model=f"demo:{demo}", task=f"demo:{demo}", export_format=export_format, budgets=BITS, hessian_seconds=0, seed=seed)  # pyright: ignore[reportArgumentType]
    study = Study(folder, config)
    study.run()
    problem = study.problem()
    assert problem is not None
    session = study.session()
    sizes = UniformSizes.of(study.record().plans.values())
    rivals = {"random": random_scores(problem, seed), "‖ΔW‖²": weight_errors(study, problem)}
    rows: list[Row] = []
    for bits in BITS:
        ours = measured(study, f"searched at {bits:g} bits")
        against = {
            name: measured(study, f"{name} at {bits:g} bits", allocate(scored, sizes.at(bits), objective="loss_increase"))
            for name, scored in rivals.items()
        }
        if bits == int(bits):
            against["uniform"] = measured(
                study, next(f"uniform {scheme}" for scheme in session.schemes if scheme.startswith(f"int{bits:g}"))
            )
        for name, rival in against.items():
            rows += compared(f"{demo} {bits:g} bits vs {name}", ours, rival)
    return rows


def compared(name: str, ours: Measurement, rival: Measurement) -> list[Row]:
    assert ours.kl is not None
    assert rival.kl is not None
    assert ours.flips is not None
    assert rival.flips is not None
    better = "more" if ours.metric.higher_is_better else "less"
    return [
        row(f"{name}: KL", ours.kl, "nats", rival.kl),
        row(f"{name}: {ours.metric.name}", ours.metric.value, "", rival.metric.value, better=better),
        row(f"{name}: flips", ours.flips, "share", rival.flips),
    ]


def measured(study: Study, found_by: str, schemes: dict | None = None) -> Measurement:
    """The measurement of a plan that the run found, or of one that is measured now."""
    if schemes is not None:
        plan = study.measure(schemes, found_by=found_by)
        study.wait()
    else:
        plan = _same(study, found_by)
    return study.record().measurements[plan.digest]


def _same(study: Study, found_by: str) -> Plan:
    """The plan of that name, or, where the search came to the very plan that was there already, the best one of its size."""
    plans = study.record().plans.values()
    named = [plan for plan in plans if plan.found_by == found_by]
    if named:
        return named[0]
    limit = UniformSizes.of(plans).at(float(found_by.split()[2]))
    return min((plan for plan in plans if plan.bytes <= limit), key=lambda plan: plan.loss_increase or 0)


def random_scores(problem: Problem, seed: int) -> Problem:
    """Sensitivities drawn at random, falling fourfold with each bit as rounding errors do."""
    draw = np.random.default_rng(seed)
    return dataclasses.replace(
        problem,
        loss_increase=tuple(
            draw.lognormal(sigma=2) * np.array([0.0 if scheme == KEEP else 4.0**-scheme.weight.bits for scheme in offered])
            for offered in problem.schemes
        ),
    )


def weight_errors(study: Study, problem: Problem) -> Problem:
    """‖ΔW‖² of each choice, summed over the layers of its group."""
    session = study.session()
    weights = {layer.name: weight_of(session.loaded.model, layer) for layer in session.layers}

    def error(name: str, scheme) -> float:
        return 0.0 if scheme == KEEP else float((dequantize(compress(weights[name], scheme)) - weights[name]).square().sum())

    return dataclasses.replace(
        problem,
        loss_increase=tuple(
            np.array([sum(error(candidate.layer, candidate.effective) for candidate in choice) for choice in choices])
            for choices in problem.candidates
        ),
    )


if __name__ == "__main__":
    main()
