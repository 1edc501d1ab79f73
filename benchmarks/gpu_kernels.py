"""Our Triton kernels on a CUDA device, against torch's bfloat16 product and torch's own products of few bits.

Times between CUDA events, medians of interleaved rounds. Weights rotate over copies that together exceed the second-level cache twice, so
that each product reads its weight from memory. ``device`` times leave out what Python takes to launch a product, ``call`` times have it.
Errors are those of the results, on inputs of 16 bits, against the dequantized weight in float64. There is no such table yet: no GPU has
been at hand. Where something is missing, the script says
what, and exits with 77.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from _rows import Row, options, row, show, skip
from paredown.errors import ParedownError
from paredown.kernels import Kernel, Packed, linear, pack, prepare, reference
from paredown.kernels.backends import GpuBackend
from paredown.kernels.gpu.backends import without_device, without_triton
from paredown.kernels.gpu.timing import median_seconds
from paredown.kernels.speed import in_turn
from paredown.methods import compress
from paredown.specs import Scheme

SCHEMES = (
    "int2g128", "int3g128", "int4g128", "int8g128", "nf4g64", "int4g128a8", "int8sym", "int8syma8", "int4g128+2:4", "2:4", "int4g128+80%",
    "int4g128+svd32",
)  # fmt: skip
SHAPES = "3072x768,4096x4096,8192x2048,14336x4096"
TOKENS = "1,16,128,1024"
DENSE = "bf16"


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--shapes", default=SHAPES, help="of weights, outputs x inputs, comma separated")
    parser.add_argument("--tokens", default=TOKENS, help="inputs at once, comma separated")
    parser.add_argument("--schemes", default=",".join(SCHEMES), help="comma separated")
    arguments = parser.parse_args()
    if lacking := "; ".join(reason for reason in (without_device(), without_triton()) if reason):
        return skip(f"{lacking}; it takes an NVIDIA GPU of compute capability 8.0 or later, and triton", arguments.json)
    device = torch.cuda.get_device_properties(0)
    title = (
        f"{device.name}, {device.multi_processor_count} multiprocessors, {device.total_memory / 2**30:.0f} GiB, compute capability"
        f" {device.major}.{device.minor}; torch {torch.__version__}, CUDA {torch.version.cuda}; times of one product, rival: torch's bfloat16"
    )
    rows = []
    with torch.inference_mode():
        for shape in arguments.shapes.split(","):
            out, inputs = map(int, shape.split("x"))
            rows += products((out, inputs), arguments, device.L2_cache_size)
    show(title, rows, arguments.json)
    return 0


def products(shape: tuple[int, int], arguments: argparse.Namespace, cache: int) -> list[Row]:
    out, inputs = shape
    weight = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) / inputs**0.5).bfloat16()
    dense = [weight.cuda().clone() for _ in range(copies(weight.nbytes, cache))]
    rotations: dict[str, list[Callable[[Tensor], Tensor]]] = {DENSE: [lambda x, w=w: functional.linear(x, w) for w in dense]}
    rows = []
    for scheme in arguments.schemes.split(","):
        packed = pack(compress(weight, Scheme.parse(scheme)))
        packed = Packed({name: tensor.cuda() for name, tensor in packed.tensors.items()}, packed.scheme, packed.shape)
        exact = reference.dequantize(packed).double()
        for backend in get_args(GpuBackend):
            label = f"{scheme} {backend}"
            try:
                first = prepare(packed, backend=backend, dtype=torch.bfloat16)
                more = [prepare(packed, backend=backend, dtype=torch.bfloat16) for _ in range(copies(first.bytes, cache) - 1)]
            except ParedownError as error:
                print(f"{out}x{inputs} {error}")
                continue
            rotations[label] = [lambda x, kernel=kernel: linear(x, kernel) for kernel in (first, *more)]
            rows.append(Row(f"{out}x{inputs} {label}, error", error_of(first, exact, packed), None, None, "1"))
            rows.append(Row(f"{out}x{inputs} {label}, bytes", first.bytes * 8 / weight.numel(), None, None, "bits a weight"))
    for tokens in map(int, arguments.tokens.split(",")):
        x = torch.randn(tokens, inputs, dtype=torch.bfloat16, device="cuda")
        jobs = {name: in_turn([partial(call, x) for call in calls]) for name, calls in rotations.items()}
        for kind, queued in (("device", True), ("call", False)):
            seconds = median_seconds(jobs, arguments.rounds, queued=queued)
            rows += [
                row(f"{out}x{inputs} M={tokens} {name}, {kind}", seconds[name] * 1e6, "us", seconds[DENSE] * 1e6)
                for name in rotations
                if name != DENSE
            ]
    return rows


def copies(size: int, cache: int) -> int:
    """So many that the cache never holds the one whose turn it is."""
    return max(2, -(-2 * cache // size))


def error_of(kernel: Kernel, exact: Tensor, packed: Packed) -> float:
    """Of results in float32; where a scheme rounds inputs, they are rounded first."""
    x = torch.randn(64, packed.shape[1], device="cuda").half().float()
    given = x if packed.round_inputs is None else packed.round_inputs(x)
    given = given if kernel.precision == "int8" else given.bfloat16()
    expected = given.double() @ exact.T
    found = linear(x if kernel.precision == "int8" else given.float(), kernel).double()
    return float((found - expected).norm() / expected.norm())


if __name__ == "__main__":
    sys.exit(main())
