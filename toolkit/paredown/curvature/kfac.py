r"""K-FAC: a layer's block as one Kronecker product, \(G \otimes A\) (Martens and Grosse, 2015).

Exact where a layer sees one token; otherwise it treats inputs and gradients as independent. Convention for shared weights: see
`paredown.curvature.kronecker.eigenbasis`. Never derive a spectrum from it.
"""

from __future__ import annotations

from collections.abc import Sequence

from paredown.curvature.kronecker import Eigenbasis, KroneckerFactored, eigenbasis
from paredown.curvature.outer_products import OuterProducts


def kfac(products: OuterProducts, bases: Sequence[Eigenbasis] | None = None) -> KroneckerFactored:
    r"""K-FAC of a Gauss-Newton or Fisher matrix, without running the model again.

    Args:
        products: The matrix whose captured gradients are factored.
        bases: Of each layer, where they are at hand.

    Raises:
        ParedownError: If a layer is too large, or is looked up and multiplied by.
    """
    bases = bases or [eigenbasis(products, index) for index in range(len(products.layers))]
    return KroneckerFactored(products.layers, bases, [basis.left_values[:, None] * basis.right_values for basis in bases])
