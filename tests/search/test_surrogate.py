"""The surrogate against explicit float64 solves, and against what its formulas promise."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.search.surrogate import SHARED, Response, Surrogate, Terms, fitted


def case(seed, groups=4, choices=3, plans=7, pair_sd=0.3):
    draw = np.random.default_rng(seed)
    owner = np.repeat(np.arange(groups), choices)
    mean = draw.lognormal(size=len(owner))
    terms = Terms(mean, 0.4 * mean, owner, pair_sd)
    chosen = np.arange(groups) * choices + draw.integers(0, choices, (plans, groups))
    losses = mean[chosen].sum(1) * draw.uniform(0.8, 1.6, plans)
    errors = draw.normal(0, 0.05, (plans, 5))
    return terms, chosen, losses, errors @ errors.T, draw


def features(terms, plans):
    """Every term as a column: own and common parts of the choices, then all pairs; with the prior deviations 1."""
    groups = terms.owner[-1] + 1
    rows = []
    for plan in plans:
        own = np.zeros(len(terms.mean))
        own[plan] = np.sqrt(1 - SHARED) * terms.sd[plan]
        roots = np.sqrt(terms.mean[plan])
        pairs = [2 * terms.pair_sd * roots[g] * roots[h] for g, h in itertools.combinations(range(groups), 2)]
        rows.append([*own, *(np.sqrt(SHARED) * terms.sd[plan]), *pairs])
    return np.array(rows)


@pytest.mark.parametrize("seed", range(4))
def test_the_posterior_equals_an_explicit_solve_for_every_term(seed):
    terms, plans, losses, errors, draw = case(seed)
    found = Surrogate.given(terms, plans, losses, errors, misfit=0.05)
    design, slope = features(terms, plans), found.response.slope(losses)
    least = 1e-6 * np.median(np.abs(found.values))
    noise = slope[:, None] * errors * slope + np.diag((0.05 * found.values) ** 2 + least**2)
    covariance = np.linalg.inv(np.eye(design.shape[1]) + design.T @ np.linalg.solve(noise, design))
    residual = found.values - terms.mean[plans].sum(1)
    weights = covariance @ design.T @ np.linalg.solve(noise, residual)
    others = np.arange(4) * 3 + draw.integers(0, 3, (20, 4))
    theirs = features(terms, others)
    mean, sd = found.predict(others)
    np.testing.assert_allclose(mean, terms.mean[others].sum(1) + theirs @ weights, rtol=1e-7)
    np.testing.assert_allclose(sd, np.sqrt(np.einsum("ij,jk,ik->i", theirs, covariance, theirs)), rtol=1e-6)
    outer = design @ design.T + noise
    log_likelihood = -0.5 * (residual @ np.linalg.solve(outer, residual) + np.linalg.slogdet(2 * np.pi * outer)[1])
    assert found.evidence == pytest.approx(log_likelihood + np.log(found.response.slope(losses)).sum())


def test_expected_costs_change_as_the_expected_loss_of_a_switch():
    terms, plans, losses, errors, _ = case(1)
    found = Surrogate.given(terms, plans, losses, errors, misfit=0.05)
    base = plans[0]
    costs = found.costs(base)
    for choice in range(len(terms.mean)):
        other = base.copy()
        other[terms.owner[choice]] = choice
        (before, after), _ = found.predict(np.array([base, other]))
        assert costs[choice] - costs[base[terms.owner[choice]]] == pytest.approx(after - before, rel=1e-9, abs=1e-12)


def test_draws_of_the_costs_have_the_mean_and_spread_of_the_posterior():
    terms, plans, losses, errors, _ = case(2, pair_sd=0.1)
    found = Surrogate.given(terms, plans, losses, errors, misfit=0.05)
    draw = np.random.default_rng(0)
    drawn = np.array([found.draw(draw) for _ in range(4000)])
    along = terms.with_plans(plans)
    outer = terms.linear(plans, plans) + terms.paired(plans, plans) + found.sampling + np.diag((0.05 * found.values) ** 2)
    prior = np.where(terms.owner[:, None] == terms.owner, SHARED, 0.0) + (1 - SHARED) * np.eye(len(terms.mean))
    covariance = prior * np.outer(terms.sd, terms.sd) - along @ np.linalg.solve(outer, along.T)
    sd = np.sqrt(np.diag(covariance))
    expected = terms.mean + along @ np.linalg.solve(outer, found.values - terms.mean[plans].sum(1))
    assert np.abs(drawn.mean(0) - expected).max() < 4 * (sd / np.sqrt(4000)).max()
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.08 * covariance.max())


def test_believing_a_plan_moves_no_expectation_and_narrows_what_is_near():
    terms, plans, losses, errors, _ = case(3)
    found = Surrogate.given(terms, plans, losses, errors, misfit=0.05)
    new = np.array([2, 5, 8, 11])
    near = np.array([[2, 5, 8, 10], [0, 4, 6, 9]])
    before, wide = found.predict(near)
    after, narrow = found.believing(new).predict(near)
    np.testing.assert_allclose(after, before, rtol=1e-6)
    assert (narrow < wide).all()


def test_plans_that_are_taken_count_as_if_they_had_been_measured():
    terms, plans, losses, errors, draw = case(4)
    found = Surrogate.given(terms, plans, losses, errors, misfit=0.05)
    others = np.arange(4) * 3 + draw.integers(0, 3, (20, 4))
    outlook = found.outlook(others)
    for at in (3, 7, 3):
        mean, sd = found.predict(others)
        np.testing.assert_allclose(outlook.mean, mean, rtol=1e-6)
        np.testing.assert_allclose(outlook.spread, sd, rtol=1e-5)
        outlook.take(at)
        found = found.believing(others[at])


@settings(deadline=None, max_examples=50)
@given(st.floats(0.01, 100), st.floats(0.6, 2.9))
def test_a_power_law_is_recovered_and_inverted(scale, power):
    predicted = np.array([0.001, 0.01, 0.05, 0.3])
    measured = scale * predicted**power
    found = Response.of(predicted, measured)
    assert found.scale == pytest.approx(scale)
    assert found.power == pytest.approx(power)
    np.testing.assert_allclose(found.additive(measured), predicted)
    np.testing.assert_allclose(found.measured(np.append(-predicted, predicted)), np.append(-measured, measured))
    step = 1e-6 * measured
    np.testing.assert_allclose(
        (found.additive(measured + step) - found.additive(measured - step)) / (2 * step), found.slope(measured), rtol=1e-4
    )


def test_losses_that_fall_below_the_original_are_scaled_and_no_more():
    found = Response.of(np.array([1.0, 2.0, 3.0]), np.array([-0.1, 2.0, 3.5]))
    assert found.power == 1
    assert found.scale == pytest.approx((-0.1 + 4 + 10.5) / 14)


def test_the_evidence_finds_interactions_where_there_are_some_and_none_where_there_are_none():
    terms, _, _, _, draw = case(0, groups=6, pair_sd=0.0)
    plans = np.arange(6) * 3 + draw.integers(0, 3, (60, 6))
    additive = terms.mean[plans].sum(1)
    roots = np.sqrt(terms.mean)[plans]
    strength = np.triu(draw.uniform(-0.1, 0.4, (6, 6)), 1)
    interacting = additive + 2 * np.einsum("ng,gh,nh->n", roots, strength, roots)
    none = np.zeros((60, 60))
    assert interacting.min() > 0
    given = ([terms.mean], np.zeros(len(terms.mean)), terms.owner, plans)
    assert fitted(*given, additive, none).terms.pair_sd == 0
    assert fitted(*given, interacting, none).terms.pair_sd > 0
