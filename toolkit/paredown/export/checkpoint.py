"""The folder that both formats share: weights, config, processor, plan; written beside, checked, then renamed into place."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paredown import shape_record, sizes
from paredown.apply import Kept, compress_layer, parameters_of, state_of, stored_tensors
from paredown.errors import ParedownError
from paredown.export.folder import replacing
from paredown.export.plan_json import FILE, check_plan, save_plan
from paredown.export.weights_file import write_weights
from paredown.kernels.packing import pack
from paredown.methods import Compressed, Quantized
from paredown.models import LoadedModel
from paredown.specs import KEEP, LayerRef, Plan


def write_folder(
    loaded: LoadedModel,
    layers: Sequence[LayerRef],
    plan: Plan,
    folder: str | Path,
    *,
    weights: str,
    config: Callable[[dict[str, Any]], dict[str, Any]],
    check: Callable[[Path], None],
    kept: Kept | None = None,
) -> Path:
    """Write a compressed checkpoint; the folder appears whole and checked, or not at all.

    Args:
        loaded: The uncompressed model.
        layers: Its layers.
        plan: What is done to them.
        folder: Where; an empty folder or an earlier export is replaced, anything else is refused.
        weights: Name of the weights' file.
        config: From the model's own ``config.json`` to the one that is written.
        check: Reloads the folder, and raises if it does not hold what it should.
        kept: Weights that were compressed before, for schemes that need calibration.

    Returns:
        The folder.

    Raises:
        ParedownError: If the plan is for another model, the folder holds something else, the disk is full, or the place can't be
            written to.
    """
    folder = Path(folder).expanduser().absolute()
    check_plan(plan, loaded.digest, layers)
    _check_target(folder)
    tensors = file_tensors(loaded, layers, plan, kept)
    with replacing(folder) as beside:
        needed = sizes.frame_bytes() + sum(tensor.bytes + sizes.entry_bytes(tensor) for tensor in tensors)
        free = shutil.disk_usage(beside).free
        if needed > free:
            raise ParedownError(
                f"the checkpoint takes {needed:,} bytes, {folder.parent} has {free:,} free; free some space or choose another folder"
            )
        write_weights(beside / weights, tensors)
        write_config(loaded, beside, config)
        save_plan(plan, beside / FILE)
        check(beside)
    return folder


def file_tensors(
    loaded: LoadedModel, layers: Sequence[LayerRef], plan: Plan, kept: Kept | None = None
) -> dict[sizes.StoredTensor, Callable[[], Tensor]]:
    """Every tensor of the file, and a function that makes it.

    Args:
        loaded: The uncompressed model.
        layers: Its layers.
        plan: What is done to them.
        kept: Weights that were compressed before, for schemes that need calibration.

    Returns:
        Everything that is fixed, then the layers in model order. All layers are compressed here, before a byte is written.

    Raises:
        ParedownError: If a layer can't be compressed, or stores a dtype that can't hold its weight.
    """
    state = state_of(loaded.model)
    decided = {f"{name}.weight" for layer in layers for name in (layer.name, *layer.tied_to)}
    tensors: dict[sizes.StoredTensor, Callable[[], Tensor]] = {}
    for stored in stored_tensors(loaded.model, loaded.dtype):
        if stored.name not in decided:
            tensors[stored] = functools.partial(state[stored.name].to, getattr(torch, stored.dtype))
    for layer in layers:
        scheme = plan.schemes.get(layer.name, KEEP)
        weight = parameters_of(loaded.model, layer)[0].detach()
        if sizes.fit(scheme, layer)[0] == KEEP:
            tensors[sizes.layer_tensors(layer, KEEP)[0]] = functools.partial(_exactly, weight, layer)
            continue
        made = layer_state(layer, compress_layer(weight, layer, scheme, kept))
        for stored in sizes.layer_tensors(layer, scheme):
            tensors[stored] = functools.partial(made.__getitem__, stored.name)
    return tensors


def layer_state(layer: LayerRef, made: Compressed) -> dict[str, Tensor]:
    """The tensors of `paredown.sizes.layer_tensors`, by name."""
    if sizes.is_packed(layer, made.scheme):
        packed = pack(made)
        return {
            f"{layer.name}.weight_shape": torch.tensor(packed.shape),
            **{f"{layer.name}.{name}": tensor for name, tensor in packed.tensors.items()},
        }
    assert isinstance(made.numbers, Quantized)
    state = {f"{layer.name}.weight": _signed(made.numbers.codes)}
    for name in (layer.name, *layer.tied_to):
        state[f"{name}.weight_scale"] = made.numbers.scales
        if made.numbers.zero_points is not None:
            state[f"{name}.weight_zero_point"] = _signed(made.numbers.zero_points)
    return state


def _signed(codes: Tensor) -> Tensor:
    """0 .. 255 to -128 .. 127, as compressed-tensors counts codes that are not packed."""
    return (codes.to(torch.int16) - 128).to(torch.int8)


def _exactly(weight: Tensor, layer: LayerRef) -> Tensor:
    stored = weight.to(getattr(torch, layer.dtype))
    if not torch.equal(stored.to(weight.dtype), weight):
        raise ParedownError(
            f"{layer.name} is said to be stored as {layer.dtype}, which can't hold its weight exactly; find the layers with dtype={str(weight.dtype).removeprefix('torch.')!r}"
        )
    return stored


def _check_target(folder: Path) -> None:
    """Never delete what is not ours.

    Raises:
        ParedownError: If the folder exists, is not empty, and is no earlier export.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FILE).is_file():
        raise ParedownError(f"{folder} holds files that are no export of Paredown; choose another folder")
    if folder.exists() and not folder.is_dir():
        raise ParedownError(f"{folder} is a file; choose another place for the folder")


def write_config(loaded: LoadedModel, folder: Path, config: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> None:
    """Write everything but weights: config, the record of a shrunk model's shapes where it needs one, generation config, processor.

    Args:
        loaded: The model.
        folder: Where.
        config: From the model's own ``config.json`` to the one that is written.

    Raises:
        ParedownError: If the model has no config.
    """
    model: Any = loaded.model
    if getattr(model, "config", None) is None:
        raise ParedownError(f"expected a transformers model with a config, got {type(model).__name__}; load it with paredown.models.load")
    model.config.save_pretrained(folder)
    file = folder / "config.json"
    plain = json.loads(file.read_text(encoding="utf-8"))
    plain["architectures"] = [type(model).__name__]
    # what was measured computed in this type; kept tensors may be stored narrower, and are widened exactly
    plain["dtype"] = str(next(model.parameters()).dtype).removeprefix("torch.")
    file.write_text(json.dumps(config(plain), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if record := shape_record.record_of(model):
        shape_record.write(record, folder)
    if getattr(model, "generation_config", None) is not None and model.can_generate():
        model.generation_config.save_pretrained(folder)
    processor: Any = loaded.processor
    if hasattr(processor, "save_pretrained"):
        processor.save_pretrained(folder)
    else:  # parts under the names of transformers' processors, or nothing
        for part in ("feature_extractor", "image_processor", "tokenizer"):
            if (saved := getattr(processor, part, None)) is not None:
                saved.save_pretrained(folder)
