"""The products themselves, in Triton. `layout` has the tensors' shapes; numbers are float32 from the dot products on.

Where codes are evenly spaced, inputs are multiplied with the whole numbers (code - zero), which 16 bits hold exactly, and scales are
applied to the sums of each group: nothing is rounded but the inputs. Unused pointers are None, which specializes a kernel.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def product(
    x, y, first, rest, scales, zeros, table, mask, offsets,
    input_scales, side, left, left_scales, left_zeros, bias,
    tokens, inputs, out, x_stride, runs, groups, blocks, blocks_each, rank, left_group,
    bits: tl.constexpr, zero: tl.constexpr, run_slots: tl.constexpr, kind: tl.constexpr, factor: tl.constexpr, how: tl.constexpr, split: tl.constexpr,
    left_bits: tl.constexpr, activation: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr, ranks: tl.constexpr,
):  # fmt: skip
    """One tile [rows, columns] of X Wᵀ over some of the blocks: the result, or, where they are split, its part of the sum."""
    m = tl.program_id(1) * rows + tl.arange(0, rows)
    n = tl.program_id(0) * columns + tl.arange(0, columns)
    run = tl.arange(0, 16)
    here = (n < out)[None, :]
    of_token = (m.to(tl.int64) * x_stride)[:, None]
    begin = tl.program_id(2) * blocks_each
    end = tl.minimum(begin + blocks_each, blocks)
    total = tl.zeros((rows, columns), tl.float32)
    part = tl.zeros((rows, columns), tl.float32)
    middle = tl.zeros((columns,), tl.int32) + zero
    low: tl.constexpr = 4 if bits >= 4 else 2
    high: tl.constexpr = bits - low
    for block in range(begin, end):
        words = (block * 16 + run)[:, None] * out + n[None, :]
        if mask is not None:
            kept_words = tl.load(mask + words, mask=here, other=0).to(tl.int32)
            place = tl.load(offsets + block * out + n, mask=n < out, other=0)
        elif bits < 16:
            first_words = tl.load(first + words, mask=here, other=0).to(tl.int32)
            if rest is not None:
                rest_words = tl.load(rest + words, mask=here, other=0).to(tl.int32)
        for slot in tl.static_range(8):
            k = block * 128 + slot * 16 + run
            group = tl.minimum((block * 8 + slot) // runs, groups - 1)  # the last block may reach beyond the last group
            if slot % run_slots == 0:
                part = tl.zeros((rows, columns), tl.float32)
                if zeros is not None:
                    middle = tl.load(zeros + group * out + n, mask=n < out, other=0).to(tl.int32)
            if bits == 16:
                w = tl.load(first + k[:, None] * out + n[None, :], mask=(k < inputs)[:, None] & here, other=0.0).to(kind)
            else:
                if mask is not None:
                    kept = (kept_words >> slot) & 1
                    code = place[None, :] + tl.cumsum(kept, axis=0) - kept
                    place += tl.sum(kept, axis=0)
                    found = kept != 0
                    code = _streamed(first, rest, code, found, low, high)
                else:
                    code = (first_words >> (slot * low)) & ((1 << low) - 1)
                    if rest is not None:
                        code |= ((rest_words >> (slot * high)) & ((1 << high) - 1)) << low
                value = tl.load(table + code) if table is not None else (code - middle[None, :]).to(tl.float32)
                if mask is not None:
                    value = tl.where(found, value, 0.0)
                w = value.to(kind)
            given = tl.load(x + of_token + k[None, :], mask=(m < tokens)[:, None] & (k < inputs)[None, :], other=0.0).to(kind)
            part = tl.dot(given.to(factor), w.to(factor), part, input_precision=how)
            if slot % run_slots == run_slots - 1:
                if scales is not None:
                    total += part * tl.load(scales + group * out + n, mask=n < out, other=0.0).to(tl.float32)[None, :]
                else:
                    total += part
    if split:
        at = (tl.program_id(2) * tokens + m).to(tl.int64)[:, None] * out + n[None, :]
        tl.store(y + at, total, mask=(m < tokens)[:, None] & here)
    else:
        _finish(
            total, m, n, y, input_scales, side, left, left_scales, left_zeros, bias, tokens, out, rank, left_group,
            how, left_bits, activation, ranks,
        )  # fmt: skip


@triton.jit
def add_up(
    parts, y, input_scales, side, left, left_scales, left_zeros, bias, tokens, out, splits, rank, left_group,
    how: tl.constexpr, left_bits: tl.constexpr, activation: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr, ranks: tl.constexpr,
):  # fmt: skip
    """One tile of the result from the parts of its sum, float32 [splits, tokens, out]; without a part, of the correction alone."""
    m = tl.program_id(1) * rows + tl.arange(0, rows)
    n = tl.program_id(0) * columns + tl.arange(0, columns)
    total = tl.zeros((rows, columns), tl.float32)
    for split in range(splits):
        at = (split * tokens + m).to(tl.int64)[:, None] * out + n[None, :]
        total += tl.load(parts + at, mask=(m < tokens)[:, None] & (n < out)[None, :], other=0.0)
    _finish(
        total, m, n, y, input_scales, side, left, left_scales, left_zeros, bias, tokens, out, rank, left_group,
        how, left_bits, activation, ranks,
    )  # fmt: skip


@triton.jit
def _streamed(first, rest, index, found, low: tl.constexpr, high: tl.constexpr):
    """The codes at these places of the streams of kept ones."""
    per: tl.constexpr = 8 // low
    code = (tl.load(first + index // per, mask=found, other=0).to(tl.int32) >> (index % per * low)) & ((1 << low) - 1)
    if rest is not None:
        above: tl.constexpr = 8 // high
        code |= ((tl.load(rest + index // above, mask=found, other=0).to(tl.int32) >> (index % above * high)) & ((1 << high) - 1)) << low
    return code


@triton.jit
def _finish(
    total, m, n, y, input_scales, side, left, left_scales, left_zeros, bias, tokens, out, rank, left_group,
    how: tl.constexpr, left_bits: tl.constexpr, activation: tl.constexpr, ranks: tl.constexpr,
):  # fmt: skip
    """The low-rank correction, the inputs' scales, bias and activation, and the result into memory."""
    here = n < out
    if left is not None:
        for start in range(0, rank, ranks):
            j = start + tl.arange(0, ranks)
            inside = (j < rank)[:, None] & here[None, :]
            if left_bits == 16:
                b = tl.load(left + j[:, None] * out + n[None, :], mask=inside, other=0.0).to(tl.float32)
            else:
                per: tl.constexpr = 8 // left_bits
                code = tl.load(left + (j // per)[:, None] * out + n[None, :], mask=inside, other=0).to(tl.int32)
                code = (code >> (j % per * left_bits)[:, None]) & ((1 << left_bits) - 1)
                group = j[:, None] * (out // left_group) + (n // left_group)[None, :]
                code -= tl.load(left_zeros + group, mask=inside, other=0).to(tl.int32)
                b = code.to(tl.float32) * tl.load(left_scales + group, mask=inside, other=0.0).to(tl.float32)
            t = tl.load(side + m[:, None] * rank + j[None, :], mask=(m < tokens)[:, None] & (j < rank)[None, :], other=0.0)
            total = tl.dot(t, b, total, input_precision=how)
    if input_scales is not None:
        total *= tl.load(input_scales + m, mask=m < tokens, other=0.0)[:, None]
    if bias is not None:
        total += tl.load(bias + n, mask=here, other=0.0).to(tl.float32)[None, :]
    if activation == "relu":
        total = tl.where(total < 0, 0.0, total)  # NaN stays, which a maximum would lose
    elif activation == "silu":
        total *= tl.sigmoid(total)
    elif activation == "gelu":
        total *= 0.5 * (1 + tl.erf(total * 0.7071067811865476))
    elif activation == "gelu_tanh":  # (1 + tanh u) / 2 is the logistic function of 2 u
        total *= tl.sigmoid(1.5957691216057308 * (total + 0.044715 * total * total * total))
    tl.store(y + m.to(tl.int64)[:, None] * out + n[None, :], total.to(y.dtype.element_ty), mask=(m < tokens)[:, None] & here[None, :])
