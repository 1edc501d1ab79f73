r"""Matrices \((Q_L \otimes Q_R)\, \mathrm{diag}(D)\, (Q_L \otimes Q_R)^\top\), a block for each layer: what K-FAC and EK-FAC have in common.

\(Q_L\) [out, out] and \(Q_R\) [in, in] are orthogonal, the grid D [out, in] holds the block's eigenvalues in that basis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.calibration import Part
from paredown.curvature.operators import CurvatureOperator
from paredown.curvature.outer_products import OuterProducts
from paredown.curvature.per_sample import PerSampleGradients
from paredown.errors import ParedownError
from paredown.specs import LayerRef

MAX_SIDE = 8192
"""Largest side of a layer whose factor is formed; of a 50 000-word head it would be 10 GB."""


@dataclass(frozen=True, eq=False, slots=True)
class Eigenbasis:
    """A Kronecker-factored basis and the eigenvalues of both factors.

    Attributes:
        left: Eigenvectors in columns [out, out]; None for unit vectors, which an embedding's rows have.
        left_values: [out].
        right: Eigenvectors in columns [in, in].
        right_values: [in].
    """

    left: Tensor | None
    left_values: Tensor
    right: Tensor
    right_values: Tensor

    def into(self, matrices: Tensor) -> Tensor:
        r"""\(Q_L^\top V Q_R\), [..., out, in]."""
        rotated = matrices @ self.right
        return rotated if self.left is None else self.left.T @ rotated

    def out_of(self, matrices: Tensor) -> Tensor:
        r"""\(Q_L V Q_R^\top\), [..., out, in]."""
        rotated = matrices @ self.right.T
        return rotated if self.left is None else self.left @ rotated

    def rotated(self, part: Part) -> Part:
        """Inputs and gradients in the basis."""
        if part.kind == "lookup":
            return dataclasses.replace(part, gradients=part.gradients @ self.right)
        assert self.left is not None
        return dataclasses.replace(part, inputs=part.inputs @ self.right, gradients=part.gradients @ self.left)


class KroneckerFactored(CurvatureOperator):
    """A matrix that is diagonal in Kronecker-factored bases, layer by layer; it knows nothing of terms between layers.

    Good for inverses, and for quadratic forms where nothing better is at hand. **Not for spectra**: on a transformer's layers the largest
    eigenvalue of K-FAC is 0.085 of the Gauss-Newton matrix's, that of EK-FAC 0.14. Ask `OuterProducts` for eigenvalues.

    Attributes:
        bases: Of each layer.
        grids: D of each layer, [out, in].

    Args:
        layers: The layers.
        bases: See above.
        grids: See above.
    """

    def __init__(self, layers: Sequence[LayerRef], bases: Sequence[Eigenbasis], grids: Sequence[Tensor]) -> None:
        super().__init__(layers, grids[0].dtype, grids[0].device)
        self.bases = tuple(bases)
        self.grids = tuple(grids)

    def _matmat(self, vectors: Tensor) -> Tensor:
        parts = zip(self.split(vectors), self.bases, self.grids, strict=True)
        return self.join([basis.out_of(basis.into(part) * grid) for part, basis, grid in parts])

    def trace(self) -> float:
        """The trace."""
        return float(sum(grid.double().sum() for grid in self.grids))

    def inverse(self, damping: float = 0.1) -> KroneckerFactored:
        r"""\((A + \delta I)^{-1}\), exactly, with \(\delta\) = damping × the mean eigenvalue of each layer's block.

        Args:
            damping: Share of the mean eigenvalue; 0.1 is Grosse et al.'s ("Studying large language model generalization", 2023).

        Raises:
            ParedownError: If the damping is not positive, or a block is zero.
        """
        if not damping > 0:
            raise ParedownError(f"expected a positive damping, got {damping}; the factors of few samples are singular")
        if flat := [layer.name for layer, grid in zip(self.layers, self.grids, strict=True) if not bool(grid.any())]:
            raise ParedownError(f"expected curvature to invert, but the gradients of {', '.join(flat)} are zero; leave them out")
        return KroneckerFactored(self.layers, self.bases, [1 / (grid + damping * grid.mean()) for grid in self.grids])


def eigenbasis(products: OuterProducts, index: int) -> Eigenbasis:
    r"""Eigendecompositions of a layer's factors \(G = \frac1N \sum_{s,t} g g^\top\) and \(A = \frac{1}{\#t} \sum_{s,t} a a^\top\).

    The "expand" convention for weights that are shared over tokens (Eschenhagen et al., 2023): tokens count like samples, padded ones not.
    The looked-up rows of an embedding are unit vectors, so its left factor is diagonal.

    Args:
        products: Whose captured gradients are factored.
        index: Of the layer.

    Raises:
        ParedownError: If a side exceeds `MAX_SIDE`, or the weight is used both as a lookup and as a matrix.
    """
    gradients = products.gradients[index]
    layer = gradients.captured.layer
    kinds = {part.kind for parts in gradients.captured.batches for part in parts}
    if len(kinds) > 1:
        raise ParedownError(
            f"expected a layer that is used in one way, but {layer.name} is both looked up and multiplied by, which is no Kronecker product;"
            " use its Gauss-Newton matrix"
        )
    lookup = kinds == {"lookup"}
    if max(layer.shape[1:] if lookup else layer.shape) > MAX_SIDE:
        raise ParedownError(
            f"expected sides of at most {MAX_SIDE} for Kronecker factors, {layer.name} is {list(layer.shape)}; use its Gauss-Newton matrix"
        )
    inputs, tokens = _input_factor(gradients, lookup)
    outputs = _gradient_factor(gradients) * products.scale
    if lookup:
        values, vectors = torch.linalg.eigh(outputs)
        return Eigenbasis(None, (inputs / tokens).to(products.dtype), vectors.to(products.dtype), values.clamp(min=0).to(products.dtype))
    left_values, left = torch.linalg.eigh(outputs)
    right_values, right = torch.linalg.eigh(inputs / tokens)
    pieces = (left, left_values.clamp(min=0), right, right_values.clamp(min=0))
    return Eigenbasis(*(piece.to(products.dtype) for piece in pieces))


def _input_factor(gradients: PerSampleGradients, lookup: bool) -> tuple[Tensor, int]:
    """Summed second moment of the real tokens' inputs ([rows] for a lookup), float64, and how many tokens there are."""
    rows, width = gradients.captured.layer.shape
    parts = [part for parts in gradients.captured.batches for part in parts]
    total = torch.zeros(rows if lookup else width, dtype=torch.float64, device=parts[0].inputs.device)
    total = total if lookup else total.diag()
    tokens = 0
    for part in parts:
        real = part.inputs.flatten(0, 1) if part.mask is None else part.inputs[part.mask.to(part.inputs.device)]
        total += torch.bincount(real, minlength=rows) if lookup else (real.T @ real).double()
        tokens += len(real)
    return total, tokens


def _gradient_factor(gradients: PerSampleGradients) -> Tensor:
    """Summed second moment of the gradients over all tokens and draws, float64; padded ones are zero."""
    each = (part.gradients.flatten(0, 1) for draw in gradients.draws for parts in draw.batches for part in parts)
    return sum(((g.T @ g).double() for g in each), torch.zeros((), dtype=torch.float64))
