r"""M-FAC: the inverse of a damped empirical Fisher, from its gradients alone (Frantar, Kurtic and Alistarh 2021).

\[ F = \lambda I + \frac1m \sum_{i=1}^m g_i g_i^T, \qquad
   h_i = \frac{g_i}{\lambda} - \sum_{j<i} \frac{h_j^T g_i}{d_j} h_j, \qquad d_i = m + g_i^T h_i, \]
\[ F^{-1} x = \frac{x}{\lambda} - \sum_i \frac{h_i^T x}{d_i} h_i, \qquad
   [F^{-1}]_{qq} = \frac1\lambda - \sum_i \frac{h_{iq}^2}{d_i}. \]

All m gradients are used. The recursion is Gaussian elimination: with the unit Cholesky factor \(m \lambda I + G G^T = L D L^T\) its
rows are \(H = L^{-1} G / \lambda\) and its \(d = \operatorname{diag}(D) / \lambda\), which is one factorisation and one triangular
solve instead of m steps.

A gradient is that of one sample; if it is the mean over a batch instead, say so, for \(F\) then shrinks with the batch. The damping
is relative to the mean of the squared gradients; 0.01 to 0.1 of it are good values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import brain_surgeon, checks, moments
from paredown.methods.brain_surgeon import RowBlocks, cut
from paredown.methods.masks import Pattern
from paredown.methods.pruning import Pruned

Gradients = Tensor | Callable[[int, int], Tensor]
"""Gradients [m, out, in], or a function that gives those of the rows start .. stop, [m, stop - start, in], so that few are held."""

DAMPING = 0.1
"""Damping relative to the mean of the squared gradients."""

BLOCK = 16
"""Weights that are coupled, at most: consecutive inputs of one row. The paper's 128 needs more gradients than a calibration set has: from a
hundred, blocks of 64 learn what the next hundred do not say (on two blocks of the sentiment demo 1.4 to 4 times the KL)."""

_CHUNK = 1 << 21  # numbers of the gradients that are held at once


@dataclass(frozen=True, eq=False, slots=True)
class InverseFisher:
    """The inverse of one or many damped Fishers, as M-FAC keeps it: m d numbers for each of dimension d.

    Attributes:
        rows: H, [..., m, d].
        pivots: d_i, [..., m].
        damping: λ.
    """

    rows: Tensor
    pivots: Tensor
    damping: float

    def product(self, vectors: Tensor) -> Tensor:
        """F⁻¹ x, [..., d] to [..., d]; O(d m)."""
        inner = (self.rows @ vectors[..., None])[..., 0] / self.pivots
        return vectors / self.damping - (inner[..., None, :] @ self.rows)[..., 0, :]

    def diagonal(self) -> Tensor:
        """The diagonal of F⁻¹, [..., d]."""
        return 1 / self.damping - (self.rows.square() / self.pivots[..., None]).sum(-2)


def invert(gradients: Tensor, damping: float) -> InverseFisher:
    """The static recursion, for any number of Fishers at once; O(d m²) each.

    For blocks that are narrower than m, `fisher_blocks` is cheaper; this is for wide ones, up to a whole layer.

    Args:
        gradients: [..., m, d]; the arithmetic is theirs.
        damping: λ itself, above zero.
    """
    moments.check_damping(damping)
    count = gradients.shape[-2]
    gram = gradients @ gradients.mT
    gram.diagonal(dim1=-2, dim2=-1).add_(count * damping)
    factor = torch.linalg.cholesky(gram)
    pivots = factor.diagonal(dim1=-2, dim2=-1)
    rows = torch.linalg.solve_triangular(factor, gradients, upper=False) * pivots[..., None] / damping
    return InverseFisher(rows, pivots.square() / damping, damping)


def fisher_blocks(gradients: Gradients, shape: tuple[int, int], *, block: int = BLOCK, damping: float = DAMPING) -> tuple[Tensor, str]:
    """All of `row_blocks` at once, [out, pieces, width, width]."""
    blocks, note = row_blocks(gradients, shape, block=block, damping=damping)
    rows = max(1, _CHUNK // (len(_reader(gradients, shape)(0, 1)) * shape[1]))
    return torch.cat([blocks[start : start + rows] for start in range(0, shape[0], rows)]), note


def row_blocks(
    gradients: Gradients,
    shape: tuple[int, int],
    *,
    block: int = BLOCK,
    damping: float = DAMPING,
    mean_square: float | None = None,
) -> tuple[RowBlocks, str]:
    """The damped Fisher of a layer's blocks as `paredown.methods.brain_surgeon` takes it; O(out in m block) each time they are read.

    Args:
        gradients: Of the layer's weight.
        shape: Its [out, in].
        block: Weights that are coupled, at most; rows are cut into pieces of equal width.
        damping: λ relative to the mean of the squared gradients.
        mean_square: That mean, where it is known.

    Returns:
        F, and what was done about degenerate input. Where no gradient reaches the layer, F is the identity, so that the saliency is
        half the squared weight.

    Raises:
        ParedownError: If the gradients have another shape or are not finite.
    """
    moments.check_damping(damping)
    out, inputs = shape
    pieces = math.ceil(inputs / block)
    read = _reader(gradients, shape)
    first = read(0, 1)
    dtype = torch.promote_types(first.dtype, torch.float32)
    rows = max(1, _CHUNK // (len(first) * inputs))
    if mean_square is None:
        parts = (read(start, min(start + rows, out)).to(dtype) for start in range(0, out, rows))
        mean_square = sum(float(part.square().sum(dtype=torch.float64)) for part in parts) / (len(first) * out * inputs)
    if not math.isfinite(mean_square):
        raise ParedownError("the gradients hold NaN or infinite values; leave out the samples whose loss is not finite")
    ridge = damping * mean_square if mean_square > 0 else 1.0

    width = math.ceil(inputs / pieces)

    def blocks(start: int, stop: int) -> Tensor:
        fisher = torch.empty(stop - start, pieces, width, width, dtype=dtype, device=first.device)
        for part in range(start, stop, rows):
            columns = cut(read(part, min(part + rows, stop)).to(dtype), pieces).flatten(1, 2).transpose(0, 1)  # [rows · pieces, m, width]
            fisher[part - start : part - start + rows] = (columns.mT @ columns).unflatten(0, (-1, pieces))
        fisher.div_(len(first)).diagonal(dim1=2, dim2=3).add_(ridge)
        return fisher

    note = "" if mean_square > 0 else "no gradient reaches the layer; weights are compared by magnitude"
    return RowBlocks((out, pieces, width, width), dtype, blocks), note


def prune(
    weight: Tensor,
    gradients: Gradients,
    pattern: Pattern,
    *,
    block: int = BLOCK,
    damping: float = DAMPING,
    steps: int = 8,
    mean_square: float | None = None,
) -> Pruned:
    """Prune by the optimal brain surgeon with M-FAC's blocks, from gradients at the given weight.

    To use new gradients at every step, call it once for each of `paredown.methods.masks.stages` on the last result: pruned weights
    have no saliency and stay pruned.

    Args:
        weight: [out, in].
        gradients: Of the loss with respect to it.
        pattern: What may be pruned, and how much of it.
        block: As in `row_blocks`.
        damping: As in `row_blocks`.
        steps: Rounds of pruning, update and new saliencies.
        mean_square: Mean of the squared gradients, where it is known.
    """
    weight = checks.matrix(weight)
    blocks, note = row_blocks(gradients, (weight.shape[0], weight.shape[1]), block=block, damping=damping, mean_square=mean_square)
    pruned = brain_surgeon.prune(weight, blocks, pattern, steps=steps)
    return Pruned(pruned.weight, pruned.mask, pruned.loss_increase, note)


def _reader(gradients: Gradients, shape: tuple[int, int]) -> Callable[[int, int], Tensor]:
    if not isinstance(gradients, Tensor):
        return gradients
    if gradients.ndim != 3 or tuple(gradients.shape[1:]) != shape or not len(gradients):
        raise ParedownError(f"expected gradients [m, {shape[0]}, {shape[1]}], got {list(gradients.shape)}")
    return lambda start, stop: gradients[:, start:stop]
