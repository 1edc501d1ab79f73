r"""Optimal brain surgeon on a block-diagonal curvature: which weights to prune, and how the others make up for them.

Around weights \(w\) the loss increase is taken as \(\tfrac12 \delta^T F \delta\) with a positive definite \(F\) that couples the
weights of one block. Pruning the set \(Q\) fixes \(\delta_Q = -w_Q\); the kept set \(K\) does best with

\[ \delta_K = F_{KK}^{-1} F_{KQ}\, w_Q, \qquad \tfrac12 \delta^T F \delta = \tfrac12\, w_Q^T \left([F^{-1}]_{QQ}\right)^{-1} w_Q, \]

which for one weight is the saliency \(w_q^2 / (2 [F^{-1}]_{qq})\) (Hassibi and Stork 1992). What is solved here is the joint
problem of all pruned weights, not the sum of the updates that each would want alone.

Blocks are rows cut into pieces of equal width, [out, pieces, width, width]; the last piece is padded with the identity. Together
they take 4 out in width bytes in float32, 151 MB for a layer of 1536 × 384 at width 64: `RowBlocks` makes those of a few rows at a
time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks
from paredown.methods.masks import NOfM, Pattern, Unstructured, select, stages
from paredown.methods.pruning import Pruned

_CHUNK_BYTES = 1 << 22  # of blocks at a time: what stays in the cache


@dataclass(frozen=True, eq=False, slots=True)
class RowBlocks:
    """Blocks that are made when they are asked for.

    Attributes:
        shape: (out, pieces, width, width).
        dtype: Their type.
        read: Gives those of the rows start .. stop, [stop - start, pieces, width, width].
    """

    shape: tuple[int, int, int, int]
    dtype: torch.dtype
    read: Callable[[int, int], Tensor]

    def __getitem__(self, rows: slice) -> Tensor:
        start, stop, _ = rows.indices(self.shape[0])
        return self.read(start, stop)


def cut(rows: Tensor, pieces: int) -> Tensor:
    """The last dimension in pieces of equal width, padded with zeros: [..., in] to [..., pieces, width]."""
    width = math.ceil(rows.shape[-1] / pieces)
    missing = pieces * width - rows.shape[-1]  # to pad by nothing would be a copy
    return (torch.nn.functional.pad(rows, (0, missing)) if missing else rows).unflatten(-1, (pieces, width))


def saliency(weight: Tensor, blocks: Tensor | RowBlocks) -> Tensor:
    r"""\(w_q^2 / (2 [F^{-1}]_{qq})\): the loss increase if that weight alone is pruned and all others of its block adapt.

    Args:
        weight: [out, in].
        blocks: F, [out, pieces, width, width].

    Returns:
        [out, in], of the blocks' dtype.
    """
    weight = _weight(weight, blocks)
    everything = torch.ones_like(weight, dtype=torch.bool)
    return weight.square() / (2 * _eliminate(weight, blocks, everything)[1])


def compensate(weight: Tensor, blocks: Tensor | RowBlocks, mask: Tensor) -> Pruned:
    """The weight of a mask whose kept weights make up best for the pruned ones.

    Args:
        weight: [out, in].
        blocks: F, [out, pieces, width, width].
        mask: Bool [out, in], True where kept.
    """
    updated, _, increase = _eliminate(_weight(weight, blocks), blocks, mask, diagonal=False)
    return Pruned(updated.float(), mask, increase)


def prune(weight: Tensor, blocks: Tensor | RowBlocks, pattern: Pattern, *, steps: int = 2) -> Pruned:
    """Reach a pattern in steps: prune the least salient weights, update the others, and score those anew.

    Cost: one Cholesky factorisation and inverse of every block a step, O(out in width²) each. `RowBlocks` are made once where rows are
    pruned alike, once a step otherwise.

    Args:
        weight: [out, in].
        blocks: F, [out, pieces, width, width].
        pattern: What may be pruned, and how much of it.
        steps: In how many steps; with one, all weights are chosen by their saliency alone.

    Returns:
        The pruned weight and what the quadratic model expects of it.
    """
    current = _weight(weight, blocks)
    if isinstance(blocks, RowBlocks) and (isinstance(pattern, NOfM) or (isinstance(pattern, Unstructured) and pattern.per_row)):
        rows = _rows(blocks)
        parts = [slice(start, start + rows) for start in range(0, len(current), rows)]
        pruned = [prune(current[part], blocks[part], pattern, steps=steps) for part in parts]
        increase = sum(part.loss_increase or 0.0 for part in pruned)
        return Pruned(torch.cat([part.weight for part in pruned]), torch.cat([part.mask for part in pruned]), increase)
    mask = torch.ones_like(current, dtype=torch.bool)
    planned = stages(pattern, steps)
    diagonal = _eliminate(current, blocks, mask)[1]
    total = 0.0
    for stage in planned:
        mask = select(torch.where(mask, current.square() / (2 * diagonal), -1.0), stage)  # pruned ones stay the lowest
        # the minima over nested sets follow from one another, so that each step may start from the last
        current, diagonal, increase = _eliminate(current, blocks, mask, diagonal=stage is not planned[-1])
        total += increase
    return Pruned(current.float(), mask, total)


def _eliminate(weight: Tensor, blocks: Tensor | RowBlocks, mask: Tensor, *, diagonal: bool = True) -> tuple[Tensor, Tensor, float]:
    """The updated weight [out, in], the diagonal of the inverse of F_KK there (1 where pruned), and the loss increase."""
    out, inputs = weight.shape
    pieces = blocks.shape[1]
    updated, inverse = torch.empty_like(weight), torch.ones_like(weight)
    increase = 0.0
    rows = _rows(blocks)
    for start in range(0, out, rows):
        part = slice(start, start + rows)
        matrices = blocks[part].flatten(0, 1)
        before, kept = cut(weight[part], pieces).flatten(0, 1), cut(mask[part], pieces).flatten(0, 1)
        share = kept.to(matrices.dtype)
        inner = (matrices * share[:, :, None]).mul_(share[:, None, :])
        inner.diagonal(dim1=1, dim2=2).add_(1 - share)
        factor, failed = torch.linalg.cholesky_ex(inner)
        if failed.any():
            raise ParedownError("a block of the curvature is not positive definite; raise the damping")
        missing = torch.where(kept, 0, before)
        wanted = torch.bmm(matrices, missing[:, :, None]) * share[:, :, None]
        change = torch.cholesky_solve(wanted, factor)[:, :, 0] - missing
        increase += 0.5 * float((change * torch.bmm(matrices, change[:, :, None])[:, :, 0]).sum(dtype=torch.float64))
        updated[part] = _joined(torch.where(kept, before + change, 0), inputs, pieces)
        if diagonal:
            inverse[part] = _joined(torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2), inputs, pieces)
    return updated, inverse, increase


def _rows(blocks: Tensor | RowBlocks) -> int:
    """Rows whose blocks are worked on together."""
    return max(1, _CHUNK_BYTES // (blocks.dtype.itemsize * math.prod(blocks.shape[1:])))


def _joined(blocks: Tensor, inputs: int, pieces: int) -> Tensor:
    return blocks.unflatten(0, (-1, pieces)).flatten(1)[:, :inputs]


def _weight(weight: Tensor, blocks: Tensor | RowBlocks) -> Tensor:
    weight = checks.finite(checks.matrix(weight)).to(blocks.dtype)
    out, inputs = weight.shape
    pieces = blocks.shape[1] if len(blocks.shape) == 4 else 1
    width = math.ceil(inputs / pieces)
    if tuple(blocks.shape) != (out, pieces, width, width):
        raise ParedownError(f"expected blocks [{out}, pieces, width, width] that cover {inputs} inputs, got {list(blocks.shape)}")
    return weight
