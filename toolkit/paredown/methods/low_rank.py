r"""The best low-rank correction of an error \(\Delta W = W - \hat W\), in the norm of the weights or of the layer's outputs.

Each is a projection of the error on r output directions, \(BA = U_r U_r^T \Delta W\); they differ in the directions. The error may
come from anything: quantization, pruning, or both; with \(\hat W = 0\) the factors replace the weight.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks, moments
from paredown.methods.factors import LowRank, balanced, check_rank


def svd(change: Tensor, rank: int) -> LowRank:
    r"""The singular value decomposition, cut: the least \(\|\Delta W - BA\|_F\) (Eckart and Young 1936).

    Args:
        change: ΔW, [out, in].
        rank: r.
    """
    change = checks.finite(checks.matrix(change))
    return scaled_svd(change, torch.ones(change.shape[0]), torch.ones(change.shape[1]), rank)


def scaled_svd(change: Tensor, rows: Tensor, columns: Tensor, rank: int) -> LowRank:
    r"""The least \(\|D_r (\Delta W - BA) D_c\|_F\) with diagonal weights.

    Weights below 1e-6 of the largest are raised to it, so that nothing is divided by zero. With \(D_c\) the root mean squares of the inputs it needs only the diagonal of their moment.

    Args:
        change: ΔW, [out, in].
        rows: Diagonal of D_r, [out], nowhere negative.
        columns: Diagonal of D_c, [in], nowhere negative.
        rank: r.

    Raises:
        ParedownError: If the diagonals have another length, are negative or not finite somewhere, or are all zero.
    """
    change = checks.finite(checks.matrix(change)).double()
    rank, note = check_rank(rank, change.shape)
    rows, columns = (_floored(side.to(change), size) for side, size in zip((rows, columns), change.shape, strict=True))
    scaled = rows[:, None] * change * columns
    # the eigenvectors of the smaller Gram matrix are the directions to project on: half the cost of a singular value decomposition
    wide = scaled.shape[0] < scaled.shape[1]
    squares, vectors = torch.linalg.eigh(scaled @ scaled.T if wide else scaled.T @ scaled)
    directions, values = vectors[:, -rank:].flip(1), squares.flip(0).clamp(min=0).sqrt()
    left, right = (directions, directions.T @ scaled) if wide else (scaled @ directions, directions.T)
    return LowRank(*balanced(left / rows[:, None], right / columns), values, note)


def whitened_svd(change: Tensor, moment: Tensor, rank: int) -> LowRank:
    r"""The least error of the outputs, \(E\|(\Delta W - BA) x\|^2 = \operatorname{tr}((\Delta W - BA) C (\Delta W - BA)^T)\).

    With \(C = S S^T\) and \(\Delta W S = U \Sigma V^T\) the optimum is \(U_r \Sigma_r V_r^T S^{-1}\), and what is left of the error
    is \(\sum_{k>r} \sigma_k^2\), whichever root S is taken: Cholesky's (SVD-LLM, Wang et al. 2025) or that of the eigenspaces (EoRA).
    It equals \(U_r U_r^T \Delta W\), and U holds the eigenvectors of \(\Delta W\, C\, \Delta W^T\); so no small eigenvalue of C is
    ever inverted, and a C of deficient rank needs no floor. Rank that is left over where C is blind goes to the largest weight errors.

    Args:
        change: ΔW, [out, in]; W itself to replace the weight by its factors.
        moment: C, mean of x xᵀ over tokens, [in, in].
        rank: r.

    Returns:
        The factors; singular values are those of ΔW S. Without any activation they are those of `svd`.
    """
    change = checks.finite(checks.matrix(change)).double()
    rank, note = check_rank(rank, change.shape)
    moment, idle = moments.usable(moment, change.shape[1])
    moments.add_ridge_(moment)
    basis, inner = torch.linalg.qr(change)
    squares, vectors = torch.linalg.eigh(inner @ moment @ inner.T)
    directions = basis @ vectors[:, -rank:].flip(1)
    values = squares.flip(0).clamp(min=0).sqrt()
    return LowRank(*balanced(directions, directions.T @ change), values, "; ".join(filter(None, (note, idle))))


def eora(weight: Tensor, compressed: Tensor, moment: Tensor, rank: int) -> LowRank:
    r"""EoRA: `whitened_svd` of what compression lost (Liu et al. 2024), \(\Delta W = W - \hat W\).

    The moment is the true mean over all tokens, and the inputs should be those that the layer has after the layers before it were
    compressed.

    Args:
        weight: W, [out, in].
        compressed: Ŵ, [out, in], dense.
        moment: C, mean of x xᵀ over tokens, [in, in].
        rank: r.
    """
    return whitened_svd(checks.finite(weight) - checks.finite(compressed), moment, rank)


def _floored(diagonal: Tensor, size: int) -> Tensor:
    if diagonal.shape != (size,) or not bool((diagonal >= 0).all()) or not bool(diagonal.isfinite().all()) or not diagonal.any():
        raise ParedownError(f"expected {size} finite weights, none negative and not all zero, got {list(diagonal.shape)}")
    return diagonal.clamp(min=float(diagonal.max()) * 1e-6)
