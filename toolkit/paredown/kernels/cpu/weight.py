"""A packed weight in the layout of our own kernels (``src/abi.h``), and the product with it."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.kernels.cpu.gather import checked_ids
from paredown.kernels.cpu.library import CALL, Isa, Library, WeightStruct, load
from paredown.kernels.grids import code_grid
from paredown.kernels.packing import Packed, unpack
from paredown.methods import Quantized
from paredown.methods.factors import StoredFactors, dense_factor
from paredown.methods.microscaling import Microscaled
from paredown.methods.normal_float import NormalFloat
from paredown.specs import GROUP_SIZES

InputPrecision = Literal["int8", "bf16", "float32"]
"""What inputs are rounded to while they are multiplied; sums are exact integers or float32."""

Activation = Literal["none", "gelu", "gelu_tanh", "silu", "relu"]

BLOCK = 16
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_PRECISIONS = {name: number for number, name in enumerate(get_args(InputPrecision))}
_ACTIVATIONS = {name: number for number, name in enumerate(get_args(Activation))}
_READ_AHEAD = 64  # bytes that a kernel may read behind the last code


def refusal(packed: Packed) -> str:
    """Why our kernels can't hold a weight; empty where they can."""
    if packed.scheme.weight is None and packed.scheme.sparsity is not None:
        return "its kept weights have no number format, and the kernels multiply codes"
    return ""


class KernelWeight:
    """A weight in the kernels' layout. One layout serves every instruction set and precision.

    Args:
        packed: As the file holds it; nothing of it is kept.
        isa: Which instruction set multiplies, by name; None takes the fastest of this machine.

    Raises:
        ParedownError: If the kernels can't hold the weight (`refusal`), or there is no library.

    Attributes:
        shape: [out, in].
        tensors: What the kernels read, by the names of ``src/abi.h``.
        isa: Its instruction set.
    """

    def __init__(self, packed: Packed, isa: str | None = None) -> None:
        library, reason = load()
        if library is None:
            raise ParedownError(f"there are no kernels of our own here: {reason}")
        if why := refusal(packed):
            raise ParedownError(f"the kernels can't hold {packed.scheme}: {why}; use the reference")
        self._library, self.isa = library, library.isa(isa)
        self.shape, self.bits = packed.shape, 0
        self.group = self.groups = self.rank = 0
        self.tensors: dict[str, Tensor] = {}
        made = unpack(packed)
        if made.numbers is None:
            self.group, self.groups = 16, -(-self.shape[1] // 16)
        else:
            assert not isinstance(made.numbers, Tensor)  # `refusal` has looked
            self._take_codes(made.numbers, made.mask)
        if made.factors is not None:
            self._take_factors(made.factors)
        self._take_struct()

    @property
    def bytes(self) -> int:
        """Bytes that the kernels read."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def linear(
        self,
        x: Tensor,
        bias: Tensor | None = None,
        activation: Activation = "none",
        *,
        precision: InputPrecision = "float32",
        input_bits: int = 8,
    ) -> Tensor:
        """activation(X Wᵀ + bias).

        A token's inputs are rounded to symmetric integers over their own range in each group of the weight, and in each 64 of it
        (``int8``), to bfloat16 where the instruction set has it (``bf16``), or not at all. Inputs that are not finite give outputs that are not.

        Args:
            x: [..., in], float32, bfloat16 or float16.
            bias: [out] or None.
            activation: Applied to the result.
            precision: Of the inputs.
            input_bits: Of ``int8`` inputs: 8, or 4.

        Returns:
            [..., out], of the dtype of ``x``.

        Raises:
            ParedownError: If the inputs have another width, dtype or device.
        """
        out, inputs = self.shape
        if x.dtype not in _DTYPES or x.ndim == 0 or x.shape[-1] != inputs or x.device.type != "cpu":
            raise ParedownError(
                f"expected inputs [..., {inputs}] of float32, bfloat16 or float16 on the CPU, got {list(x.shape)} of {x.dtype} on {x.device}"
            )
        if precision == "int8" and "table" in self.tensors:
            raise ParedownError(
                "codes of a table are no whole numbers, so that 8-bit inputs can't be multiplied with them; take bf16 or float32"
            )
        rows = x.reshape(-1, inputs)
        if rows.stride(1) != 1 and inputs > 1:
            rows = rows.contiguous()
        y = torch.empty(*x.shape[:-1], out, dtype=x.dtype)
        if bias is not None and (bias.dtype is not torch.float32 or not bias.is_contiguous()):
            bias = bias.detach().to(torch.float32).contiguous()
        if y.numel():
            kind = _DTYPES[x.dtype]
            self._library.linear(
                self._address,
                CALL.pack(
                    rows.data_ptr(), y.data_ptr(), 0 if bias is None else bias.data_ptr(), rows.shape[0], rows.stride(0),
                    kind, kind, _PRECISIONS[precision], (1 << (input_bits - 1)) - 1, _ACTIVATIONS[activation],
                    torch.get_num_threads(), self.isa.index, 0,
                ),
            )  # fmt: skip
        return y

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the weight, as an embedding looks them up.

        Args:
            ids: Whole numbers of any shape [...].

        Returns:
            float32 [..., in].

        Raises:
            ParedownError: If an id is no row, or the weight is sparse or has factors.
        """
        out, inputs = self.shape
        if "masks" in self.tensors or self.rank:
            raise ParedownError("expected a dense weight without low-rank factors to look rows up in; use the packed words")
        flat = checked_ids(ids, out)
        made = torch.empty(*ids.shape, inputs, dtype=torch.float32)
        if made.numel():
            self._library.dll.pd_rows(ctypes.byref(self._struct), flat.data_ptr(), flat.numel(), made.data_ptr())
        return made

    def _take_codes(self, numbers: Quantized | NormalFloat | Microscaled, mask: Tensor | None) -> None:
        out, inputs = self.shape
        grid = code_grid(numbers)
        bits, scales, zeros, width = grid.bits, grid.scales, grid.zeros, grid.width
        if grid.table is not None:
            self.tensors["table"] = torch.nn.functional.pad(grid.table, (0, 16 - len(grid.table)))
        if zeros is None and (grid.table is None or mask is not None):
            zeros = torch.full_like(scales, grid.zero, dtype=torch.uint8)
        self.group = next((size for size in reversed(GROUP_SIZES) if width % size == 0), 0)
        if not self.group:  # one scale a row, and a last group that is not full
            self.group = min(128, 1 << max(4, (inputs - 1).bit_length()))
        self.groups, repeats = -(-inputs // self.group), -(-width // self.group)
        self.bits = bits
        self.tensors["scales"] = self._blocked(scales.repeat_interleave(repeats, 1))
        if zeros is not None:
            self.tensors["zeros"] = self._blocked(zeros.repeat_interleave(repeats, 1))
        padded, blocks = self.groups * self.group, -(-out // BLOCK)
        codes, dll = grid.codes.contiguous(), self._library.dll
        if mask is None:
            packed = torch.zeros(blocks * BLOCK * padded * bits // 8 + _READ_AHEAD, dtype=torch.uint8)
            dll.pd_pack_dense(codes.data_ptr(), out, inputs, padded, bits, packed.data_ptr())
        else:
            kept = mask.to(torch.uint8).contiguous()
            size = dll.pd_pack_sparse(codes.data_ptr(), kept.data_ptr(), out, inputs, padded, bits, None, None, None)
            packed = torch.zeros(size + _READ_AHEAD, dtype=torch.uint8)
            masks, offsets = torch.zeros(blocks, padded // 4, dtype=torch.int64), torch.zeros(blocks, dtype=torch.int64)
            dll.pd_pack_sparse(
                codes.data_ptr(), kept.data_ptr(), out, inputs, padded, bits, packed.data_ptr(), masks.data_ptr(), offsets.data_ptr()
            )
            self.tensors |= {"masks": masks, "offsets": offsets}
        self.tensors["codes"] = packed

    def _take_factors(self, factors: StoredFactors) -> None:
        left, right = dense_factor(factors.left), dense_factor(factors.right)
        if isinstance(factors.left, Tensor) and isinstance(factors.right, Tensor):
            left, right = left.half(), right.half()  # as the file has them; those of codes need float32 to stay exact
        self.rank = left.shape[0]
        self.tensors["left"] = self._blocked(left.T)
        fill = torch.nn.functional.pad(right, (0, 0, 0, -self.rank % BLOCK))
        self.tensors["right"] = fill.reshape(-1, BLOCK, self.shape[1]).transpose(1, 2).contiguous()

    def _blocked(self, rows: Tensor) -> Tensor:
        """[out, n] as [blocks, n, 16], rows beyond the last one zero."""
        rows = rows.float() if rows.dtype is torch.bfloat16 else rows  # which kernels don't read
        fill = torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % BLOCK))
        return fill.reshape(-1, BLOCK, rows.shape[1]).transpose(1, 2).contiguous()

    def _take_struct(self) -> None:
        """Point the C structure to the tensors; again where they are others."""

        def wide(name: str) -> int:
            return int(name in self.tensors and self.tensors[name].dtype is torch.float32)

        pointers = (self.tensors[name].data_ptr() if name in self.tensors else None for name in _POINTERS)
        self._struct = WeightStruct(*self.shape, self.groups, self.group, self.rank, self.bits, wide("scales"), wide("left"), 0, *pointers)
        self._address = ctypes.addressof(self._struct)

    def __copy__(self) -> KernelWeight:
        """With the same instruction set."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> KernelWeight:
        """Weights never change, and are shared; only the modules around them are copied."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Without what only this process has."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_library", "_struct", "_address", "isa")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take up the fastest instruction set of the machine that reads it."""
        library, reason = load()
        if library is None:
            raise ParedownError(f"the weight is in the layout of kernels that this machine does not have: {reason}")
        self.__dict__.update(state)
        self._library: Library = library
        self.isa: Isa = library.isa()
        self._take_struct()


_POINTERS = ("codes", "scales", "zeros", "table", "masks", "offsets", "left", "right")
