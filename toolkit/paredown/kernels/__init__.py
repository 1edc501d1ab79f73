from paredown.kernels.packing import Packed, pack, pack_codes, unpack, unpack_codes

__all__ = ["Packed", "pack", "pack_codes", "unpack", "unpack_codes"]
