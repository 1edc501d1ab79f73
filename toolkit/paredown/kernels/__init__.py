from paredown.kernels.dispatch import Kernel, embedding, linear, prepare
from paredown.kernels.packing import Packed, pack, pack_codes, unpack, unpack_codes

__all__ = ["Kernel", "Packed", "embedding", "linear", "pack", "pack_codes", "prepare", "unpack", "unpack_codes"]
