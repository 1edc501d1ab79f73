r"""Measured refinement: plans are asked for, measured by whoever asks, and told; each answer corrects what is believed of the others.

It starts from the optimum of the additive model at every budget, under the guarded and under the plain loss, and from the uniform plans,
all on all samples. Then in rounds: from the best measured plan of each budget, level switches that keep the budget (as EvoPress,
Sieberling et al., 2024), crossovers with the other optima there, and the optima of costs drawn from the surrogate's posterior
(Thompson, 1933) are held against each other by the improvement that the surrogate expects of them (Jones et al., 1998), relative to what is
there, over all budgets; each next one of a round as if those before it had been measured. The round's plans run on a growing random
part of the samples (successive halving, Jamieson and Talwalkar, 2016), where the better half goes on, compared with the best plan of
their budget sample for sample, and those go that are worse with 99 % confidence. A plan replaces the best one on all samples alone.

The best plan of a budget is always one that was measured on all samples, so it is never worse there than the uniform plans, nor than the
additive optimum. On other samples it may be: measure it again on data that decided nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy.special import ndtr

from paredown.errors import ParedownError
from paredown.search.allocation import best_plan
from paredown.search.constraints import Constraints, narrowed
from paredown.search.front import measured_front
from paredown.search.knapsack import solve
from paredown.search.mutations import crossovers, switches
from paredown.search.paired import lower_bound, standard_error
from paredown.search.problem import Objective, Problem
from paredown.search.resources import Resource
from paredown.search.surrogate import Surrogate, fitted
from paredown.specs import KEEP, Scheme

Origin = Literal["start", "switch", "crossover", "draw"]
"""Where a plan comes from: what the search begins with, a level switch, two plans crossed, or the optimum of drawn costs."""

Choices = tuple[int, ...]

SHARES = (1 / 4, 1 / 2, 1.0)
"""Share of the samples that the plans of a round have run on after each part of it."""

FEWEST = 4
"""A part of fewer samples is left out."""

TRUSTED = 20
"""Samples from which on a plan may be given up because it is worse; fewer skewed values say nothing."""

CONFIDENCE = 0.99
"""How sure that is."""

DRAWS = 4
"""Draws of the surrogate at each budget of a round."""

PER_DRAW = 32
"""Switches that each draw proposes."""

NEGLIGIBLE = 1e-4
"""Expected improvement, as a share of the loss, below which a search ends."""

STARTS: tuple[Objective, ...] = ("guarded_loss", "loss_increase")
"""Whose optima a search begins with."""


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
    """A plan that is better on all samples than all before it at a budget.

    Attributes:
        request: The plan.
        budget: The budget.
        before: The best one until then; None for the first.
        loss: Its loss.
        gain: What it has less than that one; infinite for the first.
        expected: The loss that the surrogate expected; None where it was not asked.
    """

    request: Request
    budget: float
    before: Choices | None
    loss: float
    gain: float
    expected: float | None


@dataclass(eq=False, slots=True)
class _Trial:
    """What is known of a plan, and what was asked."""

    request: Request
    expected: float | None = None
    losses: dict[int, np.ndarray] = field(default_factory=dict)  # by first sample

    @property
    def seen(self) -> int:
        return sum(map(len, self.losses.values()))

    def all(self) -> np.ndarray:
        return np.concatenate([self.losses[start] for start in sorted(self.losses)])


class Refinement:
    """A search that says what to measure next.

    It draws nothing but by its seed and does not depend on the order of the answers within a batch, so that the same answers give the same
    search: one that was interrupted goes on when it is told again what was measured.

    Args:
        problem: The choices.
        budgets: Amounts of the resource, for bytes those of whole files.
        units: Units of each search sample, [samples].
        starts: Plans to begin with besides, layer name to scheme; those that do not hold to the constraints are left out.
        resource: What the budgets limit.
        constraints: What plans must hold to besides.
        plans: How many plans may be tried beyond those that it begins with.
        width: Plans of a round.
        seed: Seed of the samples' order and of all draws.

    Raises:
        ParedownError: If a budget is below the smallest plan (names the locks that stand in the way), there are no budgets or samples,
            or a number is out of range.

    Example:
        >>> while requests := search.ask():  # doctest: +SKIP
        ...     for request in requests:
        ...         search.tell(request, measured(request.schemes, search.order[request.start : request.stop]))
    """

    def __init__(
        self,
        problem: Problem,
        budgets: Sequence[float],
        units: np.ndarray | Sequence[float],
        *,
        starts: Iterable[Mapping[str, Scheme]] = (),
        resource: Resource = "bytes",
        constraints: Constraints | None = None,
        plans: int = 64,
        width: int = 8,
        seed: int = 0,
    ) -> None:
        if not len(budgets) or not len(units) or plans < 0 or width < 1:
            raise ParedownError(
                f"expected budgets, samples, a number of plans of at least 0 and rounds of at least 1, got {len(budgets)}, {len(units)}, {plans} and {width}"
            )
        self.constraints = constraints or Constraints()
        self.problem = narrowed(problem, self.constraints)
        self.resource: Resource = resource
        self.budgets = tuple(sorted({float(budget) for budget in budgets}))
        self.order = np.random.default_rng(seed).permutation(len(units))
        """Which samples come first, [samples]."""
        self.evaluated = 0
        """Samples that were run, over all plans."""
        self.tried = 0
        """Plans beyond those that it began with."""
        self.weights: dict[float, float] = {}
        """How much more an improvement counts at a budget than elsewhere; 1 where nothing is said. May be changed between rounds."""
        self._units = np.asarray(units, float)[self.order]
        self._plans, self._width, self._seed = plans, width, seed
        sizes = [len(offered) for offered in self.problem.schemes]
        self._first = np.append(0, np.cumsum(sizes)[:-1])
        self._owner = np.repeat(np.arange(len(sizes)), sizes)
        self._amounts = np.concatenate(self.problem.amounts(resource)).astype(float)
        self._fixed = self.problem.fixed(resource)
        self._trials: dict[Choices, _Trial] = {}
        self._asked: dict[tuple[Choices, int], Request] = {}
        self._dropped: set[Choices] = set()
        self._round: list[tuple[Choices, float]] = []
        self._rounds = 0
        self._over = False
        ends = sorted({round(share * len(units)) for share in SHARES})
        self.parts: list[int] = [end for end in ends if end >= FEWEST or end == len(units)]
        """Where requests begin and end: after so many samples, rising, the last of them all."""
        self._begin(problem, starts)

    @property
    def rounds(self) -> int:
        """Rounds that were proposed by now."""
        return self._rounds

    def ask(self) -> tuple[Request, ...]:
        """What to measure now, in any order or at once; empty when the search is over, or has been told too little."""
        if not self._asked and not self._over:
            self._advance()
        return tuple(self._asked.values())

    def tell(self, request: Request, losses: np.ndarray | Sequence[float]) -> tuple[Improvement, ...]:
        """Say what was measured.

        Args:
            request: What was asked.
            losses: Of each of its samples, summed over its units, beyond the original model's.

        Returns:
            The budgets that have a better plan now.

        Raises:
            ParedownError: If it was not asked, or the losses are not finite or not as many as there are samples.
        """
        values = np.asarray(losses, float)
        if self._asked.get((request.choices, request.start)) != request:
            raise ParedownError("expected an answer to what was asked and not yet told; ask again")
        if values.shape != (request.stop - request.start,) or not np.isfinite(values).all():
            raise ParedownError(
                f"expected {request.stop - request.start} finite losses, got {values.shape} with {int((~np.isfinite(values)).sum())} that are not; leave the plan out by telling it nothing, or choose another objective"
            )
        trial = self._trials[request.choices]
        before = self._best_places()
        trial.losses[request.start] = values
        self.evaluated += len(values)
        del self._asked[request.choices, request.start]
        if trial.seen < len(self._units):
            return ()
        loss = self.loss(request.choices)
        found = []
        for budget, old in before.items():
            if self._fits(request.choices, budget) and (old is None or loss < self.loss(old)):
                gain = float("inf") if old is None else self.loss(old) - loss
                found.append(Improvement(trial.request, budget, old, loss, gain, trial.expected))
        return tuple(found)

    def drop(self, request: Request) -> None:
        """Go on without a plan that can't be measured."""
        self._asked = {key: other for key, other in self._asked.items() if key[0] != request.choices}
        self._trials.pop(request.choices, None)
        self._dropped.add(request.choices)
        self._round = [pair for pair in self._round if pair[0] != request.choices]

    def loss(self, choices: Choices) -> float:
        """Measured loss per unit of a plan, over the samples that it has run on."""
        losses = self._trials[choices].all()
        return float(losses.sum() / self._units[: len(losses)].sum())

    def losses(self, choices: Choices) -> np.ndarray:
        """Loss of each sample that a plan has run on, in the search's order."""
        return self._trials[choices].all()

    def amount(self, choices: Choices) -> float:
        """What a plan takes of the resource."""
        return self._fixed + float(self._amounts[self._first + np.array(choices)].sum())

    def best(self, budget: float) -> Request | None:
        """The best plan within a budget that was measured on all samples; None where there is none yet."""
        found = self._best(budget)
        return None if found is None else self._trials[found].request

    def front(self) -> list[Request]:
        """The plans measured on all samples that no other beats in both amount and loss, by rising amount."""
        whole = {choices: (self.amount(choices), self.loss(choices)) for choices in self._whole()}
        return [self._trials[choices].request for choices in measured_front(whole)]

    def whole(self) -> list[Request]:
        """The plans that were measured on all samples, in the order in which they were asked."""
        return [self._trials[choices].request for choices in self._whole()]

    def surrogate(self) -> Surrogate | None:
        """What is believed by now; None before anything was measured."""
        seen = [trial for trial in self._trials.values() if trial.seen]
        if not seen:
            return None
        losses, errors = zip(*(self._estimate(trial) for trial in seen), strict=True)
        problem = self.problem
        predicted = np.concatenate(problem.loss_increase)
        deviation = np.concatenate(
            [np.array([sum(c.loss_increase_sd for c in choice) for choice in choices]) for choices in problem.candidates]
        )
        relative = np.divide(deviation, predicted, out=np.zeros_like(predicted), where=predicted > 0).clip(max=1.0)
        means = [predicted, np.concatenate(problem.guarded_loss)]
        plans = np.array([self._first + np.array(trial.request.choices) for trial in seen])
        return fitted(means, relative, self._owner, plans, np.array(losses), np.array(errors))

    # -- beginning

    def _begin(self, problem: Problem, starts: Iterable[Mapping[str, Scheme]]) -> None:
        most = self.budgets[-1]
        begin: dict[Choices, float] = {}
        for budget in self.budgets:
            for objective in STARTS:
                found = best_plan(problem, budget, objective=objective, resource=self.resource, constraints=self.constraints)
                begin.setdefault(self._places(found.schemes) or (), budget)
        everywhere = set.intersection(*(set(offered) for offered in self.problem.schemes)) - {KEEP}
        uniform = [{name: scheme for group in self.problem.groups for name in group} for scheme in sorted(everywhere, key=str)]
        for schemes in (*uniform, *starts):
            choices = self._places(schemes)
            if choices is not None and self._holds(choices) and self._fits(choices, most):
                begin.setdefault(choices, min(budget for budget in self.budgets if self._fits(choices, budget)))
        for choices, budget in begin.items():
            self._add(choices, "start", budget, None)
            self._request(choices, len(self._units))

    def _places(self, schemes: Mapping[str, Scheme]) -> Choices | None:
        """A plan's choices; None where the problem does not offer it."""
        places = []
        for group, offered, choices in zip(self.problem.groups, self.problem.schemes, self.problem.candidates, strict=True):
            wanted = [schemes.get(name, KEEP) for name in group]
            fitting = [
                place
                for place, (scheme, candidates) in enumerate(zip(offered, choices, strict=True))
                if all(each in (scheme, candidate.effective) for each, candidate in zip(wanted, candidates, strict=True))
            ]
            if not fitting:
                return None
            places.append(fitting[0])
        return tuple(places)

    # -- what plans must hold to

    def _fits(self, choices: Choices, budget: float) -> bool:
        return self.amount(choices) <= budget

    def _holds(self, choices: Choices) -> bool:
        most = self.constraints.distinct
        used = {offered[choice] for offered, choice in zip(self.problem.schemes, choices, strict=True)} - {KEEP}
        return most is None or len(used) <= most

    # -- what is known

    def _whole(self) -> list[Choices]:
        return [choices for choices, trial in self._trials.items() if trial.seen == len(self._units)]

    def _best(self, budget: float) -> Choices | None:
        fitting = [choices for choices in self._whole() if self._fits(choices, budget)]
        return min(fitting, key=lambda choices: (self.loss(choices), self.amount(choices)), default=None)

    def _best_places(self) -> dict[float, Choices | None]:
        return {budget: self._best(budget) for budget in self.budgets}

    def _estimate(self, trial: _Trial) -> tuple[float, float]:
        """Loss on all samples and its standard error: of a plan that ran on a part, by its difference to the best one on the same."""
        losses = trial.all()
        n, units = len(losses), self._units[: trial.seen]
        best = self._best(trial.request.budget)
        if n == len(self._units) or best is None:
            return float(losses.sum() / units.sum()), standard_error(losses, units, len(self._units))
        gaps = losses - self._trials[best].all()[:n]
        return self.loss(best) + float(gaps.sum() / units.sum()), standard_error(gaps, units, len(self._units))

    # -- rounds

    def _add(self, choices: Choices, origin: Origin, budget: float, expected: float | None) -> None:
        request = Request(choices, self.problem.decide(choices), origin, budget, 0, len(self._units))
        self._trials[choices] = _Trial(request, expected)

    def _request(self, choices: Choices, stop: int) -> None:
        trial = self._trials[choices]
        request = replace(trial.request, start=trial.seen, stop=stop)
        self._asked[choices, request.start] = request

    def _advance(self) -> None:
        while not self._asked and not self._over:
            if self._round:
                self._go_on()
            elif self.tried < self._plans:
                self._propose()
            else:
                self._over = True

    def _go_on(self) -> None:
        """Halve the round, and ask for more of those that are left."""
        seen = self._trials[self._round[0][0]].seen
        if seen == len(self._units):
            self._round = []
            return
        if seen:
            ranked = []
            for choices, budget in self._round:
                best = self._best(budget)
                assert best is not None
                gaps = self._trials[choices].all() - self._trials[best].all()[:seen]
                mean, bound = lower_bound(gaps, self._units[:seen], len(self._units), CONFIDENCE)
                if seen < TRUSTED or bound <= 0:
                    ranked.append((mean / max(abs(self.loss(best)), np.finfo(float).tiny), choices, budget))
            ranked.sort(key=lambda each: each[0])
            self._round = [(choices, budget) for _, choices, budget in ranked[: -(-len(self._round) // 2)]]
        stop = next(end for end in self.parts if end > seen)
        for choices, _ in self._round:
            self._request(choices, stop)

    def _propose(self) -> None:
        surrogate = self.surrogate()
        bests = {budget: best for budget, best in self._best_places().items() if best is not None}
        if surrogate is None or not bests:
            self._over = True
            return
        draw = np.random.default_rng([self._seed, self._rounds])
        self._rounds += 1
        pool = [each for budget, best in bests.items() for each in self._pool(surrogate, budget, best, draw)]
        plans = np.array([self._first + np.array(choices) for choices, _, _ in pool]).reshape(len(pool), len(self._first))
        losses = np.array([self.loss(bests[budget]) for _, _, budget in pool])
        weights = np.array([self.weights.get(budget, 1.0) for _, _, budget in pool])
        taken = np.zeros(len(pool), bool)
        while len(self._round) < min(self._width, self._plans - self.tried) and not taken.all():
            expected, mean = _improvement(surrogate, plans, losses)
            expected[taken] = -np.inf
            worth = np.where(expected > NEGLIGIBLE, weights * expected, -np.inf)
            at = int(worth.argmax())
            if worth[at] == -np.inf:
                break
            choices, origin, budget = pool[at]
            taken |= (plans == plans[at]).all(1)
            self._add(choices, origin, budget, float(surrogate.response.measured(mean[at])))
            self._round.append((choices, budget))
            surrogate = surrogate.believing(plans[at])
        self.tried += len(self._round)
        self._over = not self._round

    def _pool(self, surrogate: Surrogate, budget: float, best: Choices, draw: np.random.Generator) -> list[tuple[Choices, Origin, float]]:
        """Plans that were never tried, for one budget."""
        now = self._first + np.array(best)
        most = budget - self._fixed
        room = most - self._amounts[now].sum()
        expected = surrogate.costs(now)
        drawn = [surrogate.draw(draw) for _ in range(DRAWS)]
        made: dict[Choices, Origin] = {}

        def take(plans: np.ndarray, origin: Origin) -> None:
            for plan in plans:
                choices = tuple(int(each) for each in plan - self._first)
                if choices not in self._trials and choices not in self._dropped and self._fits(choices, budget) and self._holds(choices):
                    made.setdefault(choices, origin)

        for costs in (expected, *drawn):
            take(switches(now, costs, self._amounts, self._owner, room, PER_DRAW), "switch")
            solved = solve(np.split(costs, self._first[1:]), np.split(self._amounts, self._first[1:]), most)
            take((self._first + solved.choices)[None], "draw")
        for other in self._whole():
            if self._trials[other].request.budget == budget and other != best:
                take(crossovers(now, self._first + np.array(other), self._amounts, most, 8, draw), "crossover")
        return [(choices, origin, budget) for choices, origin in made.items()]


def _improvement(surrogate: Surrogate, plans: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected improvement on what is there, as a share of it, and expected s, [n] each; what a plan has of its own counts as spread."""
    mean, spread = surrogate.predict(plans)
    there = surrogate.response.additive(losses)
    spread = np.sqrt(spread**2 + (surrogate.misfit * mean) ** 2).clip(min=np.finfo(float).tiny)
    z = (there - mean) / spread
    expected = (there - mean) * ndtr(z) + spread * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    scale = np.abs(there)
    return expected / np.where(scale > 0, scale, max(float(np.median(scale)), np.finfo(float).tiny)), mean
