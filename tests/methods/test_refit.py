from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.methods.error_feedback import inverse_factor
from paredown.methods.refit import refit, relax
from reference.explicit_obs import best_of_mask, cost


def moment_of(inputs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(4 * inputs, inputs, generator=generator, dtype=torch.float64)
    samples = samples @ torch.randn(inputs, inputs, generator=generator, dtype=torch.float64)
    return samples.T @ samples / len(samples)


def problem(out, inputs, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(out, inputs, generator=generator)
    return weight, torch.rand(out, inputs, generator=generator) < 0.6, inverse_factor(moment_of(inputs, seed))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 20), st.integers(0, 2**16))
def test_enough_steps_reach_the_least_squares_solution(out, inputs, seed):
    weight, mask, factor = problem(out, inputs, seed)
    found = refit(weight, weight * mask, mask, factor, steps=4 * inputs)
    hessian = factor.damped.double().numpy()
    best = best_of_mask(weight.numpy(), mask.numpy(), hessian)
    assert (found[~mask] == 0).all()
    least = cost(best - weight.numpy(), hessian)
    assert cost(found.double().numpy() - weight.numpy(), hessian) <= least * (1 + 1e-3) + 1e-5


def test_no_number_of_steps_errs_more_than_fewer():
    weight, mask, factor = problem(8, 64, 3)
    hessian = factor.damped.double().numpy()
    errors = [cost((refit(weight, weight * mask, mask, factor, steps=steps) - weight).double().numpy(), hessian) for steps in range(12)]
    assert all(later <= before * (1 + 1e-6) for before, later in pairwise(errors))


def test_at_the_solution_errors_of_pruning_and_of_rounding_add_up():
    weight, mask, factor = problem(8, 32, 4)
    solved = refit(weight, weight * mask, mask, factor, steps=200)
    rounded = (solved * 4).round() / 4
    hessian = factor.damped.double().numpy()
    together, pruning, rounding = (
        cost(change.double().numpy(), hessian) for change in (weight - rounded, weight - solved, solved - rounded)
    )
    assert abs(together - pruning - rounding) < 1e-3 * together


def test_the_scale_of_the_weight_does_not_matter():
    weight, mask, factor = problem(4, 16, 5)
    found = refit(weight, weight * mask, mask, factor)
    for scale in (2.0**90, 2.0**-90):
        assert torch.equal(refit(weight * scale, weight * mask * scale, mask, factor), found * scale)
    assert not refit(torch.zeros(4, 16), torch.zeros(4, 16), mask, factor).any()


def test_each_pass_over_blocks_errs_less_by_what_it_says_and_many_reach_the_solution():
    weight, mask, factor = problem(6, 150, 6)  # two blocks and a shorter one
    start = weight * mask
    hessian = factor.damped.double().numpy()
    costs = [cost((weight - start).double().numpy(), hessian)]
    for passes in (1, 2, 3):
        found, gain = relax(weight, start, mask, factor, passes=passes)
        assert (found[~mask] == 0).all()
        costs.append(cost((weight - found).double().numpy(), hessian))
        assert abs(costs[0] - gain - costs[-1]) < 1e-4 * costs[0]
    assert all(later < before for before, later in pairwise(costs))
    found, _ = relax(weight, start, mask, factor, passes=600)
    least = cost(best_of_mask(weight.numpy(), mask.numpy(), hessian) - weight.numpy(), hessian)
    assert cost((weight - found).double().numpy(), hessian) < 1.02 * least
