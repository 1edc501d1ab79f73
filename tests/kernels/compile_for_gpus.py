"""Compile what products under some schemes would launch, for GPUs that are not here, and print what each kernel takes of them."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

sys.path.insert(0, str(Path(__file__).parents[1]))
from packed_weights import packed
from paredown.kernels.gpu import launch, products
from paredown.kernels.gpu.weight import TritonWeight

TYPES = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int32: "*i32", torch.int16: "*i16", torch.uint8: "*u8",
}  # fmt: skip


class Compiler:
    """In a kernel's place: compiles what it is launched with."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return self.launched

    def launched(self, *arguments, num_warps, num_stages=3, **constants):
        names = self.kernel.arg_names
        signature = dict.fromkeys(names, "constexpr")
        for name, argument in zip(names, arguments, strict=False):
            if argument is None:
                constants[name] = None
            else:
                signature[name] = TYPES[argument.dtype] if isinstance(argument, torch.Tensor) else "i32"
        source = ASTSource(self.kernel, signature, {(names.index(name),): value for name, value in constants.items()})
        made = triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32), options={"num_warps": num_warps, "num_stages": num_stages})
        print(CAPABILITY, made.metadata.shared, len(made.asm["cubin"]))


if __name__ == "__main__":
    launch._product, launch._add_up_tiles = Compiler(products.product), Compiler(products.add_up)
    for case in sys.argv[1:]:
        scheme, tokens, dtype, capability = case.split()
        CAPABILITY = int(capability)
        weight = TritonWeight(packed(scheme, (144, 1024)), processors=132)
        x = torch.zeros(int(tokens), 1024, dtype=getattr(torch, dtype))
        activation = weight._static is not None or "a8" in scheme
        weight.linear(x, torch.zeros(144), "gelu_tanh", precision="int8" if activation else "float32" if dtype == "float32" else "bf16")
