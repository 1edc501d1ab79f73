r"""MXFP4 and NVFP4: E2M1 floats in short blocks that share a scale, emulated exactly; no kernel is implied.

| format | block | scale of a block | scale of the tensor | bits a weight |
| --- | ---: | --- | --- | ---: |
| MXFP4 | 32 | E8M0, a power of two | none | 4.25 |
| NVFP4 | 16 | E4M3 | float32 | 4.5, and 32 a tensor |

- MXFP4 (OCP Microscaling Formats specification 1.0, 2023; Rouhani et al., 2023, algorithm 1): the scale is the largest power of two in the block's
  largest magnitude divided by that of the largest E2M1 float, \(X = 2^{\lfloor \log_2 \max|w| \rfloor - 2}\). What exceeds 6 X,
  which a maximum between 6 and 8 X does, saturates.
- NVFP4 (NVIDIA, Pretraining Large Language Models with NVFP4, 2025): tensor scale \(g = \max|W| / (6 \cdot 448)\), so that the
  largest block scale is E4M3's largest; block scale \(s = \mathrm{e4m3}(\max|w| / (6 g))\); codes are those of \(w / (s g)\).

Elements are rounded to nearest, ties to even.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks
from paredown.methods.codebooks import E2M1_LARGEST, e2m1_codes, e2m1_values, round_to_e2m1

MicroscalingKind = Literal["mxfp4", "nvfp4"]

BLOCK: dict[MicroscalingKind, int] = {"mxfp4": 32, "nvfp4": 16}

_E4M3_LARGEST = 448.0
_E4M3_SMALLEST = 2.0**-9
_E8M0_BIAS = 127
_E2M1_EXPONENT = 2  # of its largest float, 6 = 1.5 · 2²


@dataclass(frozen=True, slots=True)
class Microscaled:
    """A weight as a file would hold it, before two codes go to a byte.

    Attributes:
        codes: uint8 [out, in], E2M1 with the sign as fourth bit.
        scales: [out, blocks]; uint8 exponents with bias 127 (E8M0) of MXFP4, float8_e4m3fn of NVFP4.
        tensor_scale: float32 scalar of NVFP4, else None.
        kind: The format.
    """

    codes: Tensor
    scales: Tensor
    tensor_scale: Tensor | None
    kind: MicroscalingKind

    @property
    def block_scales(self) -> Tensor:
        """What the numbers of each block are multiplied by, float32 [out, blocks]."""
        return _scales(self.scales, self.tensor_scale).squeeze(-1)


def storage_bits(kind: MicroscalingKind, out: int, inputs: int) -> int:
    """Bits of a weight [out, inputs]: a short last block is padded, as the formats' kernels want it.

    Example:
        >>> storage_bits("mxfp4", 4, 64) / 256, storage_bits("nvfp4", 4, 64) / 256
        (4.25, 4.625)
    """
    block = BLOCK[kind]
    return out * math.ceil(inputs / block) * (4 * block + 8) + (32 if kind == "nvfp4" else 0)


def quantize_microscaling(weight: Tensor, kind: MicroscalingKind) -> Microscaled:
    """Round a weight to MXFP4 or NVFP4.

    Zero is on the grid, so that a mask stays. A block of zeros gets the smallest scale. Block scales of NVFP4 that would round to zero are
    raised to E4M3's smallest number, 2^-9, which errs less than dropping the block; an all-zero weight gets the tensor scale 1.

    Args:
        weight: [out, in], any floating type.
        kind: ``mxfp4`` or ``nvfp4``.

    Returns:
        Codes and scales.

    Raises:
        ParedownError: If the weight is no matrix or holds NaN or infinite values.
    """
    if kind not in BLOCK:
        raise ParedownError(f"expected mxfp4 or nvfp4, got {kind!r}")
    weight = checks.finite(checks.matrix(weight))
    blocks = _blocks(weight, BLOCK[kind])
    largest = blocks.abs().amax(dim=-1)
    if kind == "mxfp4":
        # frexp gives max = m 2^e with m in [1/2, 1): the largest power of two in it is 2^(e - 1), exactly
        exponent = torch.where(largest == 0, -_E8M0_BIAS, torch.frexp(largest).exponent - 1 - _E2M1_EXPONENT)
        scales = (exponent.clamp(min=-_E8M0_BIAS) + _E8M0_BIAS).to(torch.uint8)
        tensor_scale = None
    else:
        tensor_scale = largest.max() / (E2M1_LARGEST * _E4M3_LARGEST)
        tensor_scale = torch.where(tensor_scale == 0, 1.0, tensor_scale)
        exact = (largest / E2M1_LARGEST / tensor_scale).clamp_(_E4M3_SMALLEST, _E4M3_LARGEST)
        scales = exact.to(torch.float8_e4m3fn)
    rounded = round_to_e2m1(blocks / _scales(scales, tensor_scale))
    return Microscaled(e2m1_codes(rounded).view(weight.shape[0], -1)[:, : weight.shape[1]], scales, tensor_scale, kind)


def dequantize_microscaling(quantized: Microscaled) -> Tensor:
    """The weight that the codes stand for, float32 [out, in]."""
    values = e2m1_values(quantized.codes)
    blocks = _blocks(values, BLOCK[quantized.kind]) * _scales(quantized.scales, quantized.tensor_scale)
    return blocks.view(values.shape[0], -1)[:, : values.shape[1]]


def _blocks(weight: Tensor, block: int) -> Tensor:
    padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % block))
    return padded.view(weight.shape[0], -1, block)


def _scales(scales: Tensor, tensor_scale: Tensor | None) -> Tensor:
    if tensor_scale is None:
        return torch.ldexp(torch.ones_like(scales, dtype=torch.float32), scales.to(torch.int32) - _E8M0_BIAS).unsqueeze(-1)
    return (scales.to(torch.float32) * tensor_scale).unsqueeze(-1)
