"""Low-rank corrections with explicit roots of the moment, as the papers write them (float64)."""

import torch


def eora(change, moment, rank):
    """EoRA: eigenspace projection, eigenvalues that are not positive set to the smallest positive one."""
    values, vectors = torch.linalg.eigh(moment)
    values = values.clamp(min=values[values > 0].min())
    root, inverse = vectors * values.sqrt(), (vectors / values.sqrt()).T
    return _cut(change @ root, rank) @ inverse


def cholesky_whitened(change, moment, rank):
    """SVD-LLM: truncation-aware whitening by a Cholesky factor."""
    root = torch.linalg.cholesky(moment)
    return _cut(change @ root, rank) @ torch.linalg.inv(root)


def activation_error(change, moment):
    return torch.trace(change @ moment @ change.T).item()


def _cut(matrix, rank):
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left[:, :rank] * values[:rank] @ right[:rank]
