"""Exact search of the additive model: CPU time against HiGHS and against plain dynamic programming, and what is certain.

The problems have the shapes and exact bytes of a language model's layers under real schemes, and sensitivities drawn at random over a
thousandfold range. Budgets lie where allocation matters, between the smallest plan and 6 bits. ``python benchmarks/search_exact.py --help``.
"""

from __future__ import annotations

import statistics

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from _rows import Row, options, row, show, spent
from paredown.search import Constraints, Problem, best_plan, pareto_front
from paredown.sizes import fit, layer_bytes
from paredown.specs import KEEP, Candidate, LayerRef, Scheme

FORTY = [
    *(f"int{bits}g{group}" for bits in (2, 3, 4, 5, 6, 8) for group in (16, 32, 64, 128)),
    *(f"nf{bits}g64" for bits in (2, 3, 4)),
    *(f"int{bits}g64+2:4" for bits in (2, 3, 4)),
    *(f"int{bits}g64+svd{rank}" for bits in (2, 3, 4) for rank in (8, 32)),
    *("int4", "int8", "int4g128sym", "keep"),
]
EIGHT = ["int2g64", "int3g64", "int4g64", "int8g64", "int3g128", "int4g32", "int4g128", "keep"]


def problem_of(layers: int, names: list[str], seed: int, width: int = 1024) -> Problem:
    """Blocks of grouped-query attention and a gated MLP; errors fall fourfold a bit, sensitivities are log-normal."""
    draw = np.random.default_rng(seed)
    inner = 11 * width // 4
    shapes = {"q": (width, width), "k": (width // 4, width), "v": (width // 4, width), "o": (width, width)}
    shapes |= {"gate": (inner, width), "up": (inner, width), "down": (width, inner)}
    schemes = [Scheme.parse(name) for name in names]
    refs, candidates = [], {}
    for index in range(layers):
        role, shape = list(shapes.items())[index % len(shapes)]
        ref = LayerRef(f"model.layers.{index // len(shapes)}.{role}", "linear", role, "", shape, "bfloat16")
        harm = ref.parameters * draw.lognormal(sigma=1.5) * 1e-6
        refs.append(ref)
        candidates[ref.name] = {
            scheme: Candidate(
                ref.name,
                scheme,
                scheme,
                layer_bytes(ref, fit(scheme, ref)[0]),
                0.0 if scheme == KEEP else float(harm * 4.0**-scheme.nominal_bits * draw.lognormal(sigma=0.3)),
                0.0,
                0.0,
            )
            for scheme in schemes
        }
    return Problem.of(0, refs, candidates, fuse=False)


def budgets_of(problem: Problem, count: int) -> list[int]:
    six_bits = sum(layer.parameters for layer in problem.layers.values()) * 6 // 8
    return [int(each) for each in np.linspace(problem.smallest_bytes, six_bits, count + 2)[1:-1]]


def by_highs(problem: Problem, budget: int) -> float:
    costs = np.concatenate(problem.loss_increase)
    owner = np.repeat(np.arange(len(problem.groups)), [len(size) for size in problem.bytes])
    each = csr_array((np.ones(len(owner)), (owner, np.arange(len(owner)))))
    taken = np.concatenate(problem.bytes)[None] / budget
    solved = milp(
        costs / costs.max(),
        integrality=np.ones(len(owner)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(each, 1, 1), LinearConstraint(taken, -np.inf, 1)],
        options={"mip_rel_gap": 1e-6},
    )
    return float(solved.fun * costs.max())


def plain_front(problem: Problem) -> np.ndarray:
    """Nemhauser and Ullmann (1969) without bounds: sizes of the whole front."""
    size, loss = np.zeros(1, np.int64), np.zeros(1)
    for more, harm in zip(problem.bytes, problem.loss_increase, strict=True):
        sizes, losses = (size[:, None] + more).ravel(), (loss[:, None] + harm).ravel()
        order = np.lexsort((losses, sizes))
        kept = order[losses[order] < np.append(np.inf, np.minimum.accumulate(losses[order])[:-1])]
        size, loss = sizes[kept], losses[kept]
    return size


def one_budget(layers: int, names: list[str], seeds: int, count: int) -> list[Row]:
    ours, theirs, proven, ahead = [], [], 0, []
    for seed in range(seeds):
        problem = problem_of(layers, names, seed)
        for budget in budgets_of(problem, count):
            seconds, found = spent(lambda p=problem, b=budget: best_plan(p, b, objective="loss_increase"))
            rival_seconds, rival = spent(lambda p=problem, b=budget: by_highs(p, b))
            ours.append(1000 * seconds)
            theirs.append(1000 * rival_seconds)
            proven += found.bound >= found.cost
            ahead.append(found.cost / rival)
    what = f"{layers} layers x {len(names)} schemes"
    return [
        row(f"one budget, {what}, median; HiGHS to a gap of 1e-6", statistics.median(ours), "ms", statistics.median(theirs)),
        row(f"one budget, {what}, slowest; HiGHS", max(ours), "ms", max(theirs)),
        row(f"one budget, {what}, proven optimal", proven / len(ours), "share"),
        row(f"one budget, {what}, largest loss relative to HiGHS's", max(ahead), ""),
    ]


def fronts(seeds: int) -> list[Row]:
    rows = []
    for layers in (26, 60):
        problem = problem_of(layers, EIGHT, 0, width=384)
        seconds, front = spent(lambda p=problem: pareto_front(p))
        plain_seconds, sizes = spent(lambda p=problem: plain_front(p))
        assert front.exact
        assert len(front) == len(sizes)
        rows.append(row(f"whole front, {layers} x 8, {len(front):,} plans; plain dynamic programming", seconds, "s", plain_seconds))
    times, gaps, points, above, narrow, inside = [], [], [], [], [], []
    for seed in range(seeds):
        problem = problem_of(300, FORTY, seed)
        seconds, front = spent(lambda p=problem: pareto_front(p, tolerance=0.01))
        times.append(seconds)
        gaps.append(float(front.gaps.max()))
        points.append(len(front))
        for budget in budgets_of(problem, 10):
            index = front.within(budget)
            assert index is not None
            above.append(float(front.loss[index]) / best_plan(problem, budget, objective="loss_increase").cost - 1)
        middle = budgets_of(problem, 1)[0]
        seconds, part = spent(lambda p=problem, m=middle: pareto_front(p, between=(0.995 * m, 1.005 * m)))
        assert part.exact
        narrow.append(seconds)
        inside.append(len(part))
    what = "front, 300 x 40"
    return [
        *rows,
        row(f"{what}, tolerance 1 %, median (bar 1 s)", statistics.median(times), "s"),
        row(f"{what}, tolerance 1 %, slowest", max(times), "s"),
        row(f"{what}, plans, median", statistics.median(points), ""),
        row(f"{what}, largest gap that is not ruled out", max(gaps), "share"),
        row(f"{what}, above the optimum at {len(above)} budgets, largest", max(above), "share"),
        row(f"{what}, every plan within 0.5 % of a budget, median (bar 1 s)", statistics.median(narrow), "s"),
        row(f"{what}, every plan within 0.5 % of a budget, slowest", max(narrow), "s"),
        row(f"{what}, every plan within 0.5 % of a budget: plans, median", statistics.median(inside), ""),
    ]


def few(seeds: int) -> list[Row]:
    rows = []
    for distinct in (2, 3):
        found = []
        for seed in range(seeds):
            problem = problem_of(300, FORTY, seed)
            budget = budgets_of(problem, 1)[0]
            found.append(
                spent(
                    lambda p=problem, b=budget, k=distinct: best_plan(p, b, objective="loss_increase", constraints=Constraints(distinct=k))
                )
            )
            assert found[-1][1].bound >= found[-1][1].cost
        rows.append(
            row(f"one budget, 300 x 40, the best {distinct} schemes of 39, exact, median", statistics.median(f[0] for f in found), "s")
        )
    return rows


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    rows = [
        *one_budget(60, EIGHT, arguments.seeds, 5),
        *one_budget(300, FORTY, arguments.seeds, 5),
        *fronts(arguments.seeds),
        *few(arguments.seeds),
    ]
    show("Additive search, CPU time", rows, arguments.json)


if __name__ == "__main__":
    main()
