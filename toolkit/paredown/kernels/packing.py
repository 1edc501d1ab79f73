"""Codes of 1 to 8 bits in words of 32 bits, without a wasted bit: the layout of compressed-tensors' ``pack-quantized``.

The codes of a row form one stream of bits, lowest bit first; bit i of the stream is bit i mod 32 of word i // 32. A code may
straddle two words. The last word of a row is filled with zeros. Masks are codes of one bit; of a pruned weight only the kept codes
are there (`paredown.sizes` has the whole layout).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown import sizes
from paredown.errors import ParedownError
from paredown.methods import Compressed, Quantized
from paredown.methods.activations import StaticGrid
from paredown.methods.compress import Numbers, input_rounding, microscaling_kind, normal_float_format
from paredown.methods.factors import StoredFactors
from paredown.methods.microscaling import Microscaled
from paredown.methods.normal_float import NormalFloat
from paredown.specs import Scheme, WeightFormat


@dataclass(frozen=True, eq=False, slots=True)
class Packed:
    """A compressed weight, as the file and a packed module hold it.

    Attributes:
        tensors: By the names of `paredown.sizes.packed_tensors`, without ``weight_shape``.
        scheme: What was done to the weight.
        shape: [out, in].
    """

    tensors: Mapping[str, Tensor]
    scheme: Scheme
    shape: tuple[int, int]

    @property
    def bytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(iter(self.tensors.values())).device

    @property
    def round_inputs(self) -> Callable[[Tensor], Tensor] | None:
        """What the layer does to its inputs [..., in]; None where it takes them as they come."""
        return input_rounding(self.scheme.activation, _static_grid(self))


def pack(made: Compressed) -> Packed:
    """Pack a compressed weight: the same numbers in words, pruned ones left out."""
    tensors: dict[str, Tensor] = {}
    if made.numbers is not None:
        codes = made.numbers if isinstance(made.numbers, Tensor) else made.numbers.codes
        kept = codes if made.mask is None else codes[made.mask].reshape(_kept_shape(made.scheme, made.shape))
        if isinstance(made.numbers, Tensor):
            tensors["weight_values"] = kept
        else:
            tensors["weight_packed"] = pack_codes(kept, _bits(made.numbers))
            tensors |= _packed_scales("weight", made.numbers)
    if made.mask is not None:
        tensors["weight_mask"] = pack_codes(made.mask.to(torch.uint8), 1)
        if made.scheme.sparsity is not None and made.scheme.sparsity.n_of_m is None:
            ends = made.mask.sum(1).cumsum(0)
            tensors["weight_offsets"] = (ends - made.mask.sum(1)).to(torch.int32)
    if made.factors is not None:
        for name, factor in (("weight_left", made.factors.left), ("weight_right", made.factors.right)):
            if isinstance(factor, Tensor):
                tensors[name] = factor
            else:
                tensors[f"{name}_packed"] = pack_codes(factor.codes, factor.format.bits)
                tensors |= _packed_scales(name, factor)
    if made.inputs is not None:
        tensors |= {"input_scale": made.inputs.scale, "input_zero_point": made.inputs.zero_point}
    return Packed(tensors, made.scheme, made.shape)


def unpack(packed: Packed) -> Compressed:
    """The inverse of `pack`."""
    scheme, shape, tensors = packed.scheme, packed.shape, packed.tensors
    mask = unpack_codes(tensors["weight_mask"], 1, shape[1]).bool() if "weight_mask" in tensors else None
    factors = None
    if scheme.low_rank is not None:
        left, right = (
            _factor(tensors, f"weight_{side}", (scheme.low_rank.rank, width), scheme.low_rank.bits)
            for side, width in zip(("left", "right"), shape, strict=True)
        )
        factors = StoredFactors(left, right)
    return Compressed(scheme, shape, _numbers(packed, mask), mask, factors, _static_grid(packed))


def _static_grid(packed: Packed) -> StaticGrid | None:
    format, tensors = packed.scheme.activation, packed.tensors
    if format is None or not format.static:
        return None
    return StaticGrid(tensors["input_scale"], tensors["input_zero_point"], format.bits)


def _bits(numbers: Quantized | NormalFloat | Microscaled) -> int:
    return 4 if isinstance(numbers, Microscaled) else numbers.format.bits


def _numbers(packed: Packed, mask: Tensor | None) -> Numbers | None:
    format, tensors, (out, inputs) = packed.scheme.weight, packed.tensors, packed.shape
    if format is None and mask is None:
        return None
    if format is None:
        assert mask is not None
        values = tensors["weight_values"]
        return values.new_zeros(packed.shape).masked_scatter_(mask, values)
    columns = inputs if mask is None else _kept_shape(packed.scheme, packed.shape)[1]
    codes = unpack_codes(tensors["weight_packed"], format.bits, columns)
    if format.kind == "nf":
        scales = (tensors["weight_scale"], tensors["weight_scale_scale"], tensors["weight_scale_offset"].squeeze(0))
        zero = torch.tensor((1 << (format.bits - 1)) - 1)
        return NormalFloat(_spread(codes, mask, zero), *scales, normal_float_format(format, inputs))
    scales = tensors["weight_scale"]
    if format.kind != "int":
        tensor_scale = tensors["weight_global_scale"].squeeze(0) if format.kind == "nvfp" else None
        return Microscaled(_spread(codes, mask, torch.tensor(0)), scales, tensor_scale, microscaling_kind(format))
    zeros = _zero_points(tensors, "weight", format, scales.shape[0])
    zero = torch.tensor(1 << (format.bits - 1))
    if mask is not None and zeros is not None:  # of each weight
        run, size = out // zeros.shape[0], inputs // zeros.shape[1]
        zero = zeros.repeat_interleave(run, dim=0).repeat_interleave(size, dim=1)
    return Quantized(_spread(codes, mask, zero), scales, zeros, format)


def _spread(codes: Tensor, mask: Tensor | None, zero: Tensor) -> Tensor:
    """Kept codes at their places, zero's code at all others."""
    if mask is None:
        return codes
    return zero.to(codes).expand(mask.shape).clone().masked_scatter_(mask, codes)


def _kept_shape(scheme: Scheme, shape: tuple[int, int]) -> tuple[int, int]:
    assert scheme.sparsity is not None
    row = scheme.sparsity.kept_in_row(shape[1])
    return (1, scheme.sparsity.kept(*shape)) if row is None else (shape[0], row)


def _packed_scales(name: str, numbers: Quantized | NormalFloat | Microscaled) -> dict[str, Tensor]:
    if isinstance(numbers, Microscaled):
        scales = {f"{name}_scale": numbers.scales}
        return scales if numbers.tensor_scale is None else {**scales, f"{name}_global_scale": numbers.tensor_scale.reshape(1)}
    if isinstance(numbers, NormalFloat):
        return {
            f"{name}_scale": numbers.scale_codes,
            f"{name}_scale_scale": numbers.scale_scales,
            f"{name}_scale_offset": numbers.offset.reshape(1),
        }
    tensors = {f"{name}_scale": numbers.scales}
    if numbers.zero_points is not None:
        tensors[f"{name}_zero_point"] = pack_codes(numbers.zero_points.T, numbers.format.bits).T.contiguous()
    return tensors


def _factor(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, int], bits: int) -> Tensor | Quantized:
    format = sizes.factor_format(shape, bits)
    if format is None:
        return tensors[name]
    codes = unpack_codes(tensors[f"{name}_packed"], format.bits, shape[1])
    return Quantized(codes, tensors[f"{name}_scale"], _zero_points(tensors, name, format, shape[0]), format)


def _zero_points(tensors: Mapping[str, Tensor], name: str, format: WeightFormat, rows: int) -> Tensor | None:
    return None if format.symmetric else unpack_codes(tensors[f"{name}_zero_point"].T, format.bits, rows).T


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack each row of codes.

    Args:
        codes: uint8 [rows, columns], each below 2^bits.
        bits: 1 to 8.

    Returns:
        int32 [rows, ceil(columns bits / 32)].

    Raises:
        ParedownError: If the codes are not uint8, or one of them needs more bits.
    """
    if codes.dtype is not torch.uint8 or codes.ndim != 2:
        raise ParedownError(f"expected codes of dtype uint8 and shape [rows, columns], got {codes.dtype} {list(codes.shape)}")
    if codes.numel() and int(codes.max()) >> bits:
        raise ParedownError(f"the code {int(codes.max())} does not fit into {bits} bits; expected at most {(1 << bits) - 1}")
    rows, columns = codes.shape
    if not codes.numel():
        return codes.new_zeros((rows, -(-columns * bits // 32)), dtype=torch.int32)
    # eight codes of b bits fill b bytes, whatever b is: one int64 holds them
    eights = torch.nn.functional.pad(codes, (0, -columns % 32)).reshape(rows, -1, 8).to(torch.int64)
    stream = torch.zeros(eights.shape[:2], dtype=torch.int64, device=codes.device)
    for place in range(8):
        stream |= eights[:, :, place] << (place * bits)
    # the low b bytes of each int64, in order, are the stream (little-endian, as safetensors files are)
    words = stream.view(torch.uint8).reshape(rows, -1, 8)[:, :, :bits].reshape(rows, -1).contiguous().view(torch.int32)
    return words[:, : -(-columns * bits // 32)].contiguous()


def unpack_codes(words: Tensor, bits: int, columns: int) -> Tensor:
    """The codes of each row: the inverse of `pack_codes`.

    Args:
        words: int32 [rows, ceil(columns bits / 32)].
        bits: 1 to 8.
        columns: Codes in a row.

    Returns:
        uint8 [rows, columns].

    Raises:
        ParedownError: If the words are of another dtype, or not as many as the columns need.
    """
    if words.dtype is not torch.int32 or words.ndim != 2 or words.shape[1] != -(-columns * bits // 32):
        raise ParedownError(
            f"expected words of dtype int32 and shape [rows, {-(-columns * bits // 32)}] for {columns} codes of {bits} bits, got {words.dtype} {list(words.shape)}"
        )
    rows = words.shape[0]
    if not rows or not columns:
        return words.new_zeros((rows, columns), dtype=torch.uint8)
    data = words.clone(memory_format=torch.contiguous_format).view(torch.uint8)  # even where a side of 1 has an odd stride
    eights = torch.zeros((rows, -(-columns // 8), 8), dtype=torch.uint8, device=words.device)
    length = eights.shape[1] * bits
    data = torch.nn.functional.pad(data, (0, length - data.shape[1]))  # negative where the last word is padding
    eights[:, :, :bits] = data.reshape(rows, -1, bits)
    stream = eights.view(torch.int64).reshape(rows, -1, 1)
    codes = (stream >> (torch.arange(8, device=words.device) * bits)) & ((1 << bits) - 1)
    return codes.to(torch.uint8).reshape(rows, -1)[:, :columns].contiguous()
