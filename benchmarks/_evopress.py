"""EvoPress (Sieberling et al., 2024): evolutionary search by level switches, written after the paper and its code's defaults for quantization.

Each generation makes 128 offspring of one parent: one to three times (the smaller of two throws) a layer goes down a level and another of
its size goes up. Survivors of a few random tokens go on to more: 16, then 4, then 1, on 1/256, 1/32 and 1/4 of the calibration data
(2k, 16k and 131k of 524k tokens); the parent joins the last selection. It starts from the uniform plan, or between two widths from the best
of 16 random ones. What is fused is one layer here, and a plan never exceeds the budget in true bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from paredown.search import Problem
from paredown.specs import KEEP

OFFSPRING = 128
SURVIVORS = (16, 4, 1)
SHARES = (1 / 256, 1 / 32, 1 / 4)
INITIAL, INITIAL_SHARE = 16, 1 / 32

Plan = tuple[int, ...]
Fitness = Callable[[Plan, np.ndarray], float]
"""Mean KL of a plan on the samples of those numbers."""


def evopress(problem: Problem, budget: float, start: float, samples: int, fitness: Fitness, seed: int) -> Iterator[tuple[int, Plan]]:
    """Search on and on.

    Args:
        problem: The choices.
        budget: Most bytes of the file.
        start: Bits of the uniform start, or between two of them.
        samples: Number of calibration samples.
        fitness: Measures.
        seed: Of all draws.

    Yields:
        After each generation: how many samples were run by then, over all plans, and the parent.
    """
    draw = random.Random(seed)
    levels = [
        sorted((each for each in range(len(offered)) if offered[each] != KEEP), key=lambda place, o=offered: o[place].nominal_bits)
        for offered in problem.schemes
    ]
    sizes: dict[tuple[int, ...], list[int]] = {}
    for group, taken in enumerate(problem.bytes):
        sizes.setdefault(tuple(int(each) for each in taken), []).append(group)
    members = list(sizes.values())
    spent = 0

    def amount(plan: Sequence[int]) -> float:
        return problem.fixed_bytes + sum(int(taken[choice]) for taken, choice in zip(problem.bytes, plan, strict=True))

    def moved(plan: list[int], group: int, step: int) -> bool:
        place = levels[group].index(plan[group]) + step
        if not 0 <= place < len(levels[group]):
            return False
        plan[group] = levels[group][place]
        return True

    def some_group() -> list[int]:
        return draw.choices(members, weights=[len(each) for each in members])[0]

    def selected(plans: list[Plan], survivors: int, share: float) -> list[Plan]:
        nonlocal spent
        count = max(1, round(share * samples))
        chosen = np.array(draw.sample(range(samples), count))
        spent += count * len(plans)
        ranked = sorted((fitness(plan, chosen), place) for place, plan in enumerate(plans))
        return [plans[place] for _, place in ranked[:survivors]]

    def uniform(bits: float) -> list[int]:
        return [
            min((each for each in level if offered[each].nominal_bits >= bits), key=lambda each, o=offered: o[each].nominal_bits)
            for level, offered in zip(levels, problem.schemes, strict=True)
        ]

    if amount(uniform(start)) <= budget:
        parent = tuple(uniform(start))
    else:
        begun = []
        for _ in range(INITIAL):
            plan = uniform(start)
            while amount(plan) > budget:
                moved(plan, draw.choice(some_group()), -1)
            begun.append(tuple(plan))
        parent = selected(begun, 1, INITIAL_SHARE)[0]
    while True:
        offspring: list[Plan] = []
        for _ in range(100 * OFFSPRING):  # small problems have fewer
            plan = list(parent)
            for _ in range(min(draw.randint(1, 3), draw.randint(1, 3))):
                group = some_group()
                down = [each for each in group if levels[each].index(plan[each]) > 0]
                up = [each for each in group if levels[each].index(plan[each]) < len(levels[each]) - 1]
                if down and up:
                    moved(plan, draw.choice(down), -1)
                    moved(plan, draw.choice(up), 1)
            made = tuple(plan)
            if made != parent and made not in offspring and amount(made) <= budget:
                offspring.append(made)
            if len(offspring) == OFFSPRING:
                break
        for survivors, share in zip(SURVIVORS, SHARES, strict=True):
            if survivors == SURVIVORS[-1] and parent not in offspring:
                offspring.append(parent)
            offspring = selected(offspring, survivors, share)
        parent = offspring[0]
        yield spent, parent
