"""How a product is cut up for the processors of a GPU."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tiles:
    """How a product is cut up.

    Attributes:
        rows: Tokens of a tile; at least 16, for tensor cores take no fewer.
        columns: Outputs of a tile.
        splits: Parts of the inputs that are summed on their own, and added up by a second launch.
        warps: Of a tile.
        stages: Blocks that are loaded ahead.
    """

    rows: int
    columns: int
    splits: int
    warps: int
    stages: int


def tiles(tokens: int, out: int, blocks: int, processors: int) -> Tiles:
    """Few tokens: programs on every processor, to read the weight, for which the inputs are split. Many: large tiles, for arithmetic.

    By reasoning alone; never tuned on a device.

    Example:
        >>> tiles(1, 4096, 32, 132)
        Tiles(rows=16, columns=64, splits=8, warps=4, stages=4)
        >>> tiles(1024, 4096, 32, 132).splits
        1
    """
    rows, columns, warps, stages = (16, 64, 4, 4) if tokens <= 16 else (32, 64, 4, 3) if tokens <= 64 else (64, 128, 8, 3)
    columns = min(columns, max(16, 1 << (out - 1).bit_length()))
    programs = -(-tokens // rows) * -(-out // columns)
    splits = max(1, min(4 * processors // programs, blocks // 4))
    return Tiles(rows, columns, splits, warps, stages)
