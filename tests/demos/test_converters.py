from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from paredown.demos import smollm2, whisper


def ctranslate2(variables: dict[str, np.ndarray], version: int = 6) -> bytes:
    """Write what `read_ctranslate2` reads."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    out = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(variables))
    codes = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.float16): 4}
    for name, value in variables.items():
        out += text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        out += struct.pack("<BI", codes[value.dtype], value.nbytes) + value.tobytes()
    return out


def test_ctranslate2_round_trip() -> None:
    given = {
        "encoder/conv1/weight": np.arange(24, dtype=np.float16).reshape(2, 3, 4),
        "decoder/scale": np.array([0.5], dtype=np.float32),
        "flag": np.array(1, dtype=np.int8),
    }
    read = whisper.read_ctranslate2(ctranslate2(given))
    assert list(read) == list(given)
    for name, value in given.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)


@pytest.mark.parametrize("heads", [1, 3])
def test_rotary_permutation_is_that_of_llama_cpp(heads: int) -> None:
    weight = np.random.default_rng(0).normal(size=(heads * 8, 5)).astype(np.float32)
    # llama.cpp's convert script: split each head into two halves and interleave their rows
    permuted = weight.reshape(heads, 2, 4, 5).swapaxes(1, 2).reshape(weight.shape)
    np.testing.assert_array_equal(smollm2.undo_rotary_permutation(permuted, heads), weight)


def test_shorter_window_keeps_the_first_positions() -> None:
    config = WhisperConfig(
        vocab_size=64, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=8, max_target_positions=16, pad_token_id=0, bos_token_id=0, eos_token_id=1, decoder_start_token_id=2,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    before = model.model.encoder.embed_positions.weight.clone()
    whisper.adapt(model)
    assert torch.equal(model.model.encoder.embed_positions.weight, before[:500])
    assert not model.model.encoder.embed_positions.weight.requires_grad
    with torch.no_grad():
        output = model(input_features=torch.zeros(1, 8, 1000), decoder_input_ids=torch.tensor([[2]]))
    assert output.encoder_last_hidden_state.shape == (1, 500, 16)
