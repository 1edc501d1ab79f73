from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods.error_feedback import Sweep, inverse_factor, restore
from reference.explicit_obs import cost, obs
from second_moments import damped, moment_of, weights


@pytest.mark.parametrize("order", ["natural", "activation"])
def test_the_factor_is_that_of_the_damped_inverse_in_the_order_of_the_sweep(order):
    moment = moment_of(12)
    factor = inverse_factor(moment, order=order)
    upper = factor.upper.double()
    assert torch.equal(upper, upper.triu())
    expected = torch.linalg.inv(damped(moment)[factor.order][:, factor.order])
    assert torch.allclose(upper.T @ upper, expected, rtol=1e-4, atol=1e-5 * expected.abs().max())
    assert factor.damping == pytest.approx(0.01 * moment.diagonal().mean().item())
    assert factor.note == ""


def test_the_order_is_by_falling_activation_and_keeps_units_together():
    moment = torch.diag(torch.tensor([1.0, 9, 2, 2, 8, 3, 5, 5, 4, 30]))
    assert inverse_factor(moment, order="activation").order.tolist() == [9, 1, 4, 6, 7, 8, 5, 2, 3, 0]
    # means of units of four: 3.5, 5.25, and 17 of the tail
    assert inverse_factor(moment, order="activation", unit=4).order.tolist() == [9, 8, 4, 6, 7, 5, 1, 2, 3, 0]
    assert inverse_factor(moment, order="natural", unit=4).order.tolist() == list(range(10))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**16), st.sampled_from(["natural", "activation"]))
def test_a_sweep_is_explicit_obs_and_its_cost_the_quadratic_form(out, inputs, seed, order):
    moment, weight = moment_of(inputs, seed=seed), weights(out, inputs, seed)
    factor = inverse_factor(moment, order=order)
    sweep = Sweep(weight, factor)
    for step in sweep.steps():
        # smooth in the value, so that a difference of rounding makes no jump
        sweep.decide(step, torch.tanh(sweep.columns[step]))
    slow = obs(weight.numpy(), damped(moment).numpy(), factor.order.tolist(), lambda row, place, value: np.tanh(value))
    assert np.abs(sweep.weight().numpy() - slow).max() < 1e-4 * max(1, np.abs(slow).max())
    expected = cost(slow - weight.numpy(), damped(moment).numpy())
    assert sweep.cost() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_columns_brought_up_to_date_in_any_way_come_out_the_same():
    moment, weight = moment_of(200, 600), weights(4, 200)
    factor = inverse_factor(moment)
    results = []
    for ahead in (False, True):
        sweep = Sweep(weight, factor)
        for step in sweep.steps():
            if ahead and step % 48 == 5:
                sweep.up_to_date(step, min(step + 90, 200))
            if ahead and step % 31 == 7:
                sweep.gathered([step, *range(step + 3, 200, 17)])
            sweep.decide(step, sweep.columns[step].round())
        results.append(sweep.weight())
    assert (results[0] - results[1]).abs().max() < 1e-4


def test_gathered_columns_are_those_that_a_plain_sweep_reaches():
    moment, weight = moment_of(150), weights(3, 150)
    factor = inverse_factor(moment, order="natural")
    sweep = Sweep(weight, factor)
    for step in sweep.steps():
        if step == 70:
            break
        sweep.decide(step, sweep.columns[step].round())
    chosen = [70, 71, 90, 100, 149]
    ahead = sweep.gathered(chosen)
    errors, upper = sweep.errors[:70], factor.upper[:70]
    for place, step in enumerate(chosen):
        assert torch.allclose(ahead[place], weight[:, step] - errors.T @ upper[:, step], atol=1e-4)


def test_a_dead_input_neither_gives_nor_takes():
    moment = moment_of(8)
    moment[3] = moment[:, 3] = 0
    factor = inverse_factor(moment)
    assert "1 dead input" in factor.note
    sweep = Sweep(weights(2, 8), factor)
    for step in sweep.steps():
        place = int(factor.order[step])
        if place == 3:
            assert torch.equal(sweep.columns[step], weights(2, 8)[:, 3])
        sweep.decide(step, sweep.columns[step].round())
    assert torch.isfinite(sweep.weight()).all()


def test_fewer_tokens_than_inputs_are_said_and_carried_by_the_damping():
    generator = torch.Generator().manual_seed(5)
    samples = torch.randn(6, 24, generator=generator, dtype=torch.float64)
    factor = inverse_factor(samples.T @ samples / 6, tokens=6)
    assert "6 tokens for 24 inputs" in factor.note
    assert torch.isfinite(factor.upper).all()


def test_damping_is_raised_where_the_moment_is_not_positive_definite():
    moment = torch.ones(6, 6, dtype=torch.float64)
    moment[0, 0] = 0.9  # indefinite
    factor = inverse_factor(moment, damping=0.0)
    assert "damping raised from 0" in factor.note
    assert torch.isfinite(factor.upper).all()


def test_a_zero_moment_leaves_plain_rounding():
    factor = inverse_factor(torch.zeros(5, 5))
    assert "identity" in factor.note
    sweep = Sweep(weights(3, 5), factor)
    for step in sweep.steps():
        sweep.decide(step, sweep.columns[step].round())
    assert torch.equal(sweep.weight(), weights(3, 5).round())


def test_restore_undoes_an_order():
    order = torch.tensor([2, 0, 1])
    weight = weights(2, 3)
    assert torch.equal(restore(weight.T[order], order), weight)


def test_mistakes_are_refused():
    with pytest.raises(ParedownError, match=r"expected the mean of x xᵀ over tokens, shape \[4, 4\]"):
        inverse_factor(torch.ones(4, 3))
    with pytest.raises(ParedownError, match="second moment holds NaN"):
        inverse_factor(torch.full((3, 3), torch.nan))
    with pytest.raises(ParedownError, match="can't be negative"):
        inverse_factor(torch.eye(3), damping=-1)
    with pytest.raises(ParedownError, match="has 4 inputs, its inverse factor 3"):
        Sweep(torch.ones(2, 4), inverse_factor(torch.eye(3)))
