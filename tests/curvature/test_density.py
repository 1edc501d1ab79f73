import numpy as np
import pytest
import torch

from paredown.curvature import exact_density, moments, probe_density, smooth, spectral_density, symlog_grid
from paredown.curvature.lanczos import lanczos
from paredown.curvature.probes import generator_for
from paredown.smoothing import FLOOR, from_symlog, symlog
from reference.matrix import Matrix, random_symmetric


def test_with_as_many_steps_as_the_dimension_the_quadrature_is_the_spectral_measure_of_the_start():
    matrix = random_symmetric(15)
    values, vectors = torch.linalg.eigh(matrix)
    signs = Matrix(matrix).signs(torch.Generator().manual_seed(3))
    nodes, eigenvectors = lanczos(Matrix(matrix), signs, 15).ritz()
    np.testing.assert_allclose(nodes, values.numpy(), atol=1e-9)
    np.testing.assert_allclose(eigenvectors[0] ** 2, ((vectors.T @ signs) ** 2 / 15).numpy(), atol=1e-9)


def test_the_mean_over_all_basis_starts_is_the_spectrum_itself():
    matrix = random_symmetric(10, 2)
    values = torch.linalg.eigvalsh(matrix).numpy()
    total = np.zeros(10)
    for row in torch.eye(10, dtype=torch.float64):
        nodes, vectors = lanczos(Matrix(matrix), row, 10).ritz()
        np.testing.assert_allclose(nodes, values, atol=1e-9)
        total += vectors[0] ** 2 / 10
    np.testing.assert_allclose(total, np.full(10, 0.1), atol=1e-9)


def test_the_first_moments_of_a_probe_are_exact_for_its_start():
    matrix = random_symmetric(30, 4)
    nodes, weights = probe_density(Matrix(matrix), steps=6, seed=5)
    start = Matrix(matrix).signs(generator_for(5, "density", (0,)))
    vector = start.clone()
    for order in range(12):  # 2 m - 1 of them
        assert np.dot(weights, np.array(nodes) ** order) == pytest.approx(float(start @ vector) / 30, rel=1e-8, abs=1e-10)
        vector = matrix @ vector


def test_moments_are_trace_and_squared_norm_within_their_error():
    matrix = random_symmetric(80, 6)
    mean, error = moments(*spectral_density(Matrix(matrix), steps=8, probes=60, seed=1))
    truth = np.array([float(matrix.trace()), float(matrix.square().sum())]) / 80
    assert (np.abs(mean - truth) <= 4 * error).all()
    assert (error < 0.2 * np.abs(truth).max()).all()
    assert np.isinf(moments(*spectral_density(Matrix(matrix), steps=3, probes=1))[1]).all()


def test_probes_do_not_depend_on_how_many_there_are():
    matrix = Matrix(random_symmetric(20))
    few, many = spectral_density(matrix, probes=2, seed=9), spectral_density(matrix, probes=4, seed=9)
    assert many[0][:2] == few[0]
    assert probe_density(matrix, seed=9, probe=3) == (many[0][3], many[1][3])
    assert spectral_density(matrix, probes=2, seed=10) != few


def test_it_stops_where_the_krylov_space_is_whole():
    operator = Matrix(random_symmetric(50, 7, [4.0, 2.0] + [0.0] * 48))
    nodes, weights = probe_density(operator, steps=20)
    assert operator.products == len(nodes) == 3
    assert sum(weights) == pytest.approx(1)
    np.testing.assert_allclose(sorted(nodes), [0, 2, 4], atol=1e-9)


def test_a_known_spectrum_is_a_density_too():
    nodes, weights = exact_density([3.0, 1.0], 8)
    assert nodes == (0.0, 1.0, 3.0)
    assert weights == (0.75, 0.125, 0.125)
    assert exact_density([3.0, -1.0], 2) == ((-1.0, 3.0), (0.5, 0.5))
    mean, _ = moments([nodes], [weights])
    np.testing.assert_allclose(mean, [0.5, 1.25])


def test_the_axis_is_linear_inside_logarithmic_outside_and_odd():
    t = 0.1
    assert symlog(1e4, t) - symlog(1e3, t) == pytest.approx(1, abs=1e-6)
    assert symlog(0.002, t) == pytest.approx(2 * symlog(0.001, t), rel=1e-3)
    values = np.array([-5e3, -0.01, 0, 0.3, 7e6])
    np.testing.assert_allclose(symlog(-values, t), -symlog(values, t))
    np.testing.assert_allclose(from_symlog(symlog(values, t), t), values, rtol=1e-9)


def test_the_drawn_density_has_area_one_a_band_and_a_logarithm():
    nodes, weights = spectral_density(Matrix(random_symmetric(60)), steps=10, probes=5)
    grid = symlog_grid(nodes, linear_within=0.05, points=400, margin=1.0)
    mean, error = smooth(nodes, weights, grid, 0.15, linear_within=0.05)
    at = symlog(grid, 0.05)
    assert np.trapezoid(mean, at) == pytest.approx(1, abs=1e-6)
    assert (mean >= FLOOR).all()
    assert (error >= 0).all()
    assert error.max() > 0
    far, _ = smooth(nodes, weights, np.array([1e30, -1e30]), 0.1, linear_within=0.05)
    assert np.isfinite(np.log(far)).all()
    assert (smooth(nodes[:1], weights[:1], grid, 0.15, linear_within=0.05)[1] == 0).all()
