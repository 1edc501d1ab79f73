"""Lower layers until a target is just met: bisection along an order of sensitivity (after Schaefer et al., 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paredown.errors import ParedownError


@dataclass(frozen=True, slots=True)
class Lowered:
    """The plan that bisection ended with.

    Attributes:
        levels: Of each layer how often it was lowered; 0 leaves it as it was.
        value: The metric of that very plan.
        evaluations: How many plans were evaluated for each level.
        note: What to be wary of, such as a metric that never moved; empty where nothing.
    """

    levels: tuple[int, ...]
    value: float
    evaluations: tuple[int, ...]
    note: str = ""


def lower_to_target(
    order: Sequence[int],
    levels: int,
    evaluate: Callable[[tuple[int, ...]], float],
    *,
    baseline: float,
    target: float,
    higher_is_better: bool = False,
) -> Lowered:
    r"""Lower as many layers as the target allows, level after level.

    At each level the longest prefix of the order is sought, among the layers that the level before lowered, that can go one further:
    \(\lceil \log_2(n + 1) \rceil\) evaluations for n layers. Metrics are not quite monotone, so the prefix may not be the very longest;
    but the plan that is returned was itself evaluated, or is the original, so that it meets the target on that data by construction.
    What it reaches on other data must be measured there.

    Args:
        order: Layers by rising sensitivity, 0 to n - 1.
        levels: How often a layer may be lowered, such as 3 for 8, 4 and 2 bits.
        evaluate: The metric of a plan that is given by its levels.
        baseline: The metric of the original.
        target: The worst value that will do.
        higher_is_better: Of the metric.

    Returns:
        The plan.

    Raises:
        ParedownError: If the baseline is not finite or misses the target, or the order is no order of the layers.
    """
    if sorted(order) != list(range(len(order))):
        raise ParedownError(f"expected each layer 0 to {len(order) - 1} once in the order, got {list(order)}")
    if not math.isfinite(baseline):
        raise ParedownError(f"the metric of the original is {baseline}; look for missing labels, or choose another metric")

    def meets(value: float) -> bool:
        return math.isfinite(value) and (value >= target if higher_is_better else value <= target)

    if not meets(baseline):
        side = "above" if higher_is_better else "below"
        raise ParedownError(f"the target {target:g} is {side} what the original reaches, {baseline:g}; ask for no more than that")
    plan, value = (0,) * len(order), baseline
    candidates, counts, seen = list(order), [], set()
    for _ in range(levels):
        low, high, count = 0, len(candidates), 0
        before, best = plan, (plan, value)
        while low < high:
            middle = (low + high + 1) // 2
            lowered = frozenset(candidates[:middle])
            trial = tuple(level + (layer in lowered) for layer, level in enumerate(before))
            result = evaluate(trial)
            count += 1
            seen.add(result)
            if meets(result):
                low, best = middle, (trial, result)
            else:
                high = middle - 1
        plan, value = best
        counts.append(count)
        candidates = candidates[:low]
    note = f"the metric was {baseline:g} for every plan that was tried, so that it may not tell plans apart" if seen == {baseline} else ""
    return Lowered(plan, value, tuple(counts), note)
