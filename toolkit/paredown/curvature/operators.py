"""What every curvature matrix is: a symmetric linear operator on the weights of some layers."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from paredown.curvature.probes import signs
from paredown.errors import ParedownError
from paredown.specs import LayerRef

DENSE_LIMIT = 20_000
"""Largest dimension that `CurvatureOperator.dense` forms."""


class CurvatureOperator(ABC):
    r"""A symmetric matrix over the weights of one or several layers that is only ever multiplied.

    A vector is flat [n]: layer after layer, each layer's [out, in] row by row. Products also take columns [n, k], and a sequence
    of one [out, in] tensor a layer, and answer in the form that they were asked in.

    Attributes:
        layers: The layers, in the order of the vector.
        dtype: Of the products.
        device: Where the products are computed.

    Args:
        layers: See above.
        dtype: See above.
        device: See above.
    """

    def __init__(self, layers: Sequence[LayerRef], dtype: torch.dtype, device: torch.device) -> None:
        self.layers = tuple(layers)
        self.dtype = dtype
        self.device = device

    @abstractmethod
    def _matmat(self, vectors: Tensor) -> Tensor:
        """The products with the columns: [n, k] to [n, k]; `vectors` has the operator's dtype and device."""

    @property
    def dimension(self) -> int:
        """Number of weights n."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def shape(self) -> tuple[int, int]:
        """[n, n]."""
        return self.dimension, self.dimension

    @property
    def T(self) -> CurvatureOperator:  # noqa: N802
        """The operator itself, which is symmetric."""
        return self

    def adjoint(self) -> CurvatureOperator:
        """The operator itself, which is real and symmetric."""
        return self

    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, other: Sequence[Tensor]) -> list[Tensor]: ...
    def __matmul__(self, other: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """The product with [n], [n, k] or one [out, in] a layer.

        Raises:
            ParedownError: If the shape is none of these.
        """
        if not isinstance(other, Tensor):
            return self.split(self @ self.join(other))
        if other.dim() not in (1, 2) or len(other) != self.dimension:
            raise ParedownError(
                f"expected a vector [{self.dimension}] or columns [{self.dimension}, k], got {list(other.shape)};"
                " give one [out, in] tensor a layer as a list, or flatten them with join"
            )
        vectors = other.to(self.device, self.dtype)
        return self._matmat(vectors[:, None])[:, 0] if other.dim() == 1 else self._matmat(vectors)

    def split(self, flat: Tensor) -> list[Tensor]:
        """A vector [n] as one [out, in] a layer; columns [n, k] as one [k, out, in] a layer."""
        ends = list(itertools.accumulate(layer.parameters for layer in self.layers))
        pieces = [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        shapes = [layer.shape for layer in self.layers]
        if flat.dim() == 1:
            return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        return [piece.T.reshape(-1, *shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """One [out, in] a layer as a vector [n]; one [k, out, in] a layer as columns [n, k].

        Raises:
            ParedownError: If there is not one tensor of the layer's shape for every layer.
        """
        shapes = [tuple(part.shape[-2:]) for part in parts]
        if shapes != [layer.shape for layer in self.layers]:
            raise ParedownError(
                f"expected tensors {[list(layer.shape) for layer in self.layers]}, one a layer, got {list(map(list, shapes))}"
            )
        return (
            torch.cat([part.flatten(-2) for part in parts], -1).T
            if parts[0].dim() == 3
            else torch.cat([part.reshape(-1) for part in parts])
        )

    def columns(self, changes: Sequence[Tensor | Sequence[Tensor]]) -> Tensor:
        """Changes of the weights as columns [n, k]; each is flat, or the [out, in] of the only layer, or one [out, in] a layer."""
        flat = [
            change.reshape(-1)
            if isinstance(change, Tensor) and change.dim() == 1
            else self.join([change] if isinstance(change, Tensor) else change)
            for change in changes
        ]
        return (
            torch.stack(flat, 1).to(self.device, self.dtype)
            if flat
            else torch.zeros(self.dimension, 0, dtype=self.dtype, device=self.device)
        )

    def quadratic_forms(self, changes: Sequence[Tensor | Sequence[Tensor]]) -> Tensor:
        r"""\(\langle \Delta W, A\, \Delta W \rangle\) of each change, [k], float64.

        Args:
            changes: As `columns` takes them.
        """
        columns = self.columns(changes)
        return (columns.double() * self._matmat(columns).double()).sum(0)

    def signs(self, generator: torch.Generator) -> Tensor:
        """Random signs [n] (Rademacher): the probe of traces, diagonals and densities."""
        return signs((self.dimension,), torch.empty(0, dtype=self.dtype, device=self.device), generator)

    def dense(self) -> Tensor:
        """The matrix [n, n]; for tests and tiny layers.

        Raises:
            ParedownError: If the dimension exceeds `DENSE_LIMIT`.
        """
        if self.dimension > DENSE_LIMIT:
            raise ParedownError(
                f"expected at most {DENSE_LIMIT} weights for a dense matrix, got {self.dimension}; multiply by the operator instead"
            )
        return self._matmat(torch.eye(self.dimension, dtype=self.dtype, device=self.device))

    def to_scipy(self) -> LinearOperator:
        """The operator for SciPy, such as ``scipy.sparse.linalg.eigsh(operator.to_scipy())``."""
        dtype = torch.zeros(0, dtype=self.dtype).numpy().dtype

        def product(vectors: np.ndarray) -> np.ndarray:
            answer = self @ torch.from_numpy(np.ascontiguousarray(vectors.reshape(self.dimension, -1)))
            return answer.cpu().numpy().reshape(vectors.shape)

        return LinearOperator(self.shape, matvec=product, rmatvec=product, matmat=product, rmatmat=product, dtype=dtype)  # type: ignore[call-arg]
