import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.curvature import lanczos
from paredown.errors import ParedownError
from reference.matrix import Matrix, random_symmetric


def start(n, seed=1):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 25), steps=st.integers(1, 30), seed=st.integers(0, 1000), rank=st.integers(0, 25))
def test_the_basis_is_orthonormal_and_the_recurrence_holds(n, steps, seed, rank):
    matrix = random_symmetric(n, seed, [float(i + 1) if i < rank else 0.0 for i in range(n)])
    state = lanczos(Matrix(matrix), start(n, seed), steps)
    m = len(state.alphas)
    assert m == min(n, steps)
    q = state.basis
    torch.testing.assert_close(q @ q.T, torch.eye(m, dtype=torch.float64), atol=1e-10, rtol=0)
    beside = torch.tensor(state.betas[:-1], dtype=torch.float64)
    t = torch.diag(torch.tensor(state.alphas, dtype=torch.float64)) + torch.diag(beside, 1) + torch.diag(beside, -1)
    rest = matrix @ q.T - q.T @ t  # beta_m q_{m+1} e_m^T
    assert rest[:, :-1].abs().max() <= 1e-8 if m > 1 else True
    assert float(rest[:, -1].norm()) == pytest.approx(state.betas[-1], abs=1e-8)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_the_basis_stays_orthogonal_where_eigenvalues_converge_early(dtype, bound):
    matrix = random_symmetric(400, 2, [1e4, 1e3, -100.0, *torch.linspace(-1, 1, 397).tolist()])
    q = lanczos(Matrix(matrix.to(dtype)), start(400), 60).basis
    assert (q @ q.T - torch.eye(60, dtype=dtype)).abs().max() < bound


def test_with_as_many_steps_as_the_dimension_the_eigenvalues_are_the_dense_ones():
    matrix = random_symmetric(40)
    values, _ = lanczos(Matrix(matrix), start(40), 40).ritz()
    torch.testing.assert_close(torch.from_numpy(values), torch.linalg.eigvalsh(matrix), rtol=1e-9, atol=1e-11)


def test_no_ghosts_where_the_top_eigenvalue_stands_far_out():
    matrix = random_symmetric(60, 2, [1000.0, *torch.linspace(-1, 1, 59).tolist()])
    values, _ = lanczos(Matrix(matrix), start(60), 50).ritz()
    assert (values > 500).sum() == 1


def test_an_invariant_space_is_left_by_a_fresh_vector():
    matrix = random_symmetric(12, 3, [3.0, 3.0, 3.0, 1.0, 1.0] + [0.0] * 7)
    state = lanczos(Matrix(matrix), start(12), 12)
    assert state.betas[2] == 0  # three different eigenvalues
    values, _ = state.ritz()
    torch.testing.assert_close(torch.from_numpy(values), torch.linalg.eigvalsh(matrix), rtol=1e-9, atol=1e-10)


def test_it_ends_where_the_caller_says_so():
    operator = Matrix(random_symmetric(20))
    assert len(lanczos(operator, start(20), 15, lambda state: len(state.alphas) == 4).alphas) == 4
    assert operator.products == 4


def test_bad_starts_and_products_are_refused():
    with pytest.raises(ParedownError, match=r"non-zero start vector, got one of norm 0\.0"):
        lanczos(Matrix(torch.eye(3)), torch.zeros(3), 2)
    with pytest.raises(ParedownError, match="NaN or infinite in step 1"):
        lanczos(Matrix(torch.full((3, 3), torch.nan)), torch.ones(3), 2)
    with pytest.raises(ParedownError, match="steps must be at least 1, got 0"):
        lanczos(Matrix(torch.eye(3)), torch.ones(3), 0)
