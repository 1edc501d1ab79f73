"""A known symmetric matrix as an operator, with as many layers as are asked for."""

import torch

from paredown.curvature.operators import CurvatureOperator
from paredown.specs import LayerRef


def layer_of(shape, name="layer", kind="linear"):
    return LayerRef(name, kind, "other", "", tuple(shape), "float64")


class Matrix(CurvatureOperator):
    def __init__(self, matrix, layers=None):
        super().__init__(layers or [layer_of((1, len(matrix)))], matrix.dtype, matrix.device)
        self.matrix = matrix
        self.products = 0

    def _matmat(self, vectors):
        self.products += vectors.shape[1]
        return self.matrix @ vectors


def random_symmetric(n, seed=0, eigenvalues=None):
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    if eigenvalues is None:
        eigenvalues = torch.randn(n, generator=generator, dtype=torch.float64)
    return (basis * torch.as_tensor(eigenvalues, dtype=torch.float64)) @ basis.T
