r"""Products with symmetric matrices, of which half is computed: \(X^\top X\) and \(\mathrm{tr}(A M A^\top)\), block column by block column.

Of six block columns 21 of 36 blocks are left; where the matrices are large, that takes about as much less time.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

BLOCKS = 6
"""Block columns."""

SMALLEST = 256
"""Columns of a matrix below which the whole product is as fast."""


def gram(rows: Tensor) -> Tensor:
    r"""\(X^\top X\), symmetric to the bit.

    Args:
        rows: X, [n, columns].

    Returns:
        [columns, columns].
    """
    columns = rows.shape[1]
    if columns < SMALLEST:
        return rows.T @ rows
    made = rows.new_empty(columns, columns)
    for start, stop in _cuts(columns):
        torch.mm(rows[:, :stop].T, rows[:, start:stop], out=made[:stop, start:stop])
        made[start:stop, :start] = made[:start, start:stop].T
    return made


def quadratic(matrix: Tensor, symmetric: Tensor) -> float:
    r"""\(\mathrm{tr}(A M A^\top)\), the sum of the quadratic form over the rows of A.

    Args:
        matrix: A, [rows, columns].
        symmetric: M, [columns, columns].
    """
    columns = matrix.shape[1]
    if columns < SMALLEST:
        return float(((matrix @ symmetric) * matrix).sum())
    total = 0.0
    for start, stop in _cuts(columns):
        block = matrix[:, start:stop]
        above = matrix[:, :start] @ symmetric[:start, start:stop]
        total += float((above.mul_(2).addmm_(block, symmetric[start:stop, start:stop]) * block).sum())
    return total


def _cuts(columns: int) -> list[tuple[int, int]]:
    return list(pairwise(columns * index // BLOCKS for index in range(BLOCKS + 1)))
