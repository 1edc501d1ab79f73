"""The compiled library, loaded once: its instruction sets, and the C structures of ``src/abi.h``."""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import POINTER, c_char_p, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from paredown.errors import ParedownError
from paredown.kernels.cpu import build

ISA_VARIABLE = "PAREDOWN_ISA"
"""The environment variable that forces an instruction set, for tests; ``none`` does without our own kernels."""


class WeightStruct(ctypes.Structure):
    """``Weight`` of ``src/abi.h``."""

    _fields_ = (
        *((name, c_int64) for name in ("rows", "inputs", "groups", "group", "rank")),
        *((name, c_int32) for name in ("bits", "wide_scales", "wide_factors", "reserved")),
        *((name, c_void_p) for name in ("codes", "scales", "zeros", "table", "masks", "offsets", "left", "right")),
    )


CALL = struct.Struct("@PPPqqiiiiiiii")
"""``Call`` of ``src/abi.h``, to be packed: a third of the time that a ctypes structure takes, which small products feel."""


@dataclass(frozen=True, slots=True)
class Isa:
    """One instruction set of the library.

    Attributes:
        index: Its place in the library's table; later ones are faster.
        name: ``scalar``, ``avx2``, ``avx_vnni``, ``avx512_vnni``, ``avx512_bf16`` or ``neon_dotprod``.
        supported: Whether this machine runs it.
        bf16: Whether it multiplies bfloat16 inputs as such; elsewhere they are multiplied in float32.
    """

    index: int
    name: str
    supported: bool
    bf16: bool


class Library:
    """The loaded library.

    Args:
        path: Of the shared object.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        dll = self.dll = ctypes.CDLL(str(path))
        dll.pd_isas.restype = c_int64
        dll.pd_isa_name.argtypes, dll.pd_isa_name.restype = (c_int64,), c_char_p
        dll.pd_isa_supported.argtypes = dll.pd_isa_bf16.argtypes = (c_int64,)
        dll.pd_linear.argtypes, dll.pd_linear.restype = (c_void_p, c_char_p), None
        self.linear = dll.pd_linear
        dll.pd_pack_dense.argtypes, dll.pd_pack_dense.restype = (c_void_p, c_int64, c_int64, c_int64, c_int32, c_void_p), None
        dll.pd_pack_sparse.argtypes = (c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int32, c_void_p, c_void_p, c_void_p)
        dll.pd_pack_sparse.restype = c_int64
        dll.pd_gather.argtypes = (c_void_p, c_int64, c_void_p, c_void_p, c_int64, c_int64, c_int32, c_void_p, c_int64, c_void_p)
        dll.pd_gather.restype = None
        dll.pd_rows.argtypes, dll.pd_rows.restype = (POINTER(WeightStruct), c_void_p, c_int64, c_void_p), None
        self.isas = tuple(
            Isa(index, dll.pd_isa_name(index).decode(), bool(dll.pd_isa_supported(index)), bool(dll.pd_isa_bf16(index)))
            for index in range(dll.pd_isas())
        )

    def isa(self, name: str | None = None) -> Isa:
        """An instruction set of this machine: the one named, by argument or by `ISA_VARIABLE`, or the fastest.

        Raises:
            ParedownError: If the machine or the library does not have it.
        """
        name = name or os.environ.get(ISA_VARIABLE) or None
        usable = [isa for isa in self.isas if isa.supported]
        if name is None:
            return usable[-1]
        found = next((isa for isa in usable if isa.name == name), None)
        if found is None:
            raise ParedownError(f"expected an instruction set of this machine, {', '.join(isa.name for isa in usable)}, got {name!r}")
        return found


@cache
def load() -> tuple[Library | None, str]:
    """The library, and why there is none; made first where this checkout's sources have changed since they were compiled."""
    if os.environ.get(ISA_VARIABLE) == "none":
        return None, f"{ISA_VARIABLE} is none"
    path, reason = build.build()
    if path is None:
        return None, reason
    try:
        return Library(path), reason
    except OSError as error:
        return None, f"{path.name} can't be loaded: {error}"
