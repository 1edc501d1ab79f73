"""Rows of an embedding, straight from the packed words of the file's own layout."""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.kernels.cpu.library import Library
from paredown.kernels.packing import Packed


def gather(library: Library, ids: Tensor, packed: Packed) -> Tensor:
    """The rows of a plain weight; only those that are asked for are read.

    Args:
        library: The loaded kernels.
        ids: Whole numbers of any shape [...].
        packed: The weight [rows, dim], plain integer codes on the CPU.

    Returns:
        float32 [..., dim].

    Raises:
        ParedownError: If an id is no row.
    """
    rows, dim = packed.shape
    format = packed.scheme.weight
    assert format is not None
    flat = checked_ids(ids, rows)
    words, scales = packed.tensors["weight_packed"].contiguous(), packed.tensors["weight_scale"].contiguous()
    zeros = None if format.symmetric else packed.tensors["weight_zero_point"].contiguous()
    made = torch.empty(*ids.shape, dim, dtype=torch.float32)
    library.dll.pd_gather(
        words.data_ptr(), words.shape[1], scales.data_ptr(), None if zeros is None else zeros.data_ptr(), scales.shape[1], dim, format.bits,
        flat.data_ptr(), flat.numel(), made.data_ptr(),
    )  # fmt: skip
    return made


def checked_ids(ids: Tensor, rows: int) -> Tensor:
    """Ids as the kernels read them, int64 [count].

    Raises:
        ParedownError: If an id is no row.
    """
    flat = ids.reshape(-1).to(torch.int64).contiguous()
    least, most = (int(end) for end in torch.aminmax(flat)) if flat.numel() else (0, -1)
    if least < 0 or most >= rows:
        raise ParedownError(f"expected ids from 0 to {rows - 1}, got {least} to {most}")
    return flat
