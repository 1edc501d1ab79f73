"""Write a safetensors file whose size is known before: what `paredown.sizes` counts, to the byte.

The format (huggingface/safetensors, README, 2022): eight bytes with the length of the header, the header as JSON, which may end in
spaces, then the tensors, contiguous, little-endian, in the order of their offsets.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from paredown.sizes import BYTES, METADATA, StoredTensor, entry_bytes, frame_bytes, header_entry


def write_weights(path: Path, tensors: Mapping[StoredTensor, Callable[[], Tensor]]) -> int:
    """Write the tensors, one at a time.

    Args:
        path: The file; it is overwritten.
        tensors: What the header says of each tensor, and a function that makes it.

    Returns:
        Bytes of the file.

    Raises:
        OSError: If the disk is full, or the file can't be written to.
    """
    # wide numbers first, so that every tensor starts at a multiple of its numbers' size
    order = sorted(tensors, key=lambda tensor: -BYTES[tensor.dtype])
    entries, end = [json.dumps({"__metadata__": METADATA}, separators=(",", ":"))[1:-1]], 0
    for tensor in order:
        entries.append(header_entry(tensor, end, end + tensor.bytes))
        end += tensor.bytes
    header = ("{" + ",".join(entries) + "}").encode()
    length = frame_bytes() - 8 + sum(map(entry_bytes, order))
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little") + header.ljust(length))
        for stored in order:
            tensor = tensors[stored]()
            # our own mistakes: anything else would write a file that nobody can read
            assert tuple(tensor.shape) == stored.shape, stored
            assert tensor.dtype is getattr(torch, stored.dtype), stored
            # a copy: "contiguous" leaves the stride of a single number as it is, and then it can't be seen as bytes
            flat = tensor.detach().cpu().reshape(-1).clone(memory_format=torch.contiguous_format)
            file.write(flat.view(torch.uint8).numpy().data)
    return 8 + length + end
