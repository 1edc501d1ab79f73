"""Measured refinement on a fake study: trials on a search split, and the plans that became the best of a budget, as a study writes them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fake_study import FakeStudy, measurement
from paredown.search import allocate
from paredown.specs import LayerInteractions, Plan, Scheme, Trial, fused_groups

SAMPLES = 40
SPLIT = "5ea5c45ea5c45ea5"


def trial(plan: Plan, loss: float, start: int = 0, stop: int = SAMPLES) -> Trial:
    """Losses of some samples around a mean; what makes a sample hard is the same for all plans."""
    hard = random.Random(1)
    shares = [0.5 + hard.random() for _ in range(SAMPLES)]
    draw = random.Random(plan.digest)
    losses = [loss * share * (1 + 0.05 * draw.gauss(0, 1)) for share in shares]
    return Trial(plan.digest, SPLIT, "kl", start, tuple(losses[start:stop]))


def steps(study: FakeStudy, budgets: tuple[int, ...] = (3, 4), rounds: int = 4) -> Iterator[None]:
    """At each budget the uniform and the searched plan are tried, then better and better plans by switches of one layer, each measured as it comes."""
    add, problem = study.store.append, study.problem()
    names = [layer.name for layer in study.layers]
    groups = fused_groups(study.layers)
    uniform = {bits: study.plan({name: Scheme.parse(f"int{bits}g64") for name in names}, f"uniform int{bits}g64") for bits in budgets}
    for plan in uniform.values():
        add("fake", "measure", "progress", payload=[trial(plan, plan.loss_increase or 0.0)])
    yield
    tried = 0
    for bits, rival in uniform.items():
        schemes = dict(allocate(problem, rival.bytes))
        now = study.plan(schemes, f"searched at {bits} bits")
        loss = 0.9 * min(now.loss_increase or 0.0, rival.loss_increase or 0.0)
        add("fake", "search", "plan", payload=[now])
        add("fake", "measure", "progress", payload=[trial(now, loss)])
        for step in range(rounds):
            group = groups[1 + (7 * step + bits) % (len(groups) - 2)]
            name, old = f"{group[0]} and {len(group) - 1} more" if len(group) > 1 else group[0], schemes[group[0]]
            new = Scheme.parse("int2g64" if str(old) != "int2g64" else "int3g64")
            schemes = {**schemes, **dict.fromkeys(group, new)}
            loss *= 0.9
            tried += 1
            better = study.plan(schemes, f"refined at {bits} bits, switch of {name} {old} → {new}")
            add("fake", "measure", "progress", payload=[trial(better, loss, 0, SAMPLES // 4)])
            add("fake", "measure", "progress", payload=[trial(better, loss, SAMPLES // 4)])
            add("fake", "measure", "plan", payload=[better])
            add("fake", "measure", "progress", message=f"Refining: {tried} plans tried; {better.found_by}")
            yield
            add("fake", "measure", "measurement", payload=[replace(measurement(better), kl=1.1 * loss, kl_sd=0.1 * loss)])
            yield
    add("fake", "measure", "finished", message="done")


def interactions(study: FakeStudy, groups: int = 12) -> LayerInteractions:
    """Pair terms that fall with the distance of two groups."""
    draw = np.random.default_rng(5)
    names = fused_groups(study.layers)[:groups]
    apart = np.abs(np.subtract.outer(np.arange(groups), np.arange(groups)))
    noise = draw.normal(0, 0.002, (groups, groups))
    pairs = 0.02 * np.exp(-apart) * (-1.0) ** (apart > 1) + (noise + noise.T) / 2
    np.fill_diagonal(pairs, 0)
    deviations = np.full((groups, groups), 0.002)
    rows = [tuple(tuple(map(float, row)) for row in table) for table in (pairs, deviations)]
    return LayerInteractions(
        Scheme.parse("int4g64"),
        names,
        (0.01,) * groups,
        (0.001,) * groups,
        rows[0],
        rows[1],
        "kl",
        SPLIT,
        SAMPLES,
        len(fused_groups(study.layers)),
    )


def refined(study: FakeStudy, **more: int) -> FakeStudy:
    """A study that is over, refined, its interactions measured."""
    for _ in steps(study, **more):  # pyright: ignore[reportArgumentType]
        pass
    groups = min(12, len(fused_groups(study.layers)))
    study.store.append("fake", "measure", "progress", payload=[interactions(study, groups)])
    return study
