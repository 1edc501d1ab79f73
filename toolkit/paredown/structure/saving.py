"""Write a shrunk model so that it loads: with plain transformers where its config can say the shapes, else with `paredown.models.load`.

Transformers refuses weights of another shape than the config's, but fills in removed ones with random numbers and only warns. So a
folder that plain transformers can't load right has its weights under another name, where it doesn't look.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from paredown import models, shape_record
from paredown.errors import ParedownError
from paredown.export.checkpoint import write_config
from paredown.export.folder import replacing
from paredown.models import LoadedModel
from paredown.structure.anatomy import Block, find_blocks

FILE = "paredown_shrunk.json"
"""What was removed, in words and figures; nothing is loaded from it."""

SCHEMA = 1
_HEADS = ("num_attention_heads", "num_heads")
_CHANNELS = ("intermediate_size", "n_inner", "hidden_dim", "d_ff")


def save(loaded: LoadedModel, folder: str | Path, *, report: Mapping[str, Any] | None = None) -> Path:
    """Write a shrunk model, load it again and compare; the folder appears whole and checked, or not at all.

    Args:
        loaded: What `paredown.structure.shrink` made; its weights are stored in ``loaded.dtype``.
        folder: Where; an empty folder or an earlier one of this function is replaced.
        report: What was removed; written beside.

    Returns:
        The folder: ``config.json``, processor, and either ``model.safetensors`` for ``AutoModel....from_pretrained``, or
        ``shrunk.safetensors`` and the record of its shapes for `paredown.models.load`.

    Raises:
        ParedownError: If the folder holds something else or can't be written to, or the model is not the one that is read back.
    """
    folder = Path(folder).expanduser().absolute()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / FILE).is_file()):
        raise ParedownError(f"{folder} holds files that are no shrunk model; choose another folder")
    with replacing(folder) as beside:
        _write_weights(loaded, beside)
        write_config(loaded, beside)
        words = json.dumps({"schema": SCHEMA, "model": loaded.id, **(report or {})}, indent=1)
        (beside / FILE).write_text(words + "\n", encoding="utf-8")
        _check(loaded, beside)
    return folder


def say_in_config_(model: nn.Module) -> bool:
    """Change the model's config to the shapes of its layers, where it can say them; else leave it as it is.

    Returns:
        Whether plain transformers builds the model from its config.
    """
    if shape_record.record_of(model) is None:
        return True
    config: Any = getattr(model, "config", None)
    before = dict(vars(config))
    for name, value in _sayable(config, find_blocks(model)).items():
        setattr(config, name, value)
    try:
        if shape_record.record_of(model) is None:
            return True
    except (ValueError, TypeError):  # the config refuses such numbers
        pass
    vars(config).clear()
    vars(config).update(before)
    return False


def _sayable(config: Any, blocks: tuple[Block, ...]) -> dict[str, int]:
    """What the config would have to say, were all layers of a stack alike."""
    said: dict[str, int] = {}
    known = config.to_dict()
    for block in blocks:
        side = "decoder" if "decoder" in block.path.split(".") else "encoder"
        if block.mlp and f"{side}_ffn_dim" in known:
            said[f"{side}_ffn_dim"] = block.mlp.channels
        elif block.mlp and "mlp_ratio" in known and block.mlp.channels % config.hidden_size == 0:
            said["mlp_ratio"] = block.mlp.channels // config.hidden_size
        elif block.mlp and (name := next((name for name in _CHANNELS if name in known), None)):
            said[name] = block.mlp.channels
        for attention in block.attentions:
            if (name := next((name for name in _HEADS if name in known), None)) and not attention.position_bias:
                said |= {name: attention.heads, "head_dim": attention.head_dim}
            if "num_key_value_heads" in known:
                said["num_key_value_heads"] = attention.key_heads
    return said


def _write_weights(loaded: LoadedModel, folder: Path) -> None:
    model: Any = loaded.model
    stored = getattr(torch, loaded.dtype)
    if say_in_config_(model):
        with _in_dtype(model, stored):
            model.save_pretrained(folder)
        return
    tensors = {name: tensor.to(stored) if tensor.is_floating_point() else tensor for name, tensor in models.distinct_tensors(model).items()}
    save_file(
        {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()},
        folder / shape_record.WEIGHTS,
        metadata={"format": "pt"},
    )


@contextmanager
def _in_dtype(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """The model's parameters in another type, and as they were on leaving."""
    before = [(parameter, parameter.data) for parameter in model.parameters()]
    for parameter, data in before:
        parameter.data = data.to(dtype)
    try:
        yield
    finally:
        for parameter, data in before:
            parameter.data = data


def _check(loaded: LoadedModel, folder: Path) -> None:
    """What is read back is what was written.

    Raises:
        ParedownError: If a tensor differs.
    """
    found = models.load(str(folder)).model.state_dict()
    expected = loaded.model.state_dict()
    stored = getattr(torch, loaded.dtype)
    for name, tensor in expected.items():
        rounded = tensor.to(stored).to(tensor.dtype) if tensor.is_floating_point() else tensor
        if name not in found or not torch.equal(found[name].to(tensor.dtype), rounded):
            raise ParedownError(f"other numbers were read for {name} than were written; please report this with the model")
