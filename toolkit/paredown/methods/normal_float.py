r"""NormalFloat weights in groups, with the scales quantized too (LQ-LoRA, Guo et al., 2024; after QLoRA, Dettmers et al., 2023).

A weight of group i is \(w = s_i\, t_q\), with \(t\) the table of `codebooks.normal_float`, \(q\) its code and \(s_i\) the largest
magnitude of the group of \(B_0\) inputs, itself kept as

\[ s_i = m + \frac{c_i}{2^{b_0} - 1} M_k, \qquad c_i \in \{0, \ldots, 2^{b_0} - 1\}, \]

with \(m\) the smallest scale of the tensor (float32) and \(M_k\) the largest \(s_i - m\) of \(B_1\) consecutive groups, in
\(b_1\) bits. Storage is \(b + b_0 / B_0 + b_1 / (B_0 B_1)\) bits a weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks
from paredown.methods.codebooks import nearest, normal_float

ScaleType = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True, slots=True)
class NormalFloatFormat:
    """LQ-LoRA's storage configuration; the default is its NF4 of 4.127 bits.

    Attributes:
        bits: b, width of a code: 2, 3 or 4.
        group_size: B0, inputs that share a scale.
        scale_bits: b0, width of a scale's code.
        scale_group: B1, scales that share a scale of their own.
        scale_type: Its type, of b1 bits.
    """

    bits: int = 4
    group_size: int = 64
    scale_bits: int = 8
    scale_group: int = 256
    scale_type: ScaleType = "float32"

    def __post_init__(self) -> None:
        normal_float(self.bits)
        if not 2 <= self.scale_bits <= 8:
            raise ParedownError(f"scale_bits must be 2 to 8, got {self.scale_bits}")
        if self.group_size < 1 or self.scale_group < 1:
            raise ParedownError(f"group_size and scale_group must be positive, got {self.group_size} and {self.scale_group}")
        if self.scale_type not in ("float32", "float16", "bfloat16"):
            raise ParedownError(f"scale_type must be float32, float16 or bfloat16, got {self.scale_type!r}")

    @property
    def bits_per_weight(self) -> float:
        """Storage of b + b0 / B0 + b1 / (B0 B1), as published: for a tensor that the blocks fill, without its one offset.

        Example:
            >>> round(NormalFloatFormat(4).bits_per_weight, 3), round(NormalFloatFormat(3).bits_per_weight, 3)
            (4.127, 3.127)
        """
        scale = 32 if self.scale_type == "float32" else 16
        return self.bits + self.scale_bits / self.group_size + scale / (self.group_size * self.scale_group)

    def storage_bits(self, out: int, inputs: int) -> int:
        """Bits of a weight [out, inputs], with the short last block of scales and the offset."""
        scales = out * (inputs // self.group_size)
        scale = 32 if self.scale_type == "float32" else 16
        return out * inputs * self.bits + scales * self.scale_bits + math.ceil(scales / self.scale_group) * scale + 32


@dataclass(frozen=True, slots=True)
class NormalFloat:
    """A weight as a file would hold it, before its codes are packed.

    Attributes:
        codes: uint8 [out, in], indices into the table.
        scale_codes: uint8 [out, groups], c.
        scale_scales: [ceil(out groups / B1)] of the format's type, M.
        offset: float32 scalar, m.
        format: The widths.
    """

    codes: Tensor
    scale_codes: Tensor
    scale_scales: Tensor
    offset: Tensor
    format: NormalFloatFormat

    @property
    def scales(self) -> Tensor:
        """s, float32 [out, groups]."""
        return _scales(self.scale_codes, self.scale_scales, self.offset, self.format)


def quantize_normal_float(weight: Tensor, format: NormalFloatFormat) -> NormalFloat:
    """Round a weight to NormalFloat, nearest with respect to the scale that the file holds.

    Zero is on the grid, so that a mask stays. A group whose scale rounds to zero becomes zeros: that takes a group of zeros
    elsewhere (m = 0) and weights some 2^(b0+1) times smaller than the largest of their block. Scales beyond float16 are cut there.

    Args:
        weight: [out, in], any floating type; the group size must divide the inputs.
        format: The widths.

    Returns:
        Codes and scales.

    Raises:
        ParedownError: If the weight is no matrix, holds NaN or infinite values, or the groups do not fill its inputs.
    """
    weight = checks.finite(checks.matrix(weight))
    out, inputs = weight.shape
    groups = weight.view(out, -1, checks.group_size(format.group_size, inputs))
    exact = groups.abs().amax(dim=-1)
    offset = exact.min()
    rest = (exact - offset).flatten()
    blocks = torch.nn.functional.pad(rest, (0, -rest.numel() % format.scale_group)).view(-1, format.scale_group)
    kind = getattr(torch, format.scale_type)
    scale_scales = blocks.amax(dim=1).clamp_(max=torch.finfo(kind).max).to(kind)
    held = scale_scales.to(torch.float32)
    held = torch.where(held == 0, 1.0, held).unsqueeze(-1)
    steps = (1 << format.scale_bits) - 1
    scale_codes = (blocks / held * steps).round_().clamp_(0, steps).flatten()[: rest.numel()].to(torch.uint8).view_as(exact)
    scales = _scales(scale_codes, scale_scales, offset, format)
    relative = groups / torch.where(scales == 0, torch.inf, scales).unsqueeze(-1)
    codes = nearest(relative, normal_float(format.bits).to(weight.device))
    return NormalFloat(codes.view(out, inputs), scale_codes, scale_scales, offset, format)


def dequantize_normal_float(quantized: NormalFloat) -> Tensor:
    """The weight that the codes stand for, float32 [out, in]."""
    codes, scales = quantized.codes, quantized.scales
    table = normal_float(quantized.format.bits).to(codes.device)
    values = table.index_select(0, codes.flatten().to(torch.int32))  # three times as fast as indexing
    return values.view(*scales.shape, -1).mul_(scales.unsqueeze(-1)).view_as(codes)


def _scales(codes: Tensor, scales: Tensor, offset: Tensor, format: NormalFloatFormat) -> Tensor:
    blocks = scales.to(torch.float32).repeat_interleave(format.scale_group)[: codes.numel()].view_as(codes)
    return (codes.to(torch.float32) / ((1 << format.scale_bits) - 1)).mul_(blocks).add_(offset)
