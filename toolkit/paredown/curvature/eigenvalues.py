"""The ends of a spectrum: the largest and the smallest eigenvalues, each with a bound on its error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paredown.curvature.lanczos import Tridiagonal, lanczos
from paredown.curvature.operators import CurvatureOperator
from paredown.curvature.probes import generator_for

SMALL = 0.01
"""Eigenvalues smaller than this share of the largest magnitude are held to the residual of one of that size."""


@dataclass(frozen=True, eq=False, slots=True)
class Eigenpairs:
    r"""Some eigenpairs of a symmetric matrix.

    Attributes:
        values: The largest, descending, then the smallest, ascending; [k].
        vectors: Of unit length, in columns [n, k].
        residuals: \(\|A v - \theta v\|\) of each, [k]: some eigenvalue of A lies within it of \(\theta\).
        products: Products with the matrix that it took.
    """

    values: tuple[float, ...]
    vectors: Tensor
    residuals: tuple[float, ...]
    products: int


def extreme_eigenvalues(
    operator: CurvatureOperator,
    top: int = 1,
    bottom: int = 0,
    *,
    residual: float = 1e-2,
    start: Tensor | None = None,
    max_products: int = 100,
    seed: int = 0,
) -> Eigenpairs:
    r"""The largest and smallest eigenvalues by Lanczos, until all residuals are small or the products are used up.

    The residual \(\|A v - \theta v\| = |\beta_m s_m|\) comes for free, s_m the last component of T's eigenvector. It bounds the distance
    to some eigenvalue; that this one is the largest is as sure as that the start has a part along its vector.

    Args:
        operator: The matrix.
        top: How many of the largest.
        bottom: How many of the smallest.
        residual: Asked for, relative to the eigenvalue's magnitude (`SMALL` of the largest one at least). What was reached is in the answer.
        start: First vector [n], such as a kindred matrix's eigenvector; random where None.
        max_products: Products at most, and vectors in memory.
        seed: Seed of the random start.

    Returns:
        The pairs; fewer than asked where the dimension or the products don't give as many.

    Raises:
        ParedownError: If a product is not finite.
    """
    if start is None:
        start = torch.randn(operator.dimension, generator=generator_for(seed, "eigenvalues"), dtype=torch.float64)
    least = min(max(top, bottom, 2), operator.dimension)

    def reached(state: Tridiagonal) -> bool:
        # a space that is invariant from the start says nothing of what is outside: one more vector looks there
        fresh = len(state.alphas) - 1 - max((i for i, beta in enumerate(state.betas) if beta == 0), default=-1)
        whole = len(state.alphas) == operator.dimension
        if not whole and (len(state.alphas) < least or (0 in state.betas and fresh < 2)):
            return False
        values, errors, _ = _ends(state, top, bottom)
        allowed = residual * np.maximum(np.abs(values), SMALL * np.abs(state.ritz()[0]).max())
        return bool((errors <= allowed).all())

    return ritz_pairs(lanczos(operator, start, max_products, reached), top, bottom)


def ritz_pairs(state: Tridiagonal, top: int = 1, bottom: int = 0) -> Eigenpairs:
    """The ends of the spectrum as far as some Lanczos steps show them, such as those of a density."""
    values, errors, weights = _ends(state, top, bottom)
    vectors = state.basis.T @ torch.from_numpy(weights).to(state.basis)
    return Eigenpairs(tuple(values.tolist()), vectors, tuple(errors.tolist()), len(state.alphas))


def _ends(state: Tridiagonal, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ritz values, residuals and eigenvectors of T, the largest first, then the smallest."""
    values, vectors = state.ritz()
    order = [*range(len(values) - 1, len(values) - 1 - min(top, len(values)), -1), *range(min(bottom, len(values)))]
    return values[order], np.abs(state.betas[-1] * vectors[-1, order]), vectors[:, order]
