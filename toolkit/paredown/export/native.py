"""Paredown's own checkpoint: every plan, with embeddings, shared tensors, zero points and ``Conv1D`` at every width.

Where a compressed-tensors checkpoint can hold a layer, the tensors have the same names, layouts and size; other number formats,
pruned and low-rank weights have tensors of their own (`paredown.sizes`). What differs is who reads it: `load` builds the packed
modules. The weights' file has another name, so that plain transformers stops at once instead of making up the weights that it does
not understand.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from paredown import shape_record, sizes
from paredown.apply import Kept, state_of
from paredown.errors import ParedownError
from paredown.export.checkpoint import write_folder
from paredown.export.plan_json import load_plan
from paredown.kernels.packing import Packed, pack
from paredown.methods import Compressed, Quantized
from paredown.models import LoadedModel
from paredown.packed_modules import PackedWeight, packed_module
from paredown.specs import KEEP, LayerRef, Plan, Scheme

WEIGHTS = "paredown.safetensors"
DIGEST = f"{WEIGHTS}.sha256"
"""SHA-256 of the weights' file, as ``sha256sum -c`` reads it."""


def write(loaded: LoadedModel, layers: Sequence[LayerRef], plan: Plan, folder: str | Path, kept: Kept | None = None) -> Path:
    """Write the checkpoint and the digest of its weights, load it again, and compare the tensors that are not compressed.

    Args:
        loaded: The uncompressed model.
        layers: Its layers.
        plan: What is done to them.
        folder: Where; an empty folder or an earlier export is replaced.
        kept: Weights that were compressed before, for schemes that need calibration.

    Returns:
        The folder: config, weights, their digest, processor and plan. Load it with `load`.

    Raises:
        ParedownError: If the plan is for another model, a layer can't be compressed, or the place can't be written to.
    """

    def sealed(written: Path) -> None:
        (written / DIGEST).write_text(f"{_digest(written / WEIGHTS)}  {WEIGHTS}\n", encoding="utf-8")
        _check(load(written), loaded, layers, plan)

    return write_folder(
        loaded,
        layers,
        plan,
        folder,
        weights=WEIGHTS,
        config=dict,
        check=sealed,
        kept=kept,
    )


def _check(model: nn.Module, loaded: LoadedModel, layers: Sequence[LayerRef], plan: Plan) -> None:
    """What was written is what computes: packed where the plan says so, and every other tensor as it was."""
    found, expected = model.state_dict(), state_of(loaded.model)
    decided = {layer.name for layer in layers if plan.schemes.get(layer.name, KEEP) != KEEP}
    shared = {name for layer in layers for name in layer.tied_to}
    for name, tensor in expected.items():
        module = name.rpartition(".")[0]
        if name.endswith(".weight") and module in decided | shared:
            continue
        if not torch.equal(found[name], tensor.to(found[name].dtype)):
            raise ParedownError(f"other numbers were read for {name} than were written; please report this with the plan")
    for name in decided:
        assert isinstance(model.get_submodule(name), PackedWeight), name  # our own mistake


def load(folder: str | Path) -> nn.Module:
    """Load a checkpoint of `write`: the model with packed modules, in evaluation mode.

    Args:
        folder: The exported folder.

    Returns:
        The model; its packed modules compute with the exactly dequantized weights.

    Raises:
        ParedownError: If the folder is no such checkpoint, is of a newer schema, its weights' digest is not the one that lies beside
            them (earlier versions wrote none), or its tensors are not those of the model.
    """
    folder = Path(folder).expanduser()
    plan = load_plan(folder)
    model = _empty_model(folder)
    tensors = _read(folder / WEIGHTS)
    holders = _holders(model)
    for name, scheme in plan.schemes.items():
        if scheme != KEEP:
            _place(model, name, holders, scheme, tensors)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    lost = sorted(set(missing) - _shared(model))
    if lost or unexpected:
        raise ParedownError(
            f"{folder} does not hold the tensors of a {type(model).__name__}: missing {lost[:3] or 'none'}, unexpected {unexpected[:3] or 'none'}; export it again"
        )
    return model.eval()


def _empty_model(folder: Path) -> nn.Module:
    try:
        config: Any = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ParedownError(f"expected a checkpoint of Paredown in {folder}, but its config.json can't be read: {error}") from error
    architecture = json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    kind = getattr(transformers, architecture, None)
    if kind is None:
        raise ParedownError(
            f"{folder} holds a {architecture}, which transformers {transformers.__version__} does not have; install the version that it was exported with"
        )
    model = kind._from_config(config, dtype=config.dtype or torch.float32)
    if record := shape_record.read(folder):
        shape_record.reshape_(model, record)
    return model


def _read(path: Path) -> dict[str, Tensor]:
    try:
        beside = path.with_name(DIGEST)
        if beside.exists():
            said, found = beside.read_text(encoding="utf-8", errors="replace")[:64], _digest(path)
            if said != found:
                raise ParedownError(
                    f"expected the weights in {path} to have the SHA-256 {said[:16]!r} of {DIGEST}, got {found[:16]!r}: the file is damaged; copy both again, or export it again"
                )
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (the file is no mapping)
    except (OSError, SafetensorError) as error:
        raise ParedownError(f"expected the weights of a checkpoint in {path}, but they can't be read: {error}; export it again") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _holders(model: nn.Module) -> dict[str, list[str]]:
    """Paths of the modules that hold each weight, by every one of these paths."""
    by_weight: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        if isinstance(weight := getattr(module, "weight", None), nn.Parameter):
            by_weight.setdefault(id(weight), []).append(path)
    return {path: paths for paths in by_weight.values() for path in paths}


def _place(model: nn.Module, name: str, holders: Mapping[str, list[str]], asked: Scheme, tensors: dict[str, Tensor]) -> None:
    """Replace one module, and those that share its weight, by packed ones; takes its tensors out of the dictionary."""
    if name not in holders:
        raise ParedownError(f"the plan names a layer {name}, which a {type(model).__name__} does not have")
    placed = None
    for path in sorted(holders[name], key=lambda path: path != name):  # the file has the codes under the layer's own name
        module = model.get_submodule(path)
        own = {key: tensors.pop(key) for key in [f"{path}.{part}" for part in _PARTS] if key in tensors}
        placed = placed or _packed(name, path, module, asked, own)
        model.set_submodule(path, packed_module(path, module, placed))


_NUMBERS = ("weight", "weight_packed", "weight_values")
_SCALES = ("_scale", "_zero_point", "_scale_scale", "_scale_offset", "_global_scale")
_FACTORS = ("weight_left", "weight_right", "weight_left_packed", "weight_right_packed")
_PARTS = (
    *_NUMBERS,
    *("weight_mask", "weight_offsets", "weight_shape", "input_scale", "input_zero_point"),
    *_FACTORS,
    *(f"{name}{part}" for name in ("weight", "weight_left", "weight_right") for part in _SCALES),
)


def _packed(name: str, path: str, module: nn.Module, asked: Scheme, own: Mapping[str, Tensor]) -> Packed:
    """The packed weight of what the file holds for a module.

    Raises:
        ParedownError: If tensors are missing, or not of the shapes that the scheme gives.
    """
    assert isinstance(module.weight, Tensor)
    transposed = isinstance(module, transformers.pytorch_utils.Conv1D)
    kind = "conv1d" if transposed else "embedding" if isinstance(module, nn.Embedding) else "linear"
    out, inputs = module.weight.shape[::-1] if transposed else module.weight.shape
    layer = LayerRef(name, kind, "", "", (out, inputs), "float32")
    scheme = sizes.fit(asked, layer)[0]
    found = {key.removeprefix(f"{path}."): tensor for key, tensor in own.items()}
    if scheme.is_plain and "weight" in found:
        return _of_bytes(layer, scheme, found)
    expected = {tensor.name: tensor.shape for tensor in sizes.packed_tensors(layer.shape, scheme, layer.dtype)}
    if {key: tuple(tensor.shape) for key, tensor in found.items()} != expected:
        raise _other(name, asked)
    return Packed({key: tensor for key, tensor in found.items() if key != "weight_shape"}, scheme, layer.shape)


def _of_bytes(layer: LayerRef, scheme: Scheme, found: Mapping[str, Tensor]) -> Packed:
    """Of a plain weight that is stored ``int-quantized``."""
    assert scheme.weight is not None
    expected = sizes.scale_shape(scheme.weight, *layer.shape)
    scales, zeros = found.get("weight_scale"), found.get("weight_zero_point")
    if scales is None or tuple(scales.shape) != expected or (zeros is None) != scheme.weight.symmetric:
        raise _other(layer.name, scheme)
    numbers = Quantized(_unsigned(found["weight"]), scales, None if zeros is None else _unsigned(zeros), scheme.weight)
    return pack(Compressed(scheme, layer.shape, numbers))


def _other(name: str, scheme: Scheme) -> ParedownError:
    return ParedownError(f"the file does not hold {name} as {scheme}, as its plan says; export it again")


def _unsigned(codes: Tensor) -> Tensor:
    """-128 .. 127, as compressed-tensors counts codes that are not packed, to 0 .. 255."""
    return (codes.to(torch.int16) + 128).to(torch.uint8)


def _shared(model: nn.Module) -> set[str]:
    """State that needs no tensor of its own: packed buffers, which were placed already, and parameters that are shared."""
    state = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, tensor in state.items():
        first.setdefault(id(tensor), name)
    return {name for name, tensor in state.items() if first[id(tensor)] != name or name.rpartition(".")[2] in _PARTS[1:]}
