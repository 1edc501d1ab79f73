r"""Measured refinement: plans are asked for, measured by whoever asks, and told; each answer corrects what is believed of the others.

It starts from the optima of the additive models at every budget (`STARTS`: the guarded and the plain loss, and the classics whose scores are
at hand; where schemes prune or correct by low rank, from those of number formats alone too), and from the uniform plans, all on all samples. Then in rounds: from the best plan of each budget, level switches that keep the
budget (as EvoPress, Sieberling et al., 2024), crossovers with the other plans there, and the optima of costs drawn from the surrogate's posterior
(Thompson, 1933) are held against each other by the improvement that the surrogate expects of them (`proposals`), relative to what is
there, over all budgets. The round's plans run on a growing random
part of the samples (successive halving, Jamieson and Talwalkar, 2016), where the half that is believed to be better goes on, and those go
that are worse than the best plan of their budget, sample for sample, with 99 % confidence.

The best plan of a budget is the one that is believed to lose least on other samples, of those that were measured on all: the posterior
mean given all that was measured and the covariance of what the samples leave open (`Surrogate.believed`). The least of many measured
means would be the luckiest plan: hundreds of samples leave 10 % of a loss open, which is what good plans differ by. With samples that agree
it is the plan measured best. It is never one that was measured to be worse than a uniform plan within the budget.
What it loses is known by data that decided nothing: measure it again there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from paredown.errors import ParedownError
from paredown.search.allocation import best_plan
from paredown.search.classics import CLASSICS, ladder_of, plan_of
from paredown.search.constraints import Constraints, narrowed
from paredown.search.front import measured_front
from paredown.search.paired import lower_bound
from paredown.search.problem import Objective, Problem
from paredown.search.proposals import Origin, Proposal, around, selected
from paredown.search.resources import Resource
from paredown.search.sampling import estimates
from paredown.search.surrogate import Surrogate, fitted, predictions
from paredown.search.trials import Choices, Improvement, Request, Trial
from paredown.specs import KEEP, Scheme

SHARES = (1 / 4, 1 / 2, 1.0)
"""Share of the samples that the plans of a round have run on after each part of it."""

FEWEST = 4
"""A part of fewer samples is left out."""

TRUSTED = 20
"""Samples from which on a plan may be given up because it is worse; fewer skewed values say nothing."""

CONFIDENCE = 0.99
"""How sure that is."""

STARTS: tuple[Objective, ...] = (
    "guarded_loss",
    "loss_increase",
    "trace",
    "fisher",
    "kfac",
    "ekfac",
    "modelopt",
    "delta_loss",
    "measured_loss",
)
"""Whose optima a search begins with, and which may be the surrogate's prior; all but the first two where they are at hand."""


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
        self._means, self._relative_sd = predictions(self.problem, STARTS)
        self._trials: dict[Choices, Trial] = {}
        self._asked: dict[tuple[Choices, int], Request] = {}
        self._dropped: set[Choices] = set()
        self._uniform: set[Choices] = set()
        self._round: list[tuple[Choices, float]] = []
        self._surrogate: Surrogate | None = None
        self._believed: dict[Choices, float] = {}
        self._bests: dict[float, Choices | None] = dict.fromkeys(self.budgets)
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
            The budgets that have a better plan now; they are looked at when all that was asked is answered.

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
        self._trials[request.choices].losses[request.start] = values
        self.evaluated += len(values)
        del self._asked[request.choices, request.start]
        return self._settle()

    def drop(self, request: Request) -> tuple[Improvement, ...]:
        """Go on without a plan that can't be measured; returns what `tell` does."""
        self._asked = {key: other for key, other in self._asked.items() if key[0] != request.choices}
        self._trials.pop(request.choices, None)
        self._dropped.add(request.choices)
        self._round = [pair for pair in self._round if pair[0] != request.choices]
        return self._settle()

    def loss(self, choices: Choices) -> float:
        """Measured loss per unit of a plan, over the samples that it has run on."""
        losses = self._trials[choices].all()
        return float(losses.sum() / self._units[: len(losses)].sum())

    def believed(self, choices: Choices) -> float:
        """What a measured plan is believed to lose on other samples, per unit; as of the last batch that was answered whole."""
        return self._believed[choices]

    def losses(self, choices: Choices) -> np.ndarray:
        """Loss of each sample that a plan has run on, in the search's order."""
        return self._trials[choices].all()

    def amount(self, choices: Choices) -> float:
        """What a plan takes of the resource."""
        return self._fixed + float(self._amounts[self._first + np.array(choices)].sum())

    def best(self, budget: float) -> Request | None:
        """The best plan within a budget; None where there is none yet."""
        found = self._best(budget)
        return None if found is None else self._trials[found].request

    def front(self) -> list[Request]:
        """The plans measured on all samples that no other beats in both amount and what it is believed to lose, by rising amount."""
        whole = {choices: (self.amount(choices), self._believed[choices]) for choices in self._whole() if choices in self._believed}
        return [self._trials[choices].request for choices in measured_front(whole)]

    def whole(self) -> list[Request]:
        """The plans that were measured on all samples, in the order in which they were asked."""
        return [self._trials[choices].request for choices in self._whole()]

    def surrogate(self) -> Surrogate | None:
        """What is believed as of the last batch that was answered whole; None before the first."""
        return self._surrogate

    # -- beginning

    def _begin(self, problem: Problem, starts: Iterable[Mapping[str, Scheme]]) -> None:
        most = self.budgets[-1]
        begin: dict[Choices, float] = {}
        ladder = ladder_of(self.problem)
        alone = _formats_alone(problem)
        for budget in self.budgets:
            plans = [self._optimum(problem, budget, objective) for objective in STARTS[:2]]
            if alone is not None:
                with contextlib.suppress(ParedownError):  # none of them is small enough
                    plans += [self._optimum(alone, budget, objective) for objective in STARTS[:2]]
            for classic in (each for each in CLASSICS if each.objective in STARTS[2:]):
                with contextlib.suppress(ParedownError):  # its scores are not at hand
                    plans.append(plan_of(classic, problem, budget, ladder=ladder, resource=self.resource, constraints=self.constraints))
            for choices in map(self._places, plans):
                if choices is not None and self._holds(choices):
                    begin.setdefault(choices, budget)
        everywhere = set.intersection(*(set(offered) for offered in self.problem.schemes)) - {KEEP}
        uniform = [{name: scheme for group in self.problem.groups for name in group} for scheme in sorted(everywhere, key=str)]
        self._uniform = {choices for choices in map(self._places, uniform) if choices is not None}
        for schemes in (*uniform, *starts):
            choices = self._places(schemes)
            if choices is not None and self._holds(choices) and self._fits(choices, most):
                begin.setdefault(choices, min(budget for budget in self.budgets if self._fits(choices, budget)))
        for choices, budget in begin.items():
            self._add(choices, "start", budget, None)
            self._request(choices, len(self._units))

    def _optimum(self, problem: Problem, budget: float, objective: Objective) -> Mapping[str, Scheme]:
        return best_plan(problem, budget, objective=objective, resource=self.resource, constraints=self.constraints).schemes

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
        if most is None:
            return True
        used = {offered[choice] for offered, choice in zip(self.problem.schemes, choices, strict=True)} - {KEEP}
        return len(used) <= most

    # -- what is known

    def _whole(self) -> list[Choices]:
        return [choices for choices, trial in self._trials.items() if trial.seen == len(self._units)]

    def _best(self, budget: float) -> Choices | None:
        fitting = [choices for choices in self._whole() if choices in self._believed and self._fits(choices, budget)]
        most = min((self.loss(choices) for choices in fitting if choices in self._uniform), default=np.inf)
        no_worse = [choices for choices in fitting if self.loss(choices) <= most]
        return min(no_worse, key=lambda choices: (self._believed[choices], self.amount(choices)), default=None)

    def _settle(self) -> tuple[Improvement, ...]:
        """When a batch is answered, whatever the order: believe anew, and see which budgets have a better plan."""
        if self._asked:
            return ()
        before = self._bests
        self._believe()
        self._bests = {budget: self._best(budget) for budget in self.budgets}
        found = []
        for budget, new in self._bests.items():
            old = before[budget]
            if new is not None and new != old:
                trial, loss = self._trials[new], self._believed[new]
                gain = self._believed[old] - loss if old in self._believed else np.inf
                found.append(Improvement(trial.request, budget, old, loss, gain, trial.expected))
        return tuple(found)

    def _believe(self) -> None:
        seen = {choices: trial for choices, trial in self._trials.items() if trial.seen}
        if not seen:
            return
        anyone = next(iter(self._whole()))
        references = [self._trials[self._bests[trial.request.budget] or anyone].all() for trial in seen.values()]
        losses, covariance = estimates([trial.all() for trial in seen.values()], references, self._units)
        plans = np.array([self._first + np.array(choices) for choices in seen])
        self._surrogate = fitted(self._means, self._relative_sd, self._owner, plans, losses, covariance)
        self._believed = dict(zip(seen, self._surrogate.believed().tolist(), strict=True))

    # -- rounds

    def _add(self, choices: Choices, origin: Origin, budget: float, expected: float | None) -> None:
        request = Request(choices, self.problem.decide(choices), origin, budget, 0, len(self._units))
        self._trials[choices] = Trial(request, expected)

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
            left = []
            for choices, budget in self._round:
                best = self._bests[budget]
                assert best is not None
                gaps = self._trials[choices].all() - self._trials[best].all()[:seen]
                _, bound = lower_bound(gaps, self._units[:seen], len(self._units), CONFIDENCE)
                if seen < TRUSTED or bound <= 0:
                    there = max(abs(self._believed[best]), np.finfo(float).tiny)
                    left.append(((self._believed[choices] - self._believed[best]) / there, choices, budget))
            left.sort(key=lambda each: each[0])
            self._round = [(choices, budget) for _, choices, budget in left[: -(-len(self._round) // 2)]]
        stop = next(end for end in self.parts if end > seen)
        for choices, _ in self._round:
            self._request(choices, stop)

    def _propose(self) -> None:
        surrogate, draw = self._surrogate, np.random.default_rng([self._seed, self._rounds])
        pool = [] if surrogate is None else [each for budget in self.budgets for each in self._pool(surrogate, budget, draw)]
        self._rounds += bool(pool)
        for proposal, expected in selected(surrogate, pool, min(self._width, self._plans - self.tried)) if surrogate is not None else ():
            choices = self._choices(proposal.plan)
            self._add(choices, proposal.origin, proposal.budget, expected)
            self._round.append((choices, proposal.budget))
        self.tried += len(self._round)
        self._over = not self._round

    def _pool(self, surrogate: Surrogate, budget: float, draw: np.random.Generator) -> list[Proposal]:
        """Plans that were never tried, for one budget."""
        best = self._bests[budget]
        if best is None:
            return []
        others = [other for other in self._whole() if self._trials[other].request.budget == budget and other != best]
        crossed = [self._first + np.array(other) for other in others]
        found: dict[Choices, Proposal] = {}
        for plan, origin in around(surrogate, self._first + np.array(best), crossed, self._amounts, budget - self._fixed, draw):
            choices = self._choices(plan)
            known = choices in self._trials or choices in self._dropped or choices in found
            if not known and self._fits(choices, budget) and self._holds(choices):
                found[choices] = Proposal(plan, origin, budget, self._believed[best], self.weights.get(budget, 1.0))
        return list(found.values())

    def _choices(self, plan: np.ndarray) -> Choices:
        return tuple((plan - self._first).tolist())


def _formats_alone(problem: Problem) -> Problem | None:
    """The problem without schemes that prune or correct by low rank; None where there are no such, or a group has no other."""
    plain = [np.array([not (scheme.sparsity or scheme.low_rank) for scheme in offered]) for offered in problem.schemes]
    if all(left.all() for left in plain) or not all(left.any() for left in plain):
        return None
    return problem.narrowed(plain)
