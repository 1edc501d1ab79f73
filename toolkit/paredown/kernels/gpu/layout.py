r"""A packed weight as the Triton kernels read it.

Inputs go in blocks of 128 = 8 slots of 16. One word of a plane holds the code of the same place in each of the 8 slots, so that a tile
of words [16, outputs] is loaded once, gives 8 tiles of codes by shifts alone, and each of them has one scale an output, for groups are
multiples of 16. Widths are split so that no code straddles words and a slot is a shift by 4, 2 or 1 bits: 8 = 4 + 4, 6 = 4 + 2,
5 = 4 + 1, 3 = 2 + 1; a plane of 4, 2 and 1 bits has words of 32, 16 and 8. That is why 3 bits are two planes, and no stream of 3-bit codes,
which would take two loads a code.

    first, rest  int32, int16 or uint8 [blocks, 16, out]   low bits, and those above; outputs side by side, as a warp reads them
    scales       float16 or float32    [groups, out]
    zeros        uint8                 [groups, out]

Of a pruned weight only the kept codes are there, row after row, in bytes of 2, 4 or 8 codes a plane; a mask in the layout above says
which they are, and each block knows where it begins: whichever the pattern, 1.25 bits a weight beside the codes.

    mask         uint8                 [blocks, 16, out]
    offsets      int32                 [blocks, out]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.kernels.grids import CodeGrid, code_grid
from paredown.methods import Compressed, Quantized

RUN = 16
SLOTS = 8
BLOCK = RUN * SLOTS
_WORDS = {4: torch.int32, 2: torch.int16, 1: torch.uint8}


@dataclass(frozen=True, eq=False, slots=True)
class Codes:
    """One matrix [out, in] for the kernels; see above for its tensors.

    Attributes:
        shape: [out, in].
        bits: Width of a code; 16 where ``first`` holds numbers of 16 bits, [in, out], and there is nothing else.
        zero: The code of zero where there are no ``zeros``.
        runs: Runs of 16 inputs in a group.
        tables: What the codes stand for, [2^bits] in each type of inputs; empty where codes are evenly spaced.
    """

    shape: tuple[int, int]
    bits: int
    first: Tensor
    rest: Tensor | None = None
    scales: Tensor | None = None
    zeros: Tensor | None = None
    zero: int = 0
    runs: int = SLOTS
    tables: Mapping[torch.dtype, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None
    offsets: Tensor | None = None

    @property
    def blocks(self) -> int:
        """Blocks of inputs; the last one may not be full."""
        return -(-self.shape[1] // BLOCK)

    @property
    def groups(self) -> int:
        """Groups of inputs, each with scales of its own."""
        return 1 if self.scales is None else len(self.scales)

    @property
    def bytes(self) -> int:
        """Bytes of the tensors."""
        tensors = (self.first, self.rest, self.scales, self.zeros, self.mask, self.offsets)
        return sum(tensor.nbytes for tensor in (*tensors, *self.tables.values()) if tensor is not None)


@dataclass(frozen=True, eq=False, slots=True)
class Left:
    """The left factor Bᵀ [rank, out] of a low-rank correction.

    Attributes:
        numbers: float16 [rank, out], or codes: uint8 [rank, out] of 8 bits, [ceil(rank / 2), out] of 4, an even row in the low half.
        bits: 16, 8 or 4.
        rank: Rows.
        scales: Of codes, float16 [rank, groups].
        zeros: Of codes, uint8 [rank, groups].
    """

    numbers: Tensor
    bits: int
    rank: int
    scales: Tensor | None = None
    zeros: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in (self.numbers, self.scales, self.zeros) if tensor is not None)


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """A weight: codes, a low-rank correction, or both.

    Attributes:
        shape: [out, in].
        codes: Of the weight; None where the factors stand for it.
        left: Of the correction, or None.
        right: A [rank, in] of the correction, or None.
    """

    shape: tuple[int, int]
    codes: Codes | None
    left: Left | None
    right: Codes | None

    @property
    def bytes(self) -> int:
        """Bytes that the kernels read."""
        return sum(part.bytes for part in (self.codes, self.left, self.right) if part is not None)


def lay_out(made: Compressed) -> Layout:
    """A compressed weight in the layout above, on its own device.

    Raises:
        ParedownError: If it does not fit in; the reason is in the message.
    """
    if isinstance(made.numbers, Tensor):
        raise ParedownError("its kept weights have no number format, and the kernels multiply codes")
    codes = None if made.numbers is None else _codes(code_grid(made.numbers), made.mask)
    if made.factors is None:
        return Layout(made.shape, codes, None, None)
    left, right = made.factors.left, made.factors.right
    right = Codes((len(right), right.shape[1]), 16, right.T.contiguous()) if isinstance(right, Tensor) else _codes(code_grid(right), None)
    return Layout(made.shape, codes, _left(left), right)


def _codes(grid: CodeGrid, mask: Tensor | None) -> Codes:
    out, inputs = grid.codes.shape
    if grid.width % RUN and grid.width < inputs:
        raise ParedownError(f"its groups have {grid.width} inputs, and the kernels take multiples of {RUN}")
    low = 4 if grid.bits >= 4 else 2
    widths = [low, grid.bits - low] if grid.bits > low else [low]
    tensors: dict[str, Tensor | None] = {"scales": grid.scales.T.contiguous()}
    tensors["zeros"] = None if grid.zeros is None else grid.zeros.T.contiguous()
    if mask is None:
        planes = [_plane(grid.codes >> shift, width) for shift, width in zip((0, low), widths, strict=False)]
    else:
        kept = grid.codes[mask]
        planes = [_stream(kept >> shift, width) for shift, width in zip((0, low), widths, strict=False)]
        counts = torch.nn.functional.pad(mask, (0, -inputs % BLOCK)).view(out, -1, BLOCK).sum(-1)
        ends = counts.flatten().cumsum(0).view_as(counts)
        tensors |= {"mask": _plane(mask.to(torch.uint8), 1), "offsets": (ends - counts).to(torch.int32).T.contiguous()}
    tensors["rest"] = planes[1] if len(planes) > 1 else None
    runs = grid.width // RUN if grid.width < inputs else max(-(-inputs // BLOCK), 1) * SLOTS
    tables = {} if grid.table is None else {dtype: grid.table.to(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)}
    return Codes((out, inputs), grid.bits, planes[0], zero=grid.zero, runs=runs, tables=tables, **tensors)


def _plane(codes: Tensor, width: int) -> Tensor:
    """The lowest bits of codes [out, in] as words [blocks, 16, out]."""
    out, inputs = codes.shape
    slots = torch.nn.functional.pad(codes & ((1 << width) - 1), (0, -inputs % BLOCK)).view(out, -1, SLOTS, RUN)
    words = torch.zeros((out, slots.shape[1], RUN), dtype=torch.int64, device=codes.device)
    for slot in range(SLOTS):
        words |= slots[:, :, slot].to(torch.int64) << (slot * width)
    return words.permute(1, 2, 0).to(_WORDS[width]).contiguous()  # what exceeds the largest number wraps, its bits stay


def _stream(codes: Tensor, width: int) -> Tensor:
    """The lowest bits of codes [kept] in bytes, the first code in the lowest bits."""
    places = 8 // width
    codes = torch.nn.functional.pad(codes & ((1 << width) - 1), (0, -len(codes) % places)).view(-1, places)
    shifts = torch.arange(places, device=codes.device, dtype=torch.uint8) * width
    return (codes << shifts).sum(1, dtype=torch.uint8)


def _left(factor: Tensor | Quantized) -> Left:
    if isinstance(factor, Tensor):
        return Left(factor.contiguous(), 16, len(factor))
    grid = code_grid(factor)
    zeros = torch.full_like(grid.scales, grid.zero, dtype=torch.uint8) if grid.zeros is None else grid.zeros
    codes, rank = grid.codes, len(grid.codes)
    if grid.bits == 4:
        codes = torch.nn.functional.pad(codes, (0, 0, 0, rank % 2))
        codes = codes[::2] | (codes[1::2] << 4)
    return Left(codes.contiguous(), grid.bits, rank, grid.scales.contiguous(), zeros.contiguous())
