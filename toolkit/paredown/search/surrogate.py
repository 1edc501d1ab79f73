r"""What a search believes of plans that it has not measured: the additive model, corrected by what was measured.

Sums of predicted losses rank plans, and lie below what is measured, the more the fewer bits. So a plan's measured loss is taken as

\[ y = a\, s^p, \qquad s = \sum_g \theta_{g,c_g} + \sum_{g<h} 2 \rho_{gh} \sqrt{\mu_{g,c_g} \mu_{h,c_h}} + \epsilon, \]

with a and p fitted to what was measured (`Response`), and in s, where it is linear, by Bayesian regression in closed form: \(\theta\) is
normal around the prediction \(\mu\) of each choice, with a deviation that holds the prediction's own standard error and a share of the
prediction, half of the variance common to the choices of one group; \(\rho\), the correlation of two groups' perturbations (the pair
terms of CLADO, Deng et al., 2023), is normal around 0; \(\epsilon\) is what a plan has of its own, a share of s. Samples leave open what
a plan loses on others: the errors \(e \sim N(0, C)\) of the measured means belong to all plans at once (`sampling`), and are no part of s.
The shares, the column that is \(\mu\), and whether there are pair terms at all are those of the largest evidence
in a small grid, under a weak prior that keeps a handful of plans from promising too much (type-II maximum a posteriori). Everything is solved with the plans' covariance [n, n], so that neither thousands of choices nor all
their pairs cost anything: \(O(n^3)\) for n measured plans.

What a measured plan is believed to lose (`Surrogate.believed`) is the posterior mean of its s: its measurement, drawn towards what the terms expect of it by as much
as its samples leave open. The least of these is free of the optimiser's curse, which the least of many measured means is not (Smith and
Winkler, 2006; with the prior estimated, empirical Bayes after Efron and Morris, 1973), as far as the prior holds.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.sparse import csr_array

from paredown.errors import ParedownError
from paredown.search.problem import Objective, Problem

SHARED = 0.5
"""Part of a choice's variance that it has in common with the other choices of its group."""

DEVIATION_SHARES = {0.1: -1.0, 0.3: 0.0, 0.8: -1.0}
PAIR_DEVIATIONS = {0.0: -1.0, 0.1: 0.0, 0.3: -1.0}
MISFITS = {0.01: -1.0, 0.05: 0.0, 0.2: -1.0}
"""The grid that the evidence decides in, shares of the prediction or correlations, with the logarithm of its prior."""


@dataclass(frozen=True, slots=True)
class Response:
    r"""How measured losses follow the additive model: \(y = a\,s^p\), continued oddly below 0.

    Attributes:
        scale: a.
        power: p.
    """

    scale: float
    power: float

    @classmethod
    def of(cls, predicted: np.ndarray, measured: np.ndarray) -> Response:
        """Fit to plans, [n] each: least squares of the logarithms; where a loss is not positive, or there are fewer than three, p is 1."""
        positive = (predicted > 0) & (measured > 0)
        x, y = np.log(predicted[positive]), np.log(measured[positive])
        if len(x) >= 3 and positive[predicted > 0].all() and np.ptp(x) > 0.1:
            power = float(np.clip(np.cov(x, y)[0, 1] / x.var(ddof=1), 0.5, 3.0))
            return cls(float(np.exp(y.mean() - power * x.mean())), power)
        squares = float(predicted @ predicted)
        slope = float(predicted @ measured) / squares if squares else 1.0
        return cls(slope if slope > 0 else 1.0, 1.0)

    def additive(self, measured: np.ndarray) -> np.ndarray:
        """S of measured losses."""
        return np.sign(measured) * (np.abs(measured) / self.scale) ** (1 / self.power)

    def measured(self, additive: np.ndarray) -> np.ndarray:
        """The losses that s stands for."""
        return np.sign(additive) * self.scale * np.abs(additive) ** self.power

    def slope(self, measured: np.ndarray) -> np.ndarray:
        """ds/dy, for what spreads in y."""
        floor = max(float(np.abs(measured).max(initial=0.0)) * 1e-9, np.finfo(float).tiny)
        size = np.maximum(np.abs(measured), floor)
        return (size / self.scale) ** (1 / self.power) / (self.power * size)


@dataclass(frozen=True, eq=False, slots=True)
class Terms:
    r"""The prior of the terms that plans are made of.

    Attributes:
        mean: \(\mu\) of each choice of each group, one after another, [choices].
        sd: Deviation of \(\theta\), [choices].
        owner: Group of each choice, rising, [choices].
        pair_sd: Deviation of \(\rho\).
    """

    mean: np.ndarray
    sd: np.ndarray
    owner: np.ndarray
    pair_sd: float

    @property
    def roots(self) -> np.ndarray:
        r"""\(\sqrt\mu\), [choices]."""
        return np.sqrt(np.maximum(self.mean, 0))

    def linear(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        r"""Covariance of \(\sum \theta\) of plans a [n, groups] and b [m, groups], given as choices' numbers; [n, m]."""
        own = csr_array((self.sd[a].ravel(), a.ravel(), np.arange(0, a.size + 1, a.shape[1])), shape=(len(a), len(self.sd)))
        chosen = np.zeros((len(self.sd), len(b)))
        np.put_along_axis(chosen, b.T, self.sd[b].T, 0)
        return SHARED * (self.sd[a] @ self.sd[b].T) + (1 - SHARED) * (own @ chosen)

    def paired(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The same of the pair terms; all pairs at once, by the square of a sum."""
        roots = self.roots
        products = roots[a] @ roots[b].T
        return 2 * self.pair_sd**2 * (products**2 - self.mean.clip(0)[a] @ self.mean.clip(0)[b].T)

    def variance(self, a: np.ndarray) -> np.ndarray:
        """Prior variance of each plan, [n]."""
        mean = self.mean.clip(0)[a]
        return np.square(self.sd[a]).sum(1) + 2 * self.pair_sd**2 * (mean.sum(1) ** 2 - np.square(mean).sum(1))

    def with_plans(self, b: np.ndarray) -> np.ndarray:
        r"""Covariance of each choice's \(\theta\) with \(\sum\theta\) of plans, [choices, m]."""
        same = b.T[self.owner] == np.arange(len(self.owner))[:, None]
        return self.sd[:, None] * self.sd[b].T[self.owner] * (SHARED + (1 - SHARED) * same)


@dataclass(frozen=True, eq=False, slots=True)
class Surrogate:
    """The terms, given what was measured.

    Attributes:
        terms: Their prior.
        response: How losses follow them.
        misfit: What a plan has of its own, as a share of s.
        plans: Measured plans as choices' numbers, [n, groups].
        values: Their s, [n].
        sampling: Covariance of what their samples leave open, in s, [n, n].
        evidence: Logarithm of the marginal likelihood of the measured losses.
    """

    terms: Terms
    response: Response
    misfit: float
    plans: np.ndarray
    values: np.ndarray
    sampling: np.ndarray
    evidence: float
    _factor: tuple[np.ndarray, bool]
    _weights: np.ndarray

    @classmethod
    def given(
        cls,
        terms: Terms,
        plans: np.ndarray,
        losses: np.ndarray,
        covariance: np.ndarray,
        *,
        misfit: float,
        response: Response | None = None,
        prior: np.ndarray | None = None,
    ) -> Surrogate:
        """Condition the terms.

        Args:
            terms: The prior.
            plans: Measured plans as choices' numbers, [n, groups].
            losses: What was measured, [n].
            covariance: Of what its samples leave open, [n, n]; 0 where that is nothing.
            misfit: See `Surrogate`.
            response: See `Surrogate`; fitted where not given.
            prior: Covariance of the plans by the terms, [n, n], where it is at hand.
        """
        predicted = terms.mean[plans].sum(1)
        response = response or Response.of(predicted, losses)
        values, slope = response.additive(losses), response.slope(losses)
        sampling = slope[:, None] * covariance * slope
        prior = terms.linear(plans, plans) + terms.paired(plans, plans) if prior is None else prior
        factor = cho_factor(prior + sampling + np.diag(_own(misfit, values)), lower=True)
        residual = values - predicted
        weights = cho_solve(factor, residual)
        evidence = -0.5 * residual @ weights - np.log(np.diag(factor[0])).sum() - 0.5 * len(values) * np.log(2 * np.pi)
        return cls(
            terms, response, misfit, plans, values, sampling, float(evidence + np.log(slope).sum()), (factor[0], bool(factor[1])), weights
        )

    def believed(self) -> np.ndarray:
        r"""The losses that the measured plans are believed to have on other samples, [n]: \(y - C (K + C)^{-1} (y - \mu)\) in s."""
        return self.response.measured(self.values - self.sampling @ self._weights)

    def predict(self, plans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of s of plans [m, groups], the misfit left out; [m] each."""
        across = self.terms.linear(plans, self.plans) + self.terms.paired(plans, self.plans)
        mean = self.terms.mean[plans].sum(1) + across @ self._weights
        explained = (across * cho_solve(self._factor, across.T).T).sum(1)
        return mean, np.sqrt(np.maximum(self.terms.variance(plans) - explained, 0))

    def costs(self, around: np.ndarray) -> np.ndarray:
        """Expected cost of each choice beside the other choices of a plan [groups]; [choices]."""
        found = self.terms.mean + self.terms.with_plans(self.plans) @ self._weights
        roots = self.terms.roots
        each = roots[self.plans]
        pairs = 2 * self.terms.pair_sd**2 * (each.T * self._weights) @ each
        np.fill_diagonal(pairs, 0)
        return found + 2 * roots * (pairs @ roots[around])[self.terms.owner]

    def draw(self, seed: np.random.Generator) -> np.ndarray:
        r"""Costs of the choices drawn from the posterior of \(\theta\), [choices]; by conditioning a draw of the prior (Matheron's rule)."""
        terms, n = self.terms, len(self.plans)
        groups = int(terms.owner[-1]) + 1
        common, own = seed.standard_normal(groups), seed.standard_normal(len(terms.mean))
        drawn = terms.sd * (np.sqrt(SHARED) * common[terms.owner] + np.sqrt(1 - SHARED) * own)
        values, vectors = np.linalg.eigh(terms.paired(self.plans, self.plans) + self.sampling)
        besides = vectors @ (np.sqrt(values.clip(0)) * seed.standard_normal(n))
        besides += np.sqrt(_own(self.misfit, self.values)) * seed.standard_normal(n)
        residual = self.values - terms.mean[self.plans].sum(1) - drawn[self.plans].sum(1) - besides
        return terms.mean + drawn + terms.with_plans(self.plans) @ cho_solve(self._factor, residual)

    def believing(self, plan: np.ndarray) -> Surrogate:
        """The same as if the plan [groups] had been measured to be what is expected of it: the next one of a batch lies elsewhere."""
        mean, _ = self.predict(plan[None])
        expected = self.response.measured(mean)
        plans, losses = np.append(self.plans, plan[None], 0), np.append(self.response.measured(self.values), expected)
        slope = self.response.slope(losses[:-1])
        covariance = np.pad(self.sampling / (slope[:, None] * slope), (0, 1))
        return Surrogate.given(self.terms, plans, losses, covariance, misfit=self.misfit, response=self.response)

    def outlook(self, plans: np.ndarray) -> Outlook:
        """What is believed of plans [m, groups] while some of them are taken (`Outlook`)."""
        across = self.terms.linear(plans, self.plans) + self.terms.paired(plans, self.plans)
        seen = solve_triangular(self._factor[0], across.T, lower=True).T
        mean = self.terms.mean[plans].sum(1) + across @ self._weights
        return Outlook(self, plans, mean, self.terms.variance(plans) - np.square(seen).sum(1), seen)


@dataclass(eq=False, slots=True)
class Outlook:
    """Plans that may be measured next, [m, groups], some of which are taken as if they had been measured to be what is expected.

    Then no expectation changes, and the variances by one term for each that is taken: what `Surrogate.believing` gives, without fitting anew.

    Attributes:
        surrogate: What is believed.
        plans: The plans.
        mean: Expected s of each, [m].
        variance: Of s, the misfit left out, [m].
    """

    surrogate: Surrogate
    plans: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    _seen: np.ndarray

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation of s, the misfit left out, [m]."""
        return np.sqrt(np.maximum(self.variance, 0))

    def take(self, at: int) -> None:
        """Take a plan, by its place."""
        terms, surrogate, plan = self.surrogate.terms, self.surrogate, self.plans[at : at + 1]
        across = (terms.linear(self.plans, plan) + terms.paired(self.plans, plan))[:, 0] - self._seen @ self._seen[at]
        own = _own(surrogate.misfit, np.append(surrogate.values, self.mean[at]))[-1]
        column = across / np.sqrt(max(self.variance[at], 0.0) + own)
        self.variance = self.variance - column**2
        self._seen = np.column_stack([self._seen, column])


def _own(misfit: float, values: np.ndarray) -> np.ndarray:
    """Variance of what plans have of their own, [n], never quite 0."""
    least = 1e-6 * max(float(np.median(np.abs(values))), np.finfo(float).tiny)
    return (misfit * values) ** 2 + least**2


def predictions(problem: Problem, objectives: Sequence[Objective]) -> tuple[list[np.ndarray], np.ndarray]:
    """What additive models predict of each choice, all groups' choices one after another.

    Args:
        problem: The choices.
        objectives: Names of the models; those whose scores are not at hand are left out.

    Returns:
        Of each model, [choices]; and the standard error of the predicted loss as a share of it, at most 1, [choices].
    """
    means = []
    for objective in objectives:
        with contextlib.suppress(ParedownError):  # nobody computed that score
            means.append(np.concatenate(problem.costs(objective)))
    predicted = np.concatenate(problem.loss_increase)
    deviation = [sum(each.loss_increase_sd for each in choice) for choices in problem.candidates for choice in choices]
    return means, np.divide(deviation, predicted, out=np.zeros_like(predicted), where=predicted > 0).clip(max=1.0)


def fitted(
    means: Sequence[np.ndarray],
    relative_sd: np.ndarray,
    owner: np.ndarray,
    plans: np.ndarray,
    losses: np.ndarray,
    covariance: np.ndarray,
) -> Surrogate:
    r"""The surrogate of the largest evidence.

    Args:
        means: What \(\mu\) may be, [choices] each.
        relative_sd: Standard error of the predictions as a share of them, [choices].
        owner: Group of each choice, rising, [choices].
        plans: Measured plans as choices' numbers, [n, groups].
        losses: What was measured, [n].
        covariance: Of what its samples leave open, [n, n].

    Returns:
        The surrogate.
    """
    found: list[tuple[float, Surrogate]] = []
    for mean, share in itertools.product(means, DEVIATION_SHARES):
        least = 1e-3 * float(np.abs(mean).max(initial=0.0))
        unpaired = Terms(mean, np.maximum(np.abs(mean), least) * np.sqrt(share**2 + relative_sd**2), owner, 0.0)
        response, linear = Response.of(mean[plans].sum(1), losses), unpaired.linear(plans, plans)
        paired = replace(unpaired, pair_sd=1.0).paired(plans, plans)
        for pair_sd, misfit in itertools.product(PAIR_DEVIATIONS, MISFITS):
            terms, known = replace(unpaired, pair_sd=pair_sd), linear + pair_sd**2 * paired
            each = Surrogate.given(terms, plans, losses, covariance, misfit=misfit, response=response, prior=known)
            weight = DEVIATION_SHARES[share] + PAIR_DEVIATIONS[pair_sd] + MISFITS[misfit]
            found.append((each.evidence + weight, each))
    return max(found, key=lambda each: each[0])[1]
