"""Ask the installed transformers, without weights, which layers of a compressed-tensors checkpoint it could not load."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.initialization import guard_torch_init_functions
from transformers.quantizers.auto import AutoHfQuantizer

from paredown.export.refusals import Refusal
from paredown.shape_record import record_of


def probe(model: nn.Module, description: Mapping[str, Any]) -> list[Refusal]:
    """Go through what ``from_pretrained`` does before and after it reads the weights, on a model without memory.

    Two steps of it fail for some model classes: the renaming of checkpoint tensors, which can't be combined with compressed ones
    for classes such as DINOv2, and the initialisation of what was not in the file, which in classes such as T5 and wav2vec 2.0 asks
    every layer for a ``weight`` that packed ones do not have.

    Args:
        model: The uncompressed model.
        description: The ``quantization_config`` that is to be written.

    Returns:
        What could not be loaded, by name of the layer, or of the model's class where it fails as a whole.
    """
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        return [Refusal(name, "it is no transformers model, so that from_pretrained can't build it")]
    if record_of(model) is not None:
        reason = "its layers were shrunk to shapes that config.json can't say, so that transformers can't build it; the export format paredown can"
        return [Refusal(name, reason)]
    compressed = {target for group in description["config_groups"].values() for target in group["targets"]}
    config = copy.deepcopy(model.config)
    config.quantization_config = copy.deepcopy(dict(description))
    with contextlib.redirect_stderr(io.StringIO()), torch.device("meta"), torch.no_grad():  # it draws progress bars
        skeleton: Any = type(model)(copy.deepcopy(model.config))
        try:
            quantizer: Any = AutoHfQuantizer.from_config(config.quantization_config, pre_quantized=True)
            quantizer.validate_environment()
            quantizer.preprocess_model(model=skeleton)
            get_model_conversion_mapping(skeleton, hf_quantizer=quantizer)
        except Exception as error:
            return [Refusal(name, f"this version of transformers can't load it compressed at all ({str(error)[:200]})")]
        return _without_weight(skeleton, compressed)


def _without_weight(skeleton: PreTrainedModel, compressed: set[str]) -> list[Refusal]:
    refused: dict[str, Refusal] = {}
    owner: dict[str, PreTrainedModel] = {}
    for tensor in (*skeleton.parameters(), *skeleton.buffers()):
        tensor._is_hf_initialized = True  # pyright: ignore[reportAttributeAccessIssue]  (as after a file was read)
    for path, module in skeleton.named_modules():
        parent = owner.get(path.rpartition(".")[0], skeleton)
        owner[path] = module if isinstance(module, PreTrainedModel) else parent
        try:
            with guard_torch_init_functions():
                owner[path]._init_weights(module)
        except AttributeError as error:
            for name in sorted(compressed):
                if name == path or name.rpartition(".")[0] == path:
                    reason = f"transformers' initialisation of {type(owner[path]).__name__} fails on packed layers ({error}); use int8 with zero points, which is not packed, or keep the layer"
                    refused.setdefault(name, Refusal(name, reason))
    return list(refused.values())
