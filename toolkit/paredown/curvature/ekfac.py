r"""EK-FAC: K-FAC's eigenvectors with eigenvalues of their own, \(D_{ij} = \frac1N \sum_s (Q_L^\top P_s Q_R)_{ij}^2\) (George et al., 2018).

That D is the best in Frobenius norm for these eigenvectors, so it is never farther from the matrix than K-FAC, and its trace is exact.
Per-sample gradients are summed over tokens before they are squared. Never derive a spectrum from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from paredown.calibration import Captured
from paredown.curvature.kronecker import Eigenbasis, KroneckerFactored, eigenbasis
from paredown.curvature.outer_products import OuterProducts
from paredown.curvature.per_sample import PerSampleGradients


def ekfac(products: OuterProducts, bases: Sequence[Eigenbasis] | None = None) -> KroneckerFactored:
    r"""EK-FAC of a Gauss-Newton or Fisher matrix, without running the model again.

    Args:
        products: The matrix whose captured gradients are factored.
        bases: Of each layer, where they are at hand.

    Raises:
        ParedownError: If a layer is too large, or is looked up and multiplied by.
    """
    bases = bases or [eigenbasis(products, index) for index in range(len(products.layers))]
    grids = [_grid(each, basis) * products.scale for each, basis in zip(products.gradients, bases, strict=True)]
    return KroneckerFactored(products.layers, bases, grids)


def _grid(gradients: PerSampleGradients, basis: Eigenbasis) -> Tensor:
    def rotated(captured: Captured) -> Captured:
        return Captured(captured.layer, tuple(tuple(basis.rotated(part) for part in parts) for parts in captured.batches))

    return PerSampleGradients(rotated(gradients.captured), tuple(map(rotated, gradients.further))).summed_squares()
