"""What samples leave open of plans' losses, against draws from a model in which it is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.search.paired import standard_error
from paredown.search.sampling import estimates
from paredown.search.surrogate import Surrogate, Terms


def drawn(seed, plans=30, samples=200):
    """Losses in proportion to how hard a sample is, and noise that pairs of plans share."""
    draw = np.random.default_rng(seed)
    means = draw.uniform(0.5, 2, plans)
    hard = draw.lognormal(sigma=0.8, size=samples)
    mixed = np.random.default_rng(1).normal(size=(plans, plans)) / np.sqrt(plans)
    return means, means[:, None] * hard, mixed, mixed @ draw.normal(size=(plans, samples))


def test_the_covariance_is_that_of_the_errors_beside_the_common_level():
    samples, found, errors = 200, [], []
    for seed in range(300):
        means, level, mixed, noise = drawn(seed, samples=samples)
        estimated, covariance = estimates(level + noise, level, np.ones(samples))
        found.append(covariance)
        errors.append(estimated - means * (estimated @ means) / (means @ means))
    truth = mixed @ mixed.T / samples
    np.testing.assert_allclose(np.mean(found, 0), truth, atol=0.2 * truth.max())  # 30 plans know the level to a few percent
    np.testing.assert_allclose(np.cov(np.array(errors).T), truth, atol=0.4 * truth.max())  # and 300 draws the covariance to 8 %


def test_samples_that_are_hard_for_all_plans_in_proportion_leave_nothing_open():
    _, level, _, _ = drawn(0)
    estimated, covariance = estimates(level, level, np.ones(200))
    np.testing.assert_allclose(estimated, level.mean(1))
    np.testing.assert_allclose(covariance, 0, atol=1e-20)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(2, 40), st.floats(0.1, 10))
def test_it_is_a_covariance_whatever_the_units_and_whoever_ran_on_a_part(seed, part, unit):
    _, level, _, noise = drawn(seed, plans=6, samples=40)
    losses = level + noise
    units = unit * np.random.default_rng(seed).integers(1, 5, 40)
    cut = [row[:part] if place % 2 else row for place, row in enumerate(losses)]
    means, covariance = estimates(cut, [losses[0]] * 6, units)
    whole, less = estimates(losses, losses, units)
    assert np.linalg.eigvalsh(covariance).min() > -1e-9 * np.trace(covariance)
    np.testing.assert_allclose(means[::2], whole[::2])
    gaps = losses[1, :part] - losses[0, :part]
    assert means[1] - means[0] == pytest.approx(gaps.sum() / units[:part].sum())
    assert covariance[1, 1] >= standard_error(gaps, units[:part], 40) ** 2
    np.testing.assert_allclose(estimates(losses, losses, 3 * units)[1], less / 9)


def test_a_single_sample_says_nothing_of_errors():
    means, covariance = estimates([np.array([2.0]), np.array([3.0])], [np.array([2.0])] * 2, np.ones(1))
    assert means.tolist() == [2, 3]
    assert not covariance.any()


def test_what_is_believed_best_loses_less_than_what_was_measured_best():
    """Plans around an additive prior, measured with errors that are known: regret of the two choices, in pairs."""
    groups, choices, plans = 12, 4, 40
    owner, regrets = np.repeat(np.arange(groups), choices), []
    for seed in range(300):
        draw = np.random.default_rng(seed)
        mean = draw.lognormal(size=groups * choices)
        terms = Terms(mean, 0.3 * mean, owner, 0.0)
        chosen = np.arange(groups) * choices + draw.integers(0, choices, (plans, groups))
        costs = np.maximum(mean * (1 + 0.3 * draw.normal(size=len(mean))), 0)
        truth = costs[chosen].sum(1)
        errors = 0.2 * truth.mean() * np.linalg.qr(draw.normal(size=(plans, plans)))[0] * draw.uniform(0.3, 2, plans)
        measured = truth + errors @ draw.normal(size=plans)
        found = Surrogate.given(terms, chosen, measured, errors @ errors.T, misfit=0.01)
        believed = found.believed()
        regrets.append((truth[believed.argmin()] - truth.min(), truth[measured.argmin()] - truth.min()))
    ours, old = np.array(regrets).T
    gap = old - ours
    assert gap.mean() > 4 * gap.std() / np.sqrt(len(gap))
    assert ours.mean() < 0.7 * old.mean()


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_where_samples_leave_nothing_open_plans_are_believed_as_measured(seed):
    draw = np.random.default_rng(seed)
    owner, mean = np.repeat(np.arange(4), 3), draw.lognormal(size=12)
    plans = np.arange(4) * 3 + draw.integers(0, 3, (8, 4))
    losses = mean[plans].sum(1) * draw.uniform(0.8, 1.5, 8)
    found = Surrogate.given(Terms(mean, 0.3 * mean, owner, 0.1), plans, losses, np.zeros((8, 8)), misfit=0.05)
    np.testing.assert_allclose(found.believed(), losses, rtol=1e-9)
