"""A demo's model in the forms that `model.py` compares: ours on packed kernels, and what torch, torchao, onnxruntime and OpenVINO make of it."""

from __future__ import annotations

import copy
import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from paredown.apply import compress_
from paredown.kernel_modules import KernelModule, run_on_kernels_
from paredown.layers import find_layers
from paredown.specs import Scheme

GROUP = 128

Inputs = Mapping[str, Tensor]


class MissingError(Exception):
    """A rival is not installed, or can't hold the model."""


@dataclass(frozen=True)
class Contestant:
    """A model ready to run; ``bytes`` are those of its tensors, or of its file. ``model`` is torch's module where it is one."""

    run: Callable[[Inputs], Tensor]
    bytes: int
    model: nn.Module | None = None


def of_torch(model: nn.Module) -> Contestant:
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())

    def run(inputs: Inputs) -> Tensor:  # sounds and pictures in the model's own dtype
        return model(
            **{
                name: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
                for name, value in inputs.items()
            }
        ).logits

    return Contestant(run, tensor_bytes(model), model)


def tensor_bytes(model: nn.Module) -> int:
    """Bytes of all tensors, shared ones once, what kernels and quantized modules hold included."""
    kernels = sum(
        {id(module.kernel.multiply): module.kernel.bytes for module in model.modules() if isinstance(module, KernelModule)}.values()
    )
    found: dict[int, int] = {}
    for value in model.state_dict().values():
        for tensor in _plain(value):
            found[tensor.data_ptr()] = tensor.nbytes
    return kernels + sum(found.values())


def _plain(value: Any) -> list[Tensor]:
    if isinstance(value, tuple):  # a packed weight of torch.ao
        return [tensor for each in value for tensor in _plain(each)]
    if hasattr(value, "__tensor_flatten__"):
        return [tensor for name in value.__tensor_flatten__()[0] for tensor in _plain(getattr(value, name))]
    if not isinstance(value, Tensor):
        return []
    return [value.int_repr()] if value.is_quantized else [value]


def ours(model: nn.Module, bits: int, precision: str, dtype: torch.dtype, *, float_lookups: bool = False) -> Contestant:
    """Weights rounded to nearest. Tables of embeddings have 8 bits, but where a decoder's head multiplies with one: then those of the rest.

    With ``float_lookups`` the head has a copy of its own, and the table that is looked up in stays as it is, as rivals have them.
    """
    packed = copy.deepcopy(model).eval()
    layers = find_layers(packed)
    if float_lookups:
        table = next((layer for layer in layers if layer.kind == "embedding" and layer.tied_to), None)
        if table is None:
            raise MissingError("its head has a weight of its own")
        head = replace(table, name=table.tied_to[0], kind="linear", tied_to=())
        module = packed.get_submodule(head.name)
        module.weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)
        layers = (*(layer for layer in layers if layer.kind != "embedding"), head)
    chosen = {layer.name: Scheme.parse(f"int{bits if layer.kind != 'embedding' or layer.tied_to else 8}g{GROUP}") for layer in layers}
    compress_(packed, layers, chosen)
    run_on_kernels_(packed, precision)  # type: ignore[arg-type]
    return of_torch(packed.to(dtype))


def in_dtype(model: nn.Module, dtype: torch.dtype) -> Contestant:
    return of_torch(copy.deepcopy(model).to(dtype).eval())


def dynamic_int8(model: nn.Module) -> Contestant:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return of_torch(torch.ao.quantization.quantize_dynamic(copy.deepcopy(model).eval(), {nn.Linear}, torch.qint8))


def torchao_int8(model: nn.Module) -> Contestant:
    _needs("torchao")
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    made = copy.deepcopy(model).to(torch.bfloat16).eval()
    quantize_(made, Int8DynamicActivationInt8WeightConfig())
    return of_torch(made)


def onnxruntime_4(model: nn.Module, example: Inputs) -> Contestant:
    _needs("onnxruntime")
    import onnxruntime

    file = exported(model, example)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    return Contestant(lambda inputs: torch.from_numpy(session.run(["logits"], arrays(inputs))[0]), file.stat().st_size)


def openvino_4(model: nn.Module, example: Inputs) -> Contestant:
    _needs("openvino")
    import openvino

    core, file = openvino.Core(), exported(model, example)
    settings = {"INFERENCE_NUM_THREADS": 1, "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(GROUP), "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(str(file)), "CPU", settings)
    request = compiled.create_infer_request()
    return Contestant(lambda inputs: torch.from_numpy(request.infer(arrays(inputs))[compiled.output("logits")]), file.stat().st_size)


def arrays(inputs: Inputs) -> dict[str, Any]:
    """Inputs by the names of the exported graph."""
    return {name: tensor.numpy() for name, tensor in flat(inputs).items()}


def flat(inputs: Inputs) -> dict[str, Tensor]:
    """A cache as the keys and values of its layers."""
    tensors: dict[str, Tensor] = {}
    for name, value in inputs.items():
        if isinstance(value, DynamicCache):
            for index, layer in enumerate(value.layers):
                tensors |= {f"key{index}": layer.keys, f"value{index}": layer.values}
        elif isinstance(value, Tensor):
            tensors[name] = value
    return tensors


class _Logits(nn.Module):
    """Tensors in, by position, logits out."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> Tensor:
        named: dict[str, Any] = dict(zip(self.names, tensors, strict=True))
        layers = sum(name.startswith("key") for name in named)
        if layers:
            pairs = [(named.pop(f"key{i}"), named.pop(f"value{i}")) for i in range(layers)]
            named["past_key_values"] = DynamicCache(pairs)
        return self.model(**named).logits


def exported(model: nn.Module, example: Inputs) -> Path:
    """The model in ONNX for inputs of these shapes, its products with weights as 4-bit MatMulNBits of accuracy level 4 (int8 inputs)."""
    _needs("onnx")
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    tensors = flat(example)
    key = (id(model), *(tuple(tensor.shape) for tensor in tensors.values()))
    if key in _EXPORTED:
        return _EXPORTED[key]
    logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.ERROR)
    file = Path(tempfile.mkdtemp()) / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(copy.deepcopy(model).eval(), list(tensors)),
            tuple(tensors.values()),
            str(file),
            input_names=list(tensors),
            output_names=["logits"],
            dynamo=False,
        )
        quantizer = MatMulNBitsQuantizer(onnx.load(file), bits=4, block_size=GROUP, is_symmetric=False, accuracy_level=4)
        quantizer.process()
        quantizer.model.save_model_to_file(str(file))
    _EXPORTED[key] = file
    return file


_EXPORTED: dict[tuple[object, ...], Path] = {}
"""By model and shapes of the inputs: both runtimes read one file."""


def _needs(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise MissingError(f"{name} is not installed")


Build = Callable[[nn.Module, Inputs], Contestant]


def _of_model(make: Callable[..., Contestant], *given: Any) -> Build:
    return lambda model, _example: make(model, *given)


OURS: dict[str, Build] = {
    "W8A8": _of_model(ours, 8, "int8", torch.float32),
    "W4A8": _of_model(ours, 4, "int8", torch.float32),
    "W4A8, rest in bfloat16": _of_model(ours, 4, "int8", torch.bfloat16),
    "W4A16, rest in bfloat16": _of_model(ours, 4, "bf16", torch.bfloat16),
    "W4A8, lookups in float32": lambda model, _example: ours(model, 4, "int8", torch.float32, float_lookups=True),
}
TORCH: dict[str, Build] = {
    "torch float32": _of_model(in_dtype, torch.float32),
    "torch bfloat16": _of_model(in_dtype, torch.bfloat16),
    "torch dynamic int8": _of_model(dynamic_int8),
    "torchao int8": _of_model(torchao_int8),
}
RUNTIMES: dict[str, Build] = {"onnxruntime 4 bits": onnxruntime_4, "OpenVINO 4 bits": openvino_4}
ALL = OURS | TORCH | RUNTIMES


def built(name: str, model: nn.Module, example: Inputs) -> Contestant | str:
    """A contestant, or why there is none."""
    try:
        with torch.inference_mode() if name in RUNTIMES else torch.no_grad():
            made = ALL[name](model, example)
            made.run(example)
    except Exception as error:  # whatever a rival says about a model that it can't take
        if name in OURS and not isinstance(error, MissingError):
            raise
        return f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
    return made
