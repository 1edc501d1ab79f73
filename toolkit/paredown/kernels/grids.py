"""What the codes of a weight stand for, in one form for every kernel: (code - zero) scale, or table[code] scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.methods import Quantized
from paredown.methods.codebooks import e2m1_values, normal_float
from paredown.methods.microscaling import Microscaled
from paredown.methods.normal_float import NormalFloat
from paredown.specs.scheme_parts import BLOCKS


@dataclass(frozen=True, eq=False, slots=True)
class CodeGrid:
    """Codes, and how they become numbers.

    Attributes:
        codes: uint8 [out, in].
        bits: Width of a code.
        scales: Of each row and group, [out, groups]; float16 or float32.
        zeros: Codes of zero, uint8 [out, groups]; None where all of them are `zero`.
        zero: The code of zero.
        table: float32 [2^bits] of formats that are not evenly spaced, stretched so that bfloat16 holds it well; the scales take that back.
        width: Inputs of a group; the last block of a format with blocks may be shorter.
    """

    codes: Tensor
    bits: int
    scales: Tensor
    zeros: Tensor | None
    zero: int
    table: Tensor | None
    width: int


def code_grid(numbers: Quantized | NormalFloat | Microscaled) -> CodeGrid:
    """Codes, scales and zero points or table; scales that several rows share are there for each of them."""
    out, inputs = numbers.codes.shape
    if isinstance(numbers, Quantized):
        run = out // max(len(numbers.scales), 1)
        scales, zeros = (None if each is None else each.repeat_interleave(run, 0) for each in (numbers.scales, numbers.zero_points))
        assert scales is not None
        bits = numbers.format.bits
        return CodeGrid(numbers.codes, bits, scales, zeros, 1 << (bits - 1), None, inputs // scales.shape[1])
    if isinstance(numbers, NormalFloat):
        bits, scales, table = numbers.format.bits, numbers.scales, normal_float(numbers.format.bits)
        zero, width = (1 << (bits - 1)) - 1, inputs // scales.shape[1]
    else:
        bits, scales, table = 4, numbers.block_scales, e2m1_values(torch.arange(16, dtype=torch.uint8))
        zero, width = 0, BLOCKS[numbers.kind.rstrip("4")]
    stretch = _stretch(table.double())
    table = (table.double() * stretch).float().to(numbers.codes.device)
    return CodeGrid(numbers.codes, bits, scales / stretch, None, zero, table, width)


def _stretch(table: Tensor) -> float:
    """The factor from 1 to 2 at which bfloat16 holds a table best; the scales take it back. NF4 loses a third less by it."""
    factors = torch.linspace(1, 2, 1025, dtype=torch.float64)[:-1, None]
    lost = ((factors * table).bfloat16().double() / factors - table).square().sum(1)
    return float(factors[lost.argmin()])
