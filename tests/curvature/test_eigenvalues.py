import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.curvature import extreme_eigenvalues
from reference.matrix import Matrix, random_symmetric


def dense(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0), vectors.flip(1)


def test_both_ends_are_those_of_the_dense_matrix():
    matrix = random_symmetric(60)
    values, vectors = dense(matrix)
    found = extreme_eigenvalues(Matrix(matrix), 3, 2, residual=1e-9)
    expected = [*values[:3].tolist(), *values.flip(0)[:2].tolist()]
    assert found.values == pytest.approx(expected, rel=1e-9)
    overlap = (found.vectors * torch.cat([vectors[:, :3], vectors.flip(1)[:, :2]], 1)).sum(0).abs()
    torch.testing.assert_close(overlap, torch.ones(5, dtype=torch.float64), rtol=1e-6, atol=0)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), products=st.integers(2, 30))
def test_some_eigenvalue_lies_within_the_residual_which_is_the_true_one(seed, products):
    matrix = random_symmetric(30, seed)
    found = extreme_eigenvalues(Matrix(matrix), 2, 2, residual=0, max_products=products, seed=seed)
    assert found.products == products
    values = torch.linalg.eigvalsh(matrix)
    for value, residual, vector in zip(found.values, found.residuals, found.vectors.T, strict=True):
        assert float((matrix @ vector - value * vector).norm()) == pytest.approx(residual, abs=1e-9)
        assert float((values - value).abs().min()) <= residual + 1e-9


def test_it_stops_at_the_residual_asked_for():
    operator = Matrix(random_symmetric(200, 4, [50.0, 30.0, -20.0, *torch.linspace(-1, 1, 197).tolist()]))
    found = extreme_eigenvalues(operator, 1, 1, residual=1e-2)
    assert found.residuals[0] <= 0.5
    assert found.residuals[1] <= 0.2
    assert found.products == operator.products < 30


def test_a_start_near_the_eigenvector_saves_products():
    matrix = random_symmetric(200, 5, [2.0, *torch.linspace(-1, 1.8, 199).tolist()])
    _, vectors = dense(matrix)
    near = vectors[:, 0] + 0.01 * torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 200**0.5
    cold, warm = extreme_eigenvalues(Matrix(matrix)), extreme_eigenvalues(Matrix(matrix), start=near)
    assert warm.products < cold.products
    assert warm.values[0] == pytest.approx(2, rel=1e-3)


def test_a_start_that_is_an_eigenvector_of_another_eigenvalue_does_not_hide_the_largest():
    matrix = random_symmetric(50, 6, [5.0, 1.0] + [0.0] * 48)
    found = extreme_eigenvalues(Matrix(matrix), start=dense(matrix)[1][:, 1], residual=1e-6)
    assert found.values[0] == pytest.approx(5)


def test_degenerate_matrices_have_their_eigenvalues_too():
    assert extreme_eigenvalues(Matrix(torch.zeros(7, 7)), 1, 1).values == (0.0, 0.0)
    found = extreme_eigenvalues(Matrix(2 * torch.eye(5, dtype=torch.float64)), 3, residual=1e-8)
    assert found.values == pytest.approx([2, 2, 2])
    one = extreme_eigenvalues(Matrix(torch.tensor([[-3.0]])), 2, 2)
    assert one.values == (-3.0, -3.0)
    assert one.residuals == (0.0, 0.0)
