"""What multiplies on a CUDA device: our Triton kernels, and torch's own products for the schemes that these know.

Written by the documentation and the code of torch and Triton. None of it was ever run on a GPU: the Triton kernels were interpreted on a
CPU, `int_mm` ran there too, `tinygemm` and `semi_structured` never ran.
"""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor
from torch.nn import functional

from paredown.errors import ParedownError
from paredown.kernels import reference
from paredown.kernels.backends import Prepared, UnfitError, finish
from paredown.kernels.cpu.weight import Activation, InputPrecision
from paredown.kernels.gpu.weight import TritonWeight
from paredown.kernels.packing import Packed, unpack
from paredown.methods import Quantized
from paredown.methods.activations import token_integers

_CAPABILITY = (8, 0)
_TINYGEMM_GROUPS = (32, 64, 128, 256)
_INNER_TILES = 8  # of 16 inputs, that tinygemm reads at once
_INT_MM_TOKENS = 17  # at least, on CUDA devices


def without_device(device: torch.device | None = None) -> str:
    """Why nothing here can run, on a device or at all; empty where it can."""
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    if device is not None and device.type != "cuda":
        return f"the weight is on {device}, and this runs on CUDA devices"
    if (found := torch.cuda.get_device_capability(device)) < _CAPABILITY:
        return f"compute capability {found[0]}.{found[1]} has no bfloat16; 8.0 is needed"
    return ""


def without_triton() -> str:
    """Why there are no Triton kernels; empty where there are."""
    return "" if importlib.util.find_spec("triton") else "triton is not installed"


def triton(packed: Packed, precision: InputPrecision, dtype: torch.dtype, isa: str | None) -> Prepared:
    """Our kernels: any scheme with codes or factors, any shape."""
    _check(without_triton() or without_device(packed.device))
    try:
        weight = TritonWeight(packed)
    except ParedownError as error:
        raise UnfitError(str(error)) from error
    format = packed.scheme.activation
    bits = 8 if format is None else format.bits

    def multiply(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        return weight.linear(x, bias, activation, precision=precision, input_bits=bits)

    inputs = {"int8": f"inputs rounded to int{bits}", "bf16": "16-bit inputs", "float32": "float32 inputs"}[precision]
    return f"our Triton kernel, {inputs}", weight.bytes, multiply, precision


def tinygemm(packed: Packed, precision: InputPrecision, dtype: torch.dtype, isa: str | None) -> Prepared:
    """Torch's product of bfloat16 with 4 bits, ``_weight_int4pack_mm``."""
    scheme, (out, inputs) = packed.scheme, packed.shape
    if not scheme.is_plain or scheme.weight is None or scheme.weight.bits != 4:
        raise UnfitError("it takes plain integers of 4 bits")
    if precision != "bf16" or dtype is not torch.bfloat16:
        raise UnfitError("it takes bfloat16 inputs")
    group = scheme.weight.group_size or inputs
    if group not in _TINYGEMM_GROUPS or inputs % (16 * _INNER_TILES) or inputs % group or out % 8:
        raise UnfitError(
            f"it takes groups of {', '.join(map(str, _TINYGEMM_GROUPS))}, inputs that {16 * _INNER_TILES} divides and outputs that 8 divides,"
            f" not {group}, {inputs} and {out}"
        )
    _check(without_device(packed.device))
    made = unpack(packed).numbers
    assert isinstance(made, Quantized)
    scales = made.scales.float()
    middle = scales * 8 if made.zero_points is None else scales * made.zero_points.float()
    factors = torch.stack([scales.T, (8 * scales - middle).T], -1).bfloat16().contiguous()  # torch has (q - 8) scale + zero
    nibbles = made.codes[:, ::2] << 4 | made.codes[:, 1::2]
    codes = torch.ops.aten._convert_weight_to_int4pack(nibbles.contiguous(), _INNER_TILES)

    def multiply(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        y = torch.ops.aten._weight_int4pack_mm(x.reshape(-1, inputs).bfloat16().contiguous(), codes, group, factors)
        return finish(y.reshape(*x.shape[:-1], out).to(x.dtype), bias, activation)

    return "torch's tinygemm, scales rounded to bfloat16", codes.nbytes + factors.nbytes, multiply, "bf16"


def int_mm(packed: Packed, precision: InputPrecision, dtype: torch.dtype, isa: str | None) -> Prepared:
    """Torch's product of integers of 8 bits, ``_int_mm``: scales of tokens and channels are applied to exact sums."""
    scheme, (out, inputs) = packed.scheme, packed.shape
    weight, format = scheme.weight, scheme.activation
    if format is None or format.static or weight is None or (weight.kind, weight.bits, weight.symmetric) != ("int", 8, True):
        raise UnfitError("it takes symmetric integers of 8 bits, and inputs that each token's own range rounds")
    if weight.group_size is not None and weight.group_size != inputs:
        raise UnfitError("it takes one scale a channel")
    if scheme.sparsity is not None or scheme.low_rank is not None:
        raise UnfitError("it takes the integers alone, neither pruned nor corrected")
    if precision != "int8":
        raise UnfitError("it takes inputs of 8 bits")
    if inputs % 8 or out % 8:
        raise UnfitError(f"it takes inputs and outputs that 8 divides, not {inputs} and {out}")
    _check(without_device(packed.device))
    made = unpack(packed).numbers
    assert isinstance(made, Quantized)
    codes = (made.codes.to(torch.int16) - 128).to(torch.int8).T  # [in, out], columns contiguous
    scales = made.scales.float().repeat_interleave(out // len(made.scales), 0).squeeze(1)
    bits = format.bits

    def multiply(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        integers, steps = token_integers(x.reshape(-1, inputs), bits)
        finite = integers.isfinite().all(1, keepdim=True)
        steps = torch.where(finite, steps, torch.nan)  # integers can't be NaN, so that the sum's factor is
        integers = torch.where(finite, integers, 0).to(torch.int8)
        tokens = len(integers)
        filled = functional.pad(integers, (0, 0, 0, max(_INT_MM_TOKENS - tokens, 0)))
        y = torch.ops.aten._int_mm(filled, codes)[:tokens] * steps * scales
        return finish(y.reshape(*x.shape[:-1], out).to(x.dtype), bias, activation)

    return f"torch's int8 product, inputs rounded to int{bits}", codes.nbytes + scales.nbytes, multiply, "int8"


def semi_structured(packed: Packed, precision: InputPrecision, dtype: torch.dtype, isa: str | None) -> Prepared:
    """Torch's sparse tensor cores: 2:4 of 16-bit numbers, 9 bits a weight whatever the file's width is."""
    scheme, (out, inputs) = packed.scheme, packed.shape
    if scheme.sparsity is None or scheme.sparsity.n_of_m != (2, 4) or scheme.low_rank is not None:
        raise UnfitError("it takes weights at 2:4 without a low-rank correction")
    if precision != "bf16" or dtype not in (torch.bfloat16, torch.float16):
        raise UnfitError("it takes 16-bit inputs that nothing rounds")
    if out % 64 or inputs % 64:
        raise UnfitError(f"it takes inputs and outputs that 64 divides, not {inputs} and {out}")
    _check(without_device(packed.device))
    sparse = torch.sparse.to_sparse_semi_structured(reference.dequantize(packed).to(dtype).contiguous())

    def multiply(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        y = functional.linear(x.reshape(-1, inputs).to(dtype), sparse)
        return finish(y.reshape(*x.shape[:-1], out).to(x.dtype), bias, activation)

    return "torch's semi-structured product", out * inputs * 9 // 8, multiply, "bf16"


def _check(reason: str) -> None:
    if reason:
        raise UnfitError(reason)
