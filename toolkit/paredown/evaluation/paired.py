"""Two plans held against each other on the same samples: KL, loss and metric, each with a paired interval, and whether they agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paredown.errors import ParedownError
from paredown.outcomes import Outcomes
from paredown.search.paired import Difference, difference


@dataclass(frozen=True, slots=True)
class Compared:
    """One plan less another, on the same samples; below 0 where the first is better.

    Attributes:
        kl: Of the KL from the original, nats per unit; None where the task offers no predictions.
        loss: Of the task's loss, nats per unit; None where the data has no labels.
        metric: Of the metric, before its transform (the logarithm of a perplexity), turned so that less is better.
        metric_name: Its name.
    """

    kl: Difference | None
    loss: Difference | None
    metric: Difference
    metric_name: str

    @property
    def disagreement(self) -> str:
        """Words for the user where KL is decided one way, and the loss or the metric the other; empty where they are not."""
        if self.kl is None or not self.kl.decided:
            return ""
        against = [
            f"{name} ({found.value:+.3g}, 95 % interval {found.low:+.3g} to {found.high:+.3g})"
            for name, found in (("the loss", self.loss), (f"the {self.metric_name}", self.metric))
            if found is not None and found.decided and (found.value < 0) != (self.kl.value < 0)
        ]
        if not against:
            return ""
        side = "lower" if self.kl.value < 0 else "higher"
        return (
            f"KL to the original is {side} ({self.kl.value:+.3g}, {self.kl.low:+.3g} to {self.kl.high:+.3g}), but {' and '.join(against)}"
            f" says the opposite; KL counts what changed, and noise can lower a loss: choose by what the model is for"
        )


def compare_samples(one: Outcomes, other: Outcomes, *, metric: str, higher_is_better: bool, seed: int = 0) -> Compared:
    """Hold one plan against another.

    Args:
        one: The first.
        other: The second, on the same samples; the original model's has a KL of 0.
        metric: Name of the metric.
        higher_is_better: Its direction.
        seed: Seed of the bootstrap.

    Raises:
        ParedownError: If the two were not measured on the same samples.
    """
    if len(one.numerator) != len(other.numerator) or not np.array_equal(one.units, other.units):
        raise ParedownError(
            f"expected two plans measured on the same samples, got {len(one.numerator)} and {len(other.numerator)}; measure both in one study"
        )
    sign = -1.0 if higher_is_better else 1.0
    return Compared(
        difference(one.kl, other.kl, one.units, seed=seed) if len(one.kl) else None,
        difference(one.loss, other.loss, one.units, seed=seed) if len(one.loss) else None,
        difference(sign * one.numerator, sign * other.numerator, one.denominator, seed=seed),
        metric,
    )
