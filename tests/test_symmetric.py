from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown import symmetric


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(1, 40), st.integers(0, 99))
def test_half_of_the_blocks_give_the_whole_product(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    moment = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    moment = moment + moment.T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(symmetric, "SMALLEST", 1)
        torch.testing.assert_close(symmetric.gram(matrix), matrix.T @ matrix)
        assert symmetric.quadratic(matrix, moment) == pytest.approx(float(torch.einsum("ri,ij,rj->", matrix, moment, matrix)), abs=1e-9)


def test_a_large_gram_matrix_is_symmetric_and_as_exact_as_the_whole_product():
    rows = torch.randn(300, 700, generator=torch.Generator().manual_seed(0))
    found, exact = symmetric.gram(rows), rows.double().T @ rows.double()
    assert torch.equal(found, found.T)
    assert (found - exact).norm() <= 2 * (rows.T @ rows - exact).norm()
    assert symmetric.quadratic(rows, found) == pytest.approx(float(((rows.double() @ exact) * rows).sum()), rel=1e-5)
