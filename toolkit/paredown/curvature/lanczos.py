r"""The Lanczos process with full re-orthogonalisation: \(A Q = Q T + \beta_m q_{m+1} e_m^\top\), T tridiagonal.

Without it the largest eigenvalue returns as "ghost" copies (6 to 10 of them in 50 steps on a transformer's layer). The basis is
kept, so the memory is steps + 2 vectors of the layers' size, and a step costs the product and two passes over the basis, four where much cancels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paredown.curvature.operators import CurvatureOperator
from paredown.curvature.probes import generator_for
from paredown.errors import ParedownError


@dataclass(frozen=True, eq=False, slots=True)
class Tridiagonal:
    r"""The projection of an operator onto a Krylov space.

    Attributes:
        alphas: Diagonal of T, [m].
        betas: Beside the diagonal [m - 1], and last \(\beta_m\), what leads out of the space: [m] in all. Zero where the space is
            invariant; a step after that began with a fresh vector.
        basis: Orthonormal rows q, [m, n], in the operator's dtype.
    """

    alphas: tuple[float, ...]
    betas: tuple[float, ...]
    basis: Tensor

    @property
    def invariant(self) -> bool:
        """Whether the operator doesn't lead out of the space: its Ritz pairs are eigenpairs."""
        return self.betas[-1] == 0

    def ritz(self) -> tuple[np.ndarray, np.ndarray]:
        """Ritz values, ascending [m], and the eigenvectors of T in columns [m, m]."""
        beside = np.diag(self.betas[:-1], 1)
        values, vectors = np.linalg.eigh(np.diag(self.alphas) + beside + beside.T)
        return values, vectors


def lanczos(
    operator: CurvatureOperator, start: Tensor, steps: int, on_step: Callable[[Tridiagonal], bool | None] | None = None
) -> Tridiagonal:
    r"""Some Lanczos steps, orthogonalised against all vectors before (Parlett, The Symmetric Eigenvalue Problem, 1980, 6.9).

    Where the space becomes invariant, the process goes on from a random vector that is orthogonal to it, with \(\beta = 0\).

    Args:
        operator: A.
        start: First vector [n]; need not be normalised.
        steps: Products at most; no more than the dimension are made.
        on_step: Called after every step; the process ends where it answers True.

    Returns:
        T and the basis.

    Raises:
        ParedownError: If the start is zero or not finite, or a product is not finite.
    """
    last = None
    for last in tridiagonals(operator, start, steps):
        if on_step is not None and on_step(last):
            break
    assert last is not None
    return last


def tridiagonals(operator: CurvatureOperator, start: Tensor, steps: int) -> Iterator[Tridiagonal]:
    """The state after each step, see `lanczos`; the bases share their memory.

    Raises:
        ParedownError: If the start is zero or not finite, or a product is not finite.
    """
    if steps < 1:
        raise ParedownError(f"steps must be at least 1, got {steps}")
    steps = min(steps, operator.dimension)
    vector = start.detach().to(operator.device, operator.dtype)
    norm = float(vector.norm())
    if not (math.isfinite(norm) and norm > 0):
        raise ParedownError(f"expected a finite, non-zero start vector, got one of norm {norm}")
    basis = torch.empty(steps, operator.dimension, dtype=operator.dtype, device=operator.device)
    alphas: list[float] = []
    betas: list[float] = []
    precision = 10 * torch.finfo(operator.dtype).eps
    size = 0.0  # of the operator, as far as it was seen
    basis[0] = vector / norm
    for step in range(steps):
        product = operator @ basis[step]
        alpha = float(product.double() @ basis[step].double())
        size = max(size, float(product.norm()))
        if not math.isfinite(alpha):
            raise ParedownError(
                f"the product with the matrix is NaN or infinite in step {step + 1}; look for such values in weights or losses"
            )
        rest = product - alpha * basis[step]
        if step and betas[-1]:
            rest -= betas[-1] * basis[step - 1]
        rest = _orthogonal(rest, basis[: step + 1])
        beta = float(rest.norm())
        fresh = beta <= precision * size
        alphas.append(alpha)
        betas.append(0.0 if fresh else beta)
        if step + 1 < steps:
            if fresh:
                rest = torch.randn(operator.dimension, generator=generator_for(step, "lanczos restart")).to(rest)
                rest = _orthogonal(rest, basis[: step + 1])
                beta = float(rest.norm())
            basis[step + 1] = rest / beta
        elif step + 1 == operator.dimension:
            betas[-1] = 0.0  # the whole space; what is left is rounding
        yield Tridiagonal(tuple(alphas), tuple(betas), basis[: step + 1])


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """What of the vector is orthogonal to the rows; once more where a pass took so much that rounding shows: twice is enough (Kahan)."""
    for _ in range(2):
        before, vector = float(vector.norm()), vector - basis.T @ (basis @ vector)
        if float(vector.norm()) > math.sqrt(0.5) * before:
            break
    return vector
