"""Tiny random models of every family that Paredown promises to know: seeded, built from configs, no files, no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf
from torch import Tensor

VOCABULARY = 128
SEED = 20


@dataclass(frozen=True)
class Case:
    """How to build one tiny model (eval mode, float32), and a batch that it runs on: ``case.build()(**case.inputs())``."""

    build: Callable[[], Any]
    inputs: Callable[[], dict[str, Tensor]]


def _build(architecture: Callable[[Any], Any], config: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """The model with every bias and norm moved off its default, so that a lost one shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = architecture(config(**options))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.05 * torch.randn(parameter.shape))
    return model.eval()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def _tokens(length: int = 7, **others: Tensor) -> dict[str, Tensor]:
    """Two sequences of token ids, the second one padded at its end."""
    ids = torch.randint(3, VOCABULARY, (2, length), generator=_generator())
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    return {"input_ids": ids, "attention_mask": mask, **others}


def _image() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 3, 32, 32, generator=_generator())}


def _spectrogram() -> dict[str, Tensor]:
    # whisper's two convolutions halve 64 frames to max_source_positions
    return {"input_features": torch.randn(2, 16, 64, generator=_generator()), "decoder_input_ids": _tokens(5)["input_ids"]}


def _audio() -> dict[str, Tensor]:
    return {"input_values": torch.randn(2, 400, generator=_generator())}


def _translation() -> dict[str, Tensor]:
    return _tokens(7, decoder_input_ids=_tokens(5)["input_ids"])


def _case(architecture: Any, config: Any, inputs: Callable[[], dict[str, Tensor]], **options: Any) -> Case:
    return Case(lambda: _build(architecture, config, options), inputs)


_encoder: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 66,
    "num_labels": 2,
}
_decoder: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,  # groups of 64 don't divide it
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_vision: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 10,
}

CASES: dict[str, Case] = {
    "bert": _case(tf.BertForSequenceClassification, tf.BertConfig, _tokens, **_encoder),
    "roberta": _case(tf.RobertaForSequenceClassification, tf.RobertaConfig, _tokens, **_encoder),
    "distilbert": _case(
        tf.DistilBertForSequenceClassification,
        tf.DistilBertConfig,
        _tokens,
        vocab_size=VOCABULARY,
        dim=64,
        n_layers=2,
        n_heads=4,
        hidden_dim=128,
        max_position_embeddings=64,
        num_labels=2,
    ),
    "gpt2": _case(
        tf.GPT2LMHeadModel,
        tf.GPT2Config,
        _tokens,
        vocab_size=VOCABULARY,
        n_embd=64,
        n_layer=2,
        n_head=4,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "llama": _case(tf.LlamaForCausalLM, tf.LlamaConfig, _tokens, **_decoder, tie_word_embeddings=False),
    "qwen2": _case(tf.Qwen2ForCausalLM, tf.Qwen2Config, _tokens, **_decoder, tie_word_embeddings=True),
    "qwen3": _case(tf.Qwen3ForCausalLM, tf.Qwen3Config, _tokens, **_decoder, head_dim=16, tie_word_embeddings=True),
    "mistral": _case(tf.MistralForCausalLM, tf.MistralConfig, _tokens, **_decoder, sliding_window=None, tie_word_embeddings=False),
    "vit": _case(tf.ViTForImageClassification, tf.ViTConfig, _image, **_vision, intermediate_size=128),
    "dinov2": _case(tf.Dinov2ForImageClassification, tf.Dinov2Config, _image, **_vision, mlp_ratio=2),
    "whisper": _case(
        tf.WhisperForConditionalGeneration,
        tf.WhisperConfig,
        _spectrogram,
        vocab_size=VOCABULARY,
        num_mel_bins=16,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=32,
        max_target_positions=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    ),
    "wav2vec2": _case(
        tf.Wav2Vec2ForCTC,
        tf.Wav2Vec2Config,
        _audio,
        vocab_size=32,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(32, 32),
        conv_stride=(5, 4),
        conv_kernel=(10, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        pad_token_id=0,
    ),
    "t5": _case(
        tf.T5ForConditionalGeneration,
        tf.T5Config,
        _translation,
        vocab_size=VOCABULARY,
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
    ),
}
"""Name of the family to its case; hidden size 64, two blocks in each stack."""
