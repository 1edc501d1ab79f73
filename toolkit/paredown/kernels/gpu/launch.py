"""From a layout and inputs to launches of the kernels. Needs triton; nothing else here does."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton.language as tl
from torch import Tensor
from triton import knobs

from paredown.kernels.cpu.weight import Activation
from paredown.kernels.gpu import products
from paredown.kernels.gpu.layout import SLOTS, Codes, Layout, Left
from paredown.kernels.gpu.tiles import Tiles, tiles

_product: Any = products.product  # launches take options that the kernels' own signatures lack
_add_up_tiles: Any = products.add_up

_KINDS = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
# the interpreter multiplies the bits of bfloat16 as if they were whole numbers; float32 has the same products of the same numbers
_FACTORS = _KINDS | ({torch.bfloat16: tl.float32} if knobs.runtime.interpret else {})


def multiply(
    x: Tensor, layout: Layout, y: Tensor, steps: Tensor | None, bias: Tensor | None, activation: Activation, processors: int
) -> None:
    """activation(X Wᵀ + bias) into ``y``.

    The correction takes a product of its own, T = X Aᵀ, and T B is added where the result is still in registers.

    Args:
        x: [tokens, in], rows contiguous. float32 is multiplied as such, other types in their own.
        layout: The weight.
        y: [tokens, out], contiguous.
        steps: What inputs of each token are multiplied with, float32 [tokens]; None where they are themselves.
        bias: [out] or None.
        activation: Applied to the result.
        processors: Of the device.
    """
    side: Tensor | None = None
    if layout.right is not None:
        side = torch.empty(len(x), layout.right.shape[0], dtype=torch.float32, device=x.device)
        _multiply(x, layout.right, side, _Rest(None, None, None, None, "none"), processors)
    rest = _Rest(steps, side, layout.left, bias, activation)
    if layout.codes is not None:
        _multiply(x, layout.codes, y, rest, processors)
    else:
        _add_up(None, 0, y, rest, tiles(len(x), layout.shape[0], 1, processors), "ieee" if x.dtype is torch.float32 else "tf32")


class _Rest:
    """What follows a product."""

    def __init__(self, steps: Tensor | None, side: Tensor | None, left: Left | None, bias: Tensor | None, activation: Activation) -> None:
        none = (None, None, None, 0, 16, 16)
        numbers, scales, zeros, rank, self.left_bits, self.ranks = (
            none if left is None else (left.numbers, left.scales, left.zeros, left.rank, left.bits, 16 if left.rank <= 16 else 32)
        )
        self.pointers = (steps, side, numbers, scales, zeros, bias)
        self.rank, self.left_group = rank, 1 if left is None or left.scales is None else left.numbers.shape[1] // left.scales.shape[1]
        self.activation = activation


def _multiply(x: Tensor, codes: Codes, y: Tensor, rest: _Rest, processors: int) -> None:
    (out, inputs), tokens = codes.shape, len(x)
    cut = tiles(tokens, out, codes.blocks, processors)
    parts = y if cut.splits == 1 else torch.empty(cut.splits, tokens, out, dtype=torch.float32, device=x.device)
    # numbers of 16 bits are float16, which bfloat16 would round and tf32 holds
    kind = torch.float32 if codes.bits == 16 and x.dtype is torch.bfloat16 else x.dtype
    how = "ieee" if x.dtype is torch.float32 else "tf32"
    _product[(-(-out // cut.columns), -(-tokens // cut.rows), cut.splits)](
        x, parts, codes.first, codes.rest, codes.scales, codes.zeros, codes.tables.get(kind), codes.mask, codes.offsets,
        *rest.pointers,
        tokens, inputs, out, x.stride(0), codes.runs, codes.groups, codes.blocks, -(-codes.blocks // cut.splits), rest.rank, rest.left_group,
        bits=codes.bits, zero=codes.zero, run_slots=math.gcd(codes.runs, SLOTS), kind=_KINDS[kind], factor=_FACTORS[kind], how=how, split=cut.splits > 1,
        left_bits=rest.left_bits, activation=rest.activation, rows=cut.rows, columns=cut.columns, ranks=rest.ranks,
        num_warps=cut.warps, num_stages=min(cut.stages, 2) if kind is torch.float32 else cut.stages,  # else too much shared memory for sm_86
    )  # fmt: skip
    if cut.splits > 1:
        _add_up(parts, cut.splits, y, rest, cut, how)


def _add_up(parts: Tensor | None, splits: int, y: Tensor, rest: _Rest, cut: Tiles, how: str) -> None:
    tokens, out = y.shape
    _add_up_tiles[(-(-out // cut.columns), -(-tokens // cut.rows))](
        parts, y, *rest.pointers, tokens, out, splits, rest.rank, rest.left_group,
        how=how, left_bits=rest.left_bits, activation=rest.activation, rows=cut.rows, columns=cut.columns, ranks=rest.ranks,
        num_warps=cut.warps,
    )  # fmt: skip
