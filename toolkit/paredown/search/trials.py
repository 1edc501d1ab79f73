"""What a search asks to be measured, what it is told, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from paredown.search.proposals import Origin
from paredown.specs import Scheme

Choices = tuple[int, ...]
"""Place of each group's choice among those that it is offered."""


@dataclass(frozen=True, slots=True)
class Request:
    """A plan to run on some of the samples.

    Attributes:
        choices: Place of each group's choice in the search's problem.
        schemes: The same by layer, as asked.
        origin: Where it comes from.
        budget: What it is meant for.
        start: The first sample, in the search's own order (`Refinement.order`).
        stop: The one after the last.
    """

    choices: Choices
    schemes: Mapping[str, Scheme]
    origin: Origin
    budget: float
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Improvement:
    """A plan that is believed to be better than all before it at a budget.

    Attributes:
        request: The plan.
        budget: The budget.
        before: The best one until then; None for the first.
        loss: Its loss on other samples, as believed by now.
        gain: What it has less than that one, as believed by now; infinite for the first.
        expected: The loss that the surrogate expected; None where it was not asked.
    """

    request: Request
    budget: float
    before: Choices | None
    loss: float
    gain: float
    expected: float | None


@dataclass(eq=False, slots=True)
class Trial:
    """What is known of a plan, and what was asked.

    Attributes:
        request: The plan, as first asked.
        expected: The loss that the surrogate expected; None where it was not asked.
        losses: What was told, each part by its first sample, [samples of the part].
    """

    request: Request
    expected: float | None = None
    losses: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """Samples that it has run on."""
        return sum(map(len, self.losses.values()))

    def all(self) -> np.ndarray:
        """Loss of each of these, in the search's order, [seen]."""
        return np.concatenate([self.losses[start] for start in sorted(self.losses)])
