import math

import numpy as np
import pytest
import torch

from paredown.curvature import hutchinson, probed_diagonal, refined_trace
from paredown.errors import ParedownError
from reference.matrix import Matrix, random_symmetric


def test_mean_and_variance_are_those_of_the_theory():
    matrix = random_symmetric(25)
    found = hutchinson(Matrix(matrix), 4000, seed=1)
    variance = 2 * float((matrix - matrix.diag().diag()).square().sum())
    assert abs(found.mean - float(matrix.trace())) <= 4 * math.sqrt(variance / 4000)
    assert found.sd == pytest.approx(math.sqrt(variance / 4000), rel=0.1)
    values = np.array(found.values)
    spread = ((values - found.mean) ** 2).std() / math.sqrt(4000)  # standard error of the variance
    assert abs(values.var() - variance) <= 4 * spread


def test_a_diagonal_matrix_needs_one_probe():
    found = hutchinson(Matrix(torch.diag(torch.arange(6.0))), 3)
    assert found.values == (15.0, 15.0, 15.0)
    assert found.sd == 0
    assert math.isinf(hutchinson(Matrix(torch.eye(3)), 1).sd)


def test_refinement_ends_when_the_standard_error_is_small_and_each_estimate_extends_the_last():
    matrix = Matrix(random_symmetric(60, 2, torch.linspace(0, 1, 60).tolist()))
    found = list(refined_trace(matrix, relative_error=0.02, seed=4))
    assert found[-1].sd <= 0.02 * abs(found[-1].mean)
    assert all(len(each.values) < 10 or each.sd > 0.02 * abs(each.mean) for each in found[:-1])
    assert [len(each.values) for each in found] == list(range(1, len(found) + 1))
    assert found[-1] == hutchinson(matrix, len(found), seed=4)


def test_two_probes_that_agree_end_nothing():
    quiet = Matrix(torch.eye(5))  # every probe gives the same
    assert len(list(refined_trace(quiet))) == 10


def test_a_trace_near_zero_is_read_against_the_scale():
    matrix = random_symmetric(40)
    matrix -= matrix.trace() / 40 * torch.eye(40, dtype=torch.float64)
    assert len(list(refined_trace(Matrix(matrix), max_probes=200))) == 200
    found = list(refined_trace(Matrix(matrix), scale=100.0, max_probes=200))
    assert len(found) < 200
    assert found[-1].sd <= 5


def test_95_percent_intervals_hold_the_truth_in_90_to_99_percent_of_repetitions():
    matrix = random_symmetric(30, 7)
    truth, operator = float(matrix.trace()), Matrix(matrix)
    runs = [hutchinson(operator, 40, seed) for seed in range(200)]
    assert 0.90 <= np.mean([abs(run.mean - truth) <= 1.96 * run.sd for run in runs]) <= 0.99


def test_the_diagonal_lies_within_its_errors():
    matrix = random_symmetric(30, 3)
    mean, error = probed_diagonal(Matrix(matrix), 500, seed=2)
    off = (matrix.square().sum(1) - matrix.diag().square()) / 500
    torch.testing.assert_close(error, off.sqrt(), rtol=0.2, atol=0)
    assert ((mean - matrix.diag()).abs() <= 4.5 * error).all()
    assert float(mean.sum()) != hutchinson(Matrix(matrix), 500, seed=2).mean  # other probes: other purpose


def test_at_least_one_probe_is_needed():
    for ask in (hutchinson, probed_diagonal):
        with pytest.raises(ParedownError, match="at least one probe, got 0"):
            ask(Matrix(torch.eye(2)), 0)
