"""How a shrunk model differs from what plain transformers builds from its ``config.json``, as a small versioned JSON file.

The record is found by comparing the model with an empty one of its class and config, module by module; where they agree there is
none, and plain transformers loads the model. It holds shapes and positions alone, and names nothing that could run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from paredown.errors import ParedownError
from paredown.shrunk_modules import Empty, Gathered, NoAttention, Nothing, Scattered
from paredown.specs.serialisation import from_json, to_json

FILE = "paredown_shapes.json"
WEIGHTS = "shrunk.safetensors"
"""Another name than transformers', so that it stops at once: it would fill removed tensors with random numbers and only warn."""

SCHEMA = 1
ATTRIBUTES = ("layer_idx", "num_heads", "num_attention_heads", "n_heads", "all_head_size", "inner_dim", "split_size", "scaling")
"""Numbers of an attention module that its forward pass reads and that a removal changes."""

Kind = Literal["dense", "scattered", "gathered", "empty", "nothing", "no_attention"]


@dataclass(frozen=True, slots=True)
class ModuleShape:
    """One module that differs.

    Attributes:
        kind: What stands there: a projection of another shape, or one of `paredown.shrunk_modules`.
        out: Outputs of the projection.
        inputs: Its inputs.
        bias: Whether it has a bias.
        index: Positions of what is left, ascending; empty where all is.
        width: Outputs or inputs that it stands for.
        outputs: Of a removed attention.
    """

    kind: Kind
    out: int = 0
    inputs: int = 0
    bias: bool = False
    index: tuple[int, ...] = ()
    width: int = 0
    outputs: int = 0


@dataclass(frozen=True, slots=True)
class ShapeRecord:
    """What to change in the model that transformers builds.

    Attributes:
        architecture: Its class.
        modules: Module path to what stands there.
        attributes: Path of an attention to the numbers that differ.
        schema: Version of this file.
    """

    architecture: str
    modules: Mapping[str, ModuleShape] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, float | int]] = field(default_factory=dict)
    schema: int = SCHEMA


def record_of(model: nn.Module) -> ShapeRecord | None:
    """How the model differs from what transformers builds from its config; None where it doesn't."""
    if not isinstance(model, PreTrainedModel):
        return None
    config: Any = model.config
    with torch.device("meta"):  # from the config as it comes back from its file
        plain = dict(type(model)(type(config).from_dict(config.to_dict())).named_modules())
    modules: dict[str, ModuleShape] = {}
    attributes: dict[str, dict[str, float | int]] = {}
    for path, module in model.named_modules():
        if path.rpartition(".")[0] in modules and path.endswith(".kept"):
            continue
        shape = _shape(module)
        if shape is not None and (shape.kind != "dense" or shape != _shape(plain.get(path))):
            modules[path] = shape
        numbers = _numbers(module)
        if path in plain and (changed := {name: value for name, value in numbers.items() if _numbers(plain[path]).get(name) != value}):
            attributes[path] = changed
    return ShapeRecord(type(model).__name__, modules, attributes) if modules or attributes else None


def reshape_(model: nn.Module, record: ShapeRecord) -> None:
    """Change a model that transformers has built to the record's shapes; its weights there are lost.

    Raises:
        ParedownError: If the record is of another class or schema, or names what the model does not have.
    """
    if record.schema != SCHEMA:
        raise ParedownError(f"{FILE} has schema {record.schema}, this version of paredown reads {SCHEMA}; upgrade paredown")
    if record.architecture != type(model).__name__:
        raise ParedownError(
            f"{FILE} is of a {record.architecture}, config.json of a {type(model).__name__}; take both from the same folder"
        )
    known = dict(model.named_modules())
    for path, shape in record.modules.items():
        if not path or path not in known:
            raise ParedownError(f"{FILE} names {path!r}, which a {record.architecture} of this config.json does not have")
        try:
            model.set_submodule(path, _built(known[path], shape))
        except ValueError as error:
            raise ParedownError(f"{FILE} gives {path} the shape of a {shape.kind} that can't be: {error}") from error
    for path, numbers in record.attributes.items():
        for name, value in numbers.items():
            if path not in known or name not in ATTRIBUTES or not hasattr(known[path], name):
                raise ParedownError(f"{FILE} changes {name} of {path!r}, which a {record.architecture} does not have")
            setattr(known[path], name, value)


def write(record: ShapeRecord, folder: Path) -> None:
    """Write the file into a folder."""
    (folder / FILE).write_text(to_json(record, indent=1) + "\n", encoding="utf-8")


def read(folder: str | Path) -> ShapeRecord | None:
    """The record in a folder; None where there is none.

    Raises:
        ParedownError: If the file is no record.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        return from_json(ShapeRecord, path.read_bytes())
    except ParedownError as error:
        raise ParedownError(f"{path} can't be read: {error}; shrink the model again") from error


def _numbers(module: nn.Module) -> dict[str, float | int]:
    found = {name: getattr(module, name, None) for name in ATTRIBUTES}
    return {name: value for name, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def _shape(module: nn.Module | None) -> ModuleShape | None:
    match module:
        case Scattered() | Gathered():
            kept = _shape(module.kept)
            assert kept is not None
            kind = "scattered" if isinstance(module, Scattered) else "gathered"
            index = tuple(module.get_buffer("index").tolist())
            return ModuleShape(kind, kept.out, kept.inputs, kept.bias, index, module.width)
        case Empty():
            return ModuleShape("empty")
        case Nothing():
            return ModuleShape("nothing", width=module.width)
        case NoAttention():
            return ModuleShape("no_attention", outputs=module.outputs)
        case nn.Linear() | Conv1D() if isinstance(module.weight, Tensor):
            out, inputs = module.weight.shape[::-1] if isinstance(module, Conv1D) else module.weight.shape
            return ModuleShape("dense", out, inputs, module.bias is not None)
    return None


def _built(module: nn.Module, shape: ModuleShape) -> nn.Module:
    """What the record asks for, in place of a module.

    Raises:
        ValueError: If it can't be.
    """
    match shape.kind:
        case "empty":
            return Empty()
        case "nothing":
            return Nothing(_positive(shape.width))
        case "no_attention":
            if shape.outputs not in (2, 3):
                raise ValueError(f"an attention returns 2 or 3 values, not {shape.outputs}")
            return NoAttention(shape.outputs)
    if not isinstance(module, nn.Linear | Conv1D):
        raise ValueError(f"a {type(module).__name__} is no projection")
    dense = projection(module, _positive(shape.out), _positive(shape.inputs), bias=shape.bias)
    if shape.kind == "dense":
        return dense
    index = torch.tensor(shape.index, dtype=torch.long)
    ends = shape.out if shape.kind == "scattered" else shape.inputs
    if len(index) != ends or bool((index.diff() <= 0).any()) or int(index[0]) < 0 or int(index[-1]) >= shape.width:
        raise ValueError(f"expected {ends} rising positions below {shape.width}")
    return (Scattered if shape.kind == "scattered" else Gathered)(dense, index, shape.width)


def _positive(number: int) -> int:
    if not 0 < number < 2**31:
        raise ValueError(f"{number} is no size")
    return number


def projection(like: nn.Module, out: int, inputs: int, *, bias: bool) -> nn.Linear | Conv1D:
    """An empty projection of the same class and type.

    Args:
        like: A ``Linear`` or a ``Conv1D``, which always has a bias.
        out: Outputs.
        inputs: Inputs.
        bias: Whether it has a bias.
    """
    weight: Any = like.weight
    made = Conv1D(out, inputs) if isinstance(like, Conv1D) else nn.Linear(inputs, out, bias=bias)
    return made.to(weight.device, weight.dtype).requires_grad_(weight.requires_grad).train(like.training)
