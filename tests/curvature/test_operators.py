import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh

from paredown.errors import ParedownError
from reference.matrix import Matrix, layer_of, random_symmetric


@pytest.fixture
def operator():
    return Matrix(random_symmetric(18), [layer_of((2, 3), "first"), layer_of((4, 3), "second")])


def test_vectors_columns_and_layers_are_multiplied_in_the_form_that_they_come_in(operator):
    columns = torch.randn(18, 5, dtype=torch.float64)
    torch.testing.assert_close(operator @ columns, operator.matrix @ columns)
    torch.testing.assert_close(operator @ columns[:, 0], operator.matrix @ columns[:, 0])
    parts = [torch.randn(2, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)]
    first, second = operator @ parts
    assert (first.shape, second.shape) == ((2, 3), (4, 3))
    torch.testing.assert_close(torch.cat([first.flatten(), second.flatten()]), operator.matrix @ torch.cat([p.flatten() for p in parts]))


def test_split_and_join_are_inverse_for_vectors_and_for_columns(operator):
    for vectors in (torch.randn(18), torch.randn(18, 4)):
        torch.testing.assert_close(operator.join(operator.split(vectors)), vectors)
    columns = torch.randn(18, 4)
    for k in range(4):
        for stacked, single in zip(operator.split(columns), operator.split(columns[:, k]), strict=True):
            torch.testing.assert_close(stacked[k], single)


def test_it_is_its_own_adjoint_and_knows_its_shape(operator):
    assert operator.shape == (18, 18)
    assert operator.T is operator
    assert operator.adjoint() is operator
    torch.testing.assert_close(operator.dense(), operator.matrix)


def test_quadratic_forms_of_a_batch_of_changes(operator):
    flat = torch.randn(3, 18, dtype=torch.float64)
    expected = torch.stack([v @ operator.matrix @ v for v in flat])
    torch.testing.assert_close(operator.quadratic_forms(list(flat)), expected)
    torch.testing.assert_close(operator.quadratic_forms([operator.split(v) for v in flat]), expected)
    assert operator.quadratic_forms([]).shape == (0,)


def test_scipy_finds_the_eigenvalues(operator):
    found = eigsh(operator.to_scipy(), k=4, which="LA", return_eigenvectors=False)
    expected = torch.linalg.eigvalsh(operator.matrix)[-4:].numpy()
    np.testing.assert_allclose(np.sort(found), expected, rtol=1e-8)
    exported = operator.to_scipy()
    assert exported.dtype == np.float64
    block = np.random.default_rng(0).standard_normal((18, 2))
    np.testing.assert_allclose(exported @ block, operator.matrix.numpy() @ block, rtol=1e-10)
    np.testing.assert_allclose(exported.H @ block[:, 0], operator.matrix.numpy() @ block[:, 0], rtol=1e-10)


def test_wrong_shapes_are_refused_with_the_remedy(operator):
    with pytest.raises(ParedownError, match=r"expected a vector \[18\] or columns \[18, k\], got \[17\]"):
        operator @ torch.zeros(17)
    with pytest.raises(ParedownError, match=r"expected tensors \[\[2, 3\], \[4, 3\]\], one a layer, got \[\[3, 2\]\]"):
        operator @ [torch.zeros(3, 2)]
    with pytest.raises(ParedownError, match="at most 20000 weights for a dense matrix, got 20001"):
        Matrix(torch.zeros(1, 1), [layer_of((1, 20_001))]).dense()
