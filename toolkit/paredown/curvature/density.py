r"""Spectral density by stochastic Lanczos quadrature: \(\phi(\lambda) = \frac1n \sum_i \delta(\lambda - \lambda_i)\).

From a random start v, m steps give the Gauss quadrature of \(\sum_i \langle v, q_i \rangle^2 \delta(\lambda - \lambda_i)\): nodes are the
Ritz values, weights the squared first components of T's eigenvectors (Golub and Welsch, 1969; Ubaru, Chen and Saad, 2017;
Ghorbani, Krishnan and Xiao, 2019). A probe's first 2m - 1 moments are exact for its start; the spread over probes is the probe error.
What is kept are nodes and weights; smoothing is chosen when they are drawn (`paredown.smoothing`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paredown.curvature.lanczos import Tridiagonal, lanczos
from paredown.curvature.operators import CurvatureOperator
from paredown.curvature.probes import generator_for

Quadrature = tuple[tuple[float, ...], tuple[float, ...]]
"""Nodes, ascending, and their weights, which sum to 1."""


def probe_lanczos(operator: CurvatureOperator, *, steps: int = 20, seed: int = 0, probe: int = 0) -> Tridiagonal:
    """Lanczos steps from one probe of random signs; fewer than `steps` where its Krylov space is smaller.

    Args:
        operator: The matrix.
        steps: Products.
        seed: Seed of the signs.
        probe: Number of the probe, which makes its signs independent of the others'.

    Raises:
        ParedownError: If a product is not finite.
    """
    start = operator.signs(generator_for(seed, "density", (probe,)))
    return lanczos(operator, start, steps, lambda state: state.invariant)


def quadrature(state: Tridiagonal) -> Quadrature:
    """Nodes and weights of a probe's Lanczos steps; the weights sum to 1."""
    values, vectors = state.ritz()
    return tuple(values.tolist()), tuple((vectors[0] ** 2).tolist())


def probe_density(operator: CurvatureOperator, *, steps: int = 20, seed: int = 0, probe: int = 0) -> Quadrature:
    """Nodes and weights of one probe, as of `probe_lanczos`."""
    return quadrature(probe_lanczos(operator, steps=steps, seed=seed, probe=probe))


def spectral_density(
    operator: CurvatureOperator, *, steps: int = 20, probes: int = 1, seed: int = 0
) -> tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]:
    """Nodes and weights of some probes, one tuple each; `probe_density` gives them one at a time."""
    pairs = [probe_density(operator, steps=steps, seed=seed, probe=probe) for probe in range(probes)]
    return tuple(nodes for nodes, _ in pairs), tuple(weights for _, weights in pairs)


def exact_density(eigenvalues: Sequence[float], dimension: int) -> Quadrature:
    """Nodes and weights of a known spectrum: these eigenvalues, and zero for the rest of the dimension."""
    rest = dimension - len(eigenvalues)
    nodes = np.array([*eigenvalues, *([0.0] if rest else [])])
    weights = np.array([*([1.0] * len(eigenvalues)), *([float(rest)] if rest else [])]) / dimension
    order = nodes.argsort()
    return tuple(nodes[order].tolist()), tuple(weights[order].tolist())


def moments(
    nodes: Sequence[Sequence[float]], weights: Sequence[Sequence[float]], orders: Sequence[int] = (1, 2)
) -> tuple[np.ndarray, np.ndarray]:
    r"""Moments \(\mathrm{tr}(A^k) / n\) of a density, to be checked against what else is known of the matrix.

    Args:
        nodes: One sequence a probe.
        weights: One sequence a probe.
        orders: k.

    Returns:
        Mean and standard error over the probes, each [orders]; the error is infinite for one probe, which says nothing of the spread.
    """
    each = np.array([[np.dot(w, np.asarray(x, float) ** k) for k in orders] for x, w in zip(nodes, weights, strict=True)])
    probes = len(each)
    error = each.std(0, ddof=1) / probes**0.5 if probes > 1 else np.full(len(orders), np.inf)
    return each.mean(0), error
