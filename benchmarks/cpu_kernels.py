"""Our CPU kernels against torch's bfloat16 product, torch's int4pack, and, where they are installed, onnxruntime and OpenVINO.

One thread, CPU time, the least of interleaved rounds; the weights of the large shape rotate over copies, so that they are read from
memory. This script is not called kernels.py because transformers, finding a module of that name beside a script, takes it for the
package of that name. ``pip install --target FOLDER onnxruntime openvino`` and ``PYTHONPATH=FOLDER`` add the two, which are nobody's dependency.
"""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from _rows import Row, options, row, show
from paredown import models, tasks
from paredown.kernels import pack, reference
from paredown.kernels.cpu import build
from paredown.kernels.cpu.weight import InputPrecision, KernelWeight
from paredown.kernels.speed import in_turn, least_seconds
from paredown.methods import compress
from paredown.specs import Scheme

SHAPES = ((3072, 768), (8192, 2048))
TOKENS = (1, 16, 128)
SCHEMES: dict[str, tuple[str, InputPrecision]] = {
    "W2A8 g128": ("int2g128", "int8"),
    "W3A8 g128": ("int3g128", "int8"),
    "W4A8 g128": ("int4g128", "int8"),
    "W8A8 g128": ("int8g128", "int8"),
    "W4A16 g128": ("int4g128", "bf16"),
    "NF4A16 g128": ("nf4g128", "bf16"),
    "2:4 W8A8 g128": ("int8g128+2:4", "int8"),
    "2:4 W4A8 g128": ("int4g128+2:4", "int8"),
    "80 % W8A8 g128": ("int8g128+80%", "int8"),
    "W4A8 g128 + rank 32": ("int4g128+svd32", "int8"),
}
COLD = 4_000_000  # weights from which on copies rotate
COPIES = 4


Product = Callable[[Tensor], object]


def job(copies: Sequence[Product], x: Tensor) -> Callable[[], object]:
    """A product with these inputs whose weight is another copy on each call."""
    return in_turn([partial(copy, x) for copy in copies])


def main() -> None:
    arguments = options(__doc__)
    arguments.add_argument("--rounds", type=int, default=10)
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    peaks = machine_peaks()
    rows = [Row(name, value, None, None, unit) for name, value, unit in peaks]
    with torch.inference_mode():
        for shape in SHAPES:
            rows += products(shape, arguments.rounds, peaks)
        rows += errors()
    show("Products on this CPU: ours, torch's bfloat16 (or the rival named); times of one product", rows, arguments.json)


def products(shape: tuple[int, int], rounds: int, peaks: Sequence[tuple[str, float, str]]) -> list[Row]:
    out, inputs = shape
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) / inputs**0.5
    copies = COPIES if weight.numel() > COLD else 1
    ours = {name: our_turns(weight, *SCHEMES[name], copies) for name in SCHEMES}
    avx2, _ = our_turns(weight, "int4g128", "int8", copies, "avx2")
    dense = [weight.bfloat16().clone() for _ in range(copies)]
    bf16 = [lambda x, w=w: functional.linear(x, w) for w in dense]
    peers = {"int4pack": int4pack(weight, copies)} | peers_of(weight, copies)
    rows = []
    for tokens in TOKENS:
        x = torch.randn(tokens, inputs)
        half = x.bfloat16()
        jobs = {"bf16": job(bf16, half)} | {name: job(copies, half if "A16" in name else x) for name, (copies, _) in ours.items()}
        jobs |= {"avx2": job(avx2, x)} | {name: job(copies, half if name == "int4pack" else x) for name, copies in peers.items()}
        seconds = least_seconds(jobs, rounds)
        label = f"{out}x{inputs} M={tokens}"
        rows += [row(f"{label} {name}", seconds[name] * 1e6, "us", seconds["bf16"] * 1e6) for name in ours]
        rows += [row(f"{label} W4A8 g128 against {name}", seconds["W4A8 g128"] * 1e6, "us", seconds[name] * 1e6) for name in peers]
        rows.append(row(f"{label} W4A8 g128 by AVX2 alone against int4pack", seconds["avx2"] * 1e6, "us", seconds["int4pack"] * 1e6))
        for name, (_, read) in ours.items() if peaks else ():
            (_, int8, _), (_, bf16_peak, _), (_, memory, _) = peaks
            reached = 2 * out * inputs * tokens / seconds[name] / 1e9 / (bf16_peak if "A16" in name else int8)
            if tokens == TOKENS[-1] and "%" not in name and ":" not in name:
                rows.append(Row(f"{label} {name}, share of the peak of its dot products", reached, None, None, "1"))
            if tokens == 1 and weight.numel() > COLD:
                rows.append(Row(f"{label} {name}, share of the memory's bandwidth", read / seconds[name] / 1e9 / memory, None, None, "1"))
    return rows


def our_turns(weight: Tensor, scheme: str, precision: InputPrecision, copies: int, isa: str | None = None) -> tuple[list[Product], int]:
    """Products with copies of one weight, and the bytes that each reads."""
    first = KernelWeight(pack(compress(weight, Scheme.parse(scheme))), isa)
    made = [first]
    for _ in range(copies - 1):
        other = copy.copy(first)
        other.tensors = {name: tensor.clone() for name, tensor in first.tensors.items()}
        other._take_struct()
        made.append(other)
    return [lambda x, w=w: w.linear(x, precision=precision) for w in made], first.bytes


def int4pack(weight: Tensor, copies: int, group: int = 128) -> list[Product]:
    out, inputs = weight.shape
    codes = torch.randint(0, 16, (out, inputs), dtype=torch.int32)
    made = [torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1).clone() for _ in range(copies)]
    factors = torch.rand(inputs // group, out, 2).bfloat16()
    return [lambda x, w=w: torch.ops.aten._weight_int4pack_mm_for_cpu(x, w, group, factors) for w in made]


def peers_of(weight: Tensor, copies: int) -> dict[str, list[Product]]:
    """Those of onnxruntime and OpenVINO that are installed."""
    made = {}
    if importlib.util.find_spec("onnxruntime"):
        made["onnxruntime"] = [_onnxruntime(weight) for _ in range(copies)]
    if importlib.util.find_spec("openvino"):
        made["OpenVINO"] = [_openvino(weight) for _ in range(copies)]
    return made


def _onnxruntime(weight: Tensor, group: int = 128) -> Callable[[Tensor], object]:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    out, inputs = weight.shape
    rng = np.random.default_rng(0)
    tensors = {
        "B": rng.integers(0, 256, (out, inputs // group, group // 2), dtype=np.uint8),
        "scales": rng.random((out, inputs // group), dtype=np.float32).reshape(-1),
        "zeros": rng.integers(0, 256, (out, (inputs // group + 1) // 2), dtype=np.uint8).reshape(-1),
    }
    node = helper.make_node(
        "MatMulNBits", ["x", *tensors], ["y"], domain="com.microsoft", K=inputs, N=out, bits=4, block_size=group, accuracy_level=4
    )
    graph = helper.make_graph(
        [node], "product", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["M", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", out])], [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=10)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    assert onnx is not None
    return lambda x: session.run(None, {"x": x.numpy()})


def _openvino(weight: Tensor, group: int = 128) -> Callable[[Tensor], object]:
    import openvino
    from openvino import opset13 as ops

    out, inputs = weight.shape
    rng = np.random.default_rng(0)

    def nibbles(*shape: int) -> Any:
        data = rng.integers(0, 256, int(np.prod(shape)) // 2, dtype=np.uint8)
        return openvino.op.Constant(openvino.Tensor(data, openvino.Shape(shape), openvino.Type.u4))

    codes, zeros = nibbles(out, inputs // group, group), nibbles(out, inputs // group, 1)
    scales = ops.constant(rng.random((out, inputs // group, 1)).astype(np.float16))
    dense = ops.multiply(ops.subtract(ops.convert(codes, "f16"), ops.convert(zeros, "f16")), scales)
    dense = ops.convert(ops.reshape(dense, ops.constant([out, inputs]), False), "f32")
    x = ops.parameter([-1, inputs], np.float32)
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": 1, "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(group), "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(openvino.Model([ops.matmul(x, dense, False, True)], [x]), "CPU", settings).create_infer_request()
    return lambda x: request.infer([x.numpy()], share_inputs=True, share_outputs=True)


def errors() -> list[Row]:
    """Relative error of the results on what a layer of the sentiment demo really gets, against the dequantized weight in float64."""
    loaded = models.load("demo:sentiment")
    task = tasks.load("demo:sentiment", loaded)
    name = "bert.encoder.layer.3.intermediate.dense"
    module, seen = loaded.model.get_submodule(name), []
    handle = module.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].flatten(0, -2)))
    task.predictions(loaded.model, next(iter(task.batches("held_out"))))
    handle.remove()
    x = seen[0].float()
    rows = []
    for label, (scheme, precision) in SCHEMES.items():
        packed = pack(compress(module.weight, Scheme.parse(scheme)))
        dense = reference.dequantize(packed)
        given = x.bfloat16().float() if precision == "bf16" else x  # 16-bit inputs are numbers of 16 bits
        exact = given.double() @ dense.double().T
        found = KernelWeight(packed).linear(given, precision=precision).double()
        bf16 = functional.linear(given.bfloat16(), dense.bfloat16()).double()
        rows.append(row(f"error {label}, {name}", relative(found, exact), "1", relative(bf16, exact)))
        bits = KernelWeight(packed).bytes * 8 / dense.numel()
        rows.append(Row(f"bytes {label}", bits, None, None, "bits a weight"))
    return rows


def relative(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def machine_peaks() -> list[tuple[str, float, str]]:
    """Measured, where this machine has AVX512-BF16 and a compiler; else none."""
    command = build.compiler()
    if command is None or build.machine() != "x86_64":
        return []
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        source = Path(__file__).with_name("_peak.cpp")
        flags = ["-O2", "-mavx512f", "-mavx512vnni", "-mavx512bf16"]
        subprocess.run([*command, *flags, str(source), "-o", str(program)], check=True)
        done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    if done.returncode:
        return []
    int8, bf16, read = (float(value) / 1e9 for value in done.stdout.split())
    return [("peak int8", int8, "GOP/s"), ("peak bf16", bf16, "GFLOP/s"), ("reading memory", read, "GB/s")]


if __name__ == "__main__":
    main()
