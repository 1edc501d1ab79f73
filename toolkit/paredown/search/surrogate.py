r"""What a search believes of plans that it has not measured: the additive model, corrected by what was measured.

Sums of predicted losses rank plans, and lie below what is measured, the more the fewer bits. So a plan's measured loss is taken as

\[ y = a\, s^p, \qquad s = \sum_g \theta_{g,c_g} + \sum_{g<h} 2 \rho_{gh} \sqrt{\mu_{g,c_g} \mu_{h,c_h}} + \epsilon, \]

with a and p fitted to what was measured (`Response`), and in s, where it is linear, by Bayesian regression in closed form: \(\theta\) is
normal around the prediction \(\mu\) of each choice, with a deviation that holds the prediction's own standard error and a share of the
prediction, half of the variance common to the choices of one group; \(\rho\), the correlation of two groups' perturbations (the pair
terms of CLADO, Deng et al., 2023), is normal around 0; \(\epsilon\) is what a plan has of its own, a share of s, and what a part of the
samples leaves open. The shares, the column that is \(\mu\), and whether there are pair terms at all are those of the largest evidence
in a small grid, under a weak prior that keeps a handful of plans from promising too much (type-II maximum a posteriori). Everything is solved with the plans' covariance [n, n], so that neither thousands of choices nor all
their pairs cost anything: \(O(n^3)\) for n measured plans.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

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
        found = np.zeros((len(a), len(b)))
        for x, y in zip(a.T, b.T, strict=True):
            found += np.multiply.outer(self.sd[x], self.sd[y]) * (SHARED + (1 - SHARED) * (x[:, None] == y))
        return found

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
        noise: Standard deviation of each, [n]; the misfit included.
        evidence: Logarithm of the marginal likelihood of the measured losses.
    """

    terms: Terms
    response: Response
    misfit: float
    plans: np.ndarray
    values: np.ndarray
    noise: np.ndarray
    evidence: float
    _factor: tuple[np.ndarray, bool]
    _weights: np.ndarray

    @classmethod
    def given(
        cls,
        terms: Terms,
        plans: np.ndarray,
        losses: np.ndarray,
        loss_sd: np.ndarray,
        *,
        misfit: float,
        response: Response | None = None,
    ) -> Surrogate:
        """Condition the terms.

        Args:
            terms: The prior.
            plans: Measured plans as choices' numbers, [n, groups].
            losses: What was measured, [n].
            loss_sd: Its standard error, [n]; 0 where nothing is left open.
            misfit: See `Surrogate`.
            response: See `Surrogate`; fitted where not given.
        """
        predicted = terms.mean[plans].sum(1)
        response = response or Response.of(predicted, losses)
        values, slope = response.additive(losses), response.slope(losses)
        least = 1e-6 * max(float(np.median(np.abs(values))), np.finfo(float).tiny)
        noise = np.sqrt((misfit * values) ** 2 + (slope * loss_sd) ** 2 + least**2)
        covariance = terms.linear(plans, plans) + terms.paired(plans, plans) + np.diag(noise**2)
        factor = cho_factor(covariance, lower=True)
        residual = values - predicted
        weights = cho_solve(factor, residual)
        evidence = -0.5 * residual @ weights - np.log(np.diag(factor[0])).sum() - 0.5 * len(values) * np.log(2 * np.pi)
        return cls(
            terms, response, misfit, plans, values, noise, float(evidence + np.log(slope).sum()), (factor[0], bool(factor[1])), weights
        )

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
        pairs = terms.paired(self.plans, self.plans)
        values, vectors = np.linalg.eigh(pairs)
        besides = vectors @ (np.sqrt(values.clip(0)) * seed.standard_normal(n)) + self.noise * seed.standard_normal(n)
        residual = self.values - terms.mean[self.plans].sum(1) - drawn[self.plans].sum(1) - besides
        return terms.mean + drawn + terms.with_plans(self.plans) @ cho_solve(self._factor, residual)

    def believing(self, plan: np.ndarray) -> Surrogate:
        """The same as if the plan [groups] had been measured to be what is expected of it: the next one of a batch lies elsewhere."""
        mean, _ = self.predict(plan[None])
        expected = self.response.measured(mean)
        plans, losses = np.append(self.plans, plan[None], 0), np.append(self.response.measured(self.values), expected)
        spread = np.sqrt(np.maximum(self.noise**2 - (self.misfit * self.values) ** 2, 0)) / self.response.slope(losses[:-1])
        return Surrogate.given(self.terms, plans, losses, np.append(spread, 0.0), misfit=self.misfit, response=self.response)


def fitted(
    means: Sequence[np.ndarray],
    relative_sd: np.ndarray,
    owner: np.ndarray,
    plans: np.ndarray,
    losses: np.ndarray,
    loss_sd: np.ndarray,
) -> Surrogate:
    r"""The surrogate of the largest evidence.

    Args:
        means: What \(\mu\) may be, [choices] each.
        relative_sd: Standard error of the predictions as a share of them, [choices].
        owner: Group of each choice, rising, [choices].
        plans: Measured plans as choices' numbers, [n, groups].
        losses: What was measured, [n].
        loss_sd: Its standard error, [n].

    Returns:
        The surrogate.
    """
    found: list[tuple[float, Surrogate]] = []
    for mean, share, pair_sd in itertools.product(means, DEVIATION_SHARES, PAIR_DEVIATIONS):
        least = 1e-3 * float(np.abs(mean).max(initial=0.0))
        terms = Terms(mean, np.maximum(np.abs(mean), least) * np.sqrt(share**2 + relative_sd**2), owner, pair_sd)
        for misfit in MISFITS:
            each = Surrogate.given(terms, plans, losses, loss_sd, misfit=misfit)
            prior = DEVIATION_SHARES[share] + PAIR_DEVIATIONS[pair_sd] + MISFITS[misfit]
            found.append((each.evidence + prior, each))
    return max(found, key=lambda each: each[0])[1]
