"""Codes of 2 to 8 bits in words of 32 bits, without a wasted bit: the layout of compressed-tensors' ``pack-quantized``.

The codes of a row form one stream of bits, lowest bit first; bit i of the stream is bit i mod 32 of word i // 32. A code may
straddle two words. The last word of a row is filled with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.specs import WeightFormat


@dataclass(frozen=True, slots=True)
class Packed:
    """A compressed weight, as the file and a packed module hold it.

    Attributes:
        words: int32 [out, ceil(in bits / 32)], the codes of each row.
        scales: float16 [out, groups].
        zero_points: int32 [ceil(out bits / 32), groups], packed down the columns; None for a symmetric format.
        format: Bits, group size and symmetry.
        shape: [out, in].
    """

    words: Tensor
    scales: Tensor
    zero_points: Tensor | None
    format: WeightFormat
    shape: tuple[int, int]

    @property
    def bytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in (self.words, self.scales, self.zero_points) if tensor is not None)


def pack(codes: Tensor, scales: Tensor, zero_points: Tensor | None, format: WeightFormat) -> Packed:
    """Pack a quantized weight.

    Args:
        codes: uint8 [out, in].
        scales: float16 [out, groups].
        zero_points: uint8 [out, groups], or None for a symmetric format.
        format: Its bits say how wide a code is.

    Returns:
        The same numbers in words.
    """
    packed_zeros = None if zero_points is None else pack_codes(zero_points.T, format.bits).T.contiguous()
    return Packed(pack_codes(codes, format.bits), scales, packed_zeros, format, (codes.shape[0], codes.shape[1]))


def unpack(packed: Packed) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes uint8 [out, in], scales float16 [out, groups], and zero points uint8 [out, groups] or None: the inverse of `pack`."""
    bits, (out, inputs) = packed.format.bits, packed.shape
    zero_points = None if packed.zero_points is None else unpack_codes(packed.zero_points.T, bits, out).T
    return unpack_codes(packed.words, bits, inputs), packed.scales, zero_points


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
    data = words.contiguous().view(torch.uint8)
    eights = torch.zeros((rows, -(-columns // 8), 8), dtype=torch.uint8, device=words.device)
    length = eights.shape[1] * bits
    data = torch.nn.functional.pad(data, (0, length - data.shape[1]))  # negative where the last word is padding
    eights[:, :, :bits] = data.reshape(rows, -1, bits)
    stream = eights.view(torch.int64).reshape(rows, -1, 1)
    codes = (stream >> (torch.arange(8, device=words.device) * bits)) & ((1 << bits) - 1)
    return codes.to(torch.uint8).reshape(rows, -1)[:, :columns].contiguous()
