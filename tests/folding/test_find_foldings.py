"""Where scales fold in each family, where not and why, and that the model's function stays."""

from __future__ import annotations

import re

import pytest
import torch
import transformers as tf
from torch import nn

from paredown.folding import Folding, find_foldings, fold_, folded, relative_change, verified
from paredown.folding.verify import random_scales
from paredown.layers import find_layers
from tiny_models import CASES, _case, _decoder, _tokens

DECODER = {
    "model.layers.*.self_attn.v_proj → o_proj",
    "model.layers.*.mlp.up_proj → down_proj",
    "model.layers.*.input_layernorm → q_proj, k_proj, v_proj",
    "model.layers.*.post_attention_layernorm → gate_proj, up_proj",
}
WHISPER = {
    "model.encoder.layers.*.self_attn.v_proj → out_proj",
    "model.encoder.layers.*.self_attn_layer_norm → k_proj, v_proj, q_proj",
    "model.encoder.layers.*.final_layer_norm → fc1",
    "model.encoder.layer_norm → k_proj, v_proj, k_proj, v_proj",  # of the decoder's cross-attention, both blocks
    "model.decoder.layers.*.self_attn.v_proj → out_proj",
    "model.decoder.layers.*.encoder_attn.v_proj → out_proj",
    "model.decoder.layers.*.self_attn_layer_norm → k_proj, v_proj, q_proj",
    "model.decoder.layers.*.encoder_attn_layer_norm → q_proj",
    "model.decoder.layers.*.final_layer_norm → fc1",
}
FOUND = {
    "llama": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER,
    "mistral": DECODER,
    "gpt2": {"transformer.h.*.attn.c_attn → c_proj", "transformer.h.*.ln_1 → c_attn", "transformer.h.*.ln_2 → c_fc"},
    "vit": {
        "vit.layers.*.attention.v_proj → o_proj",
        "vit.layers.*.layernorm_before → q_proj, k_proj, v_proj",
        "vit.layers.*.layernorm_after → fc1",
    },
    "dinov2": {
        "dinov2.encoder.layer.*.attention.v_proj → o_proj",
        "dinov2.encoder.layer.*.norm1 → q_proj, k_proj, v_proj",
        "dinov2.encoder.layer.*.norm2 → fc1",
    },
    "whisper": WHISPER,
    "t5": {
        "encoder.block.*.layer.*.SelfAttention.v → o",
        "encoder.block.*.layer.*.DenseReluDense.wi → wo",  # through a ReLU
        "encoder.block.*.layer.*.layer_norm → q, k, v",
        "encoder.block.*.layer.*.layer_norm → wi",
        "encoder.final_layer_norm → k, v, k, v",
        "decoder.block.*.layer.*.SelfAttention.v → o",
        "decoder.block.*.layer.*.EncDecAttention.v → o",
        "decoder.block.*.layer.*.DenseReluDense.wi → wo",
        "decoder.block.*.layer.*.layer_norm → q, k, v",
        "decoder.block.*.layer.*.layer_norm → q",
        "decoder.block.*.layer.*.layer_norm → wi",
    },
    "wav2vec2": {"wav2vec2.encoder.layers.*.attention.v_proj → out_proj", "wav2vec2.feature_projection.layer_norm → projection"},
    "bert": {"bert.encoder.layer.*.attention.self.value → dense", "bert.encoder.layer.*.output.LayerNorm → dense"},  # the last one's pooler
    "roberta": {"roberta.encoder.layer.*.attention.self.value → dense"},
    "distilbert": {"distilbert.transformer.layer.*.attention.v_lin → out_lin"},
}
POST_NORM, GELU, TIED = "in post-norm blocks it is the residual", "lies between them, and act", "shares its tensor with"
REFUSED = {
    "bert": {POST_NORM, GELU},
    "roberta": {POST_NORM, GELU},
    "distilbert": {POST_NORM, GELU},
    "wav2vec2": {POST_NORM, GELU},
    "gpt2": {GELU, TIED},
    "vit": {GELU},
    "dinov2": {GELU},
    "whisper": {GELU, TIED},
    "qwen2": {TIED},
    "qwen3": {TIED},
    "llama": set(),
    "mistral": set(),
    "t5": set(),
}
GEMMA = _case(tf.GemmaForCausalLM, tf.GemmaConfig, _tokens, **_decoder, head_dim=16, tie_word_embeddings=True)


def ready(case):
    """A model in float64, its layers by name, and what runs it."""
    model = case.build().double().requires_grad_(False)
    inputs = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in case.inputs().items()}
    return model, {layer.name: layer for layer in find_layers(model)}, lambda: model(**inputs).logits


@pytest.mark.parametrize("family", FOUND)
def test_each_family_folds_where_its_function_stays_and_says_why_not_elsewhere(family):
    model, layers, answers = ready(CASES[family])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = find_foldings(model, list(layers.values()), answers)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert {re.sub(r"\.\d+(?=\.)", ".*", str(folding)) for folding in found.foldings} == FOUND[family]
    reasons = {refused.reason for refused in found.refused}
    assert all(any(known in reason for known in REFUSED[family]) for reason in reasons)
    assert all(any(known in reason for reason in reasons) for known in REFUSED[family])
    reference = answers()
    widths = {folding: layers[folding.readers[0]].shape[1] for folding in found.foldings}
    for folding, scale in random_scales(found.foldings, widths).items():
        fold_(model, layers, folding, scale)
    assert relative_change(reference, answers()) < 1e-12
    assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_norm_that_multiplies_by_one_plus_its_weight_is_told_apart():
    model, layers, answers = ready(GEMMA)
    found = find_foldings(model, list(layers.values()), answers)
    norms = [folding for folding in found.foldings if folding.form != "rows"]
    assert {folding.form for folding in norms} == {"norm+1"}
    assert len(norms) == 4
    reference, scale = answers(), torch.linspace(0.5, 3, 64).double()
    with folded(model, layers, {norms[0]: scale}):
        norm = model.get_submodule(norms[0].source)
        assert relative_change(reference, answers()) < 1e-6  # it computes in float32, whatever its input is
        changed = norm.weight.clone()
    assert torch.allclose((1 + norm.weight) / scale - 1, changed)


def test_values_that_several_heads_read_share_their_scale():
    model, layers, answers = ready(CASES["llama"])
    [folding, _] = [f for f in find_foldings(model, list(layers.values()), answers).foldings if f.source.endswith("v_proj")]
    assert (folding.repeats, folding.head_dim) == (2, 16)
    uneven = torch.rand(64).double() + 0.5
    assert verified(model, layers, {folding: uneven}, answers)[folding] > 1e-3  # one scale for each of the repeated inputs is none for v
    even = (torch.rand(32).double() + 0.5)[folding.index(64)]
    assert verified(model, layers, {folding: even}, answers) == {}


def test_a_wrong_guess_of_the_heads_is_found_out():
    model, layers, answers = ready(CASES["llama"])
    wrong = Folding("model.layers.0.self_attn.v_proj", "rows", ("model.layers.0.self_attn.o_proj",), repeats=2, head_dim=8)
    right = Folding("model.layers.0.mlp.up_proj", "rows", ("model.layers.0.mlp.down_proj",))
    assert set(verified(model, layers, random_scales([wrong, right], {wrong: 64, right: 96}), answers)) == {wrong}


def test_the_activation_decides_between_fc1_and_fc2():
    relu = _case(
        tf.ViTForImageClassification, tf.ViTConfig, CASES["vit"].inputs,
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8, num_labels=10, intermediate_size=128, hidden_act="relu",
    )  # fmt: skip
    model, layers, answers = ready(relu)
    found = find_foldings(model, list(layers.values()), answers)
    assert "vit.layers.0.mlp.fc1 → fc2" in map(str, found.foldings)
    assert not found.refused
    model, layers, answers = ready(CASES["vit"])
    refused = [r for r in find_foldings(model, list(layers.values()), answers).refused if r.source.endswith("fc1")]
    assert {r.reason for r in refused} == {"GELUActivation lies between them, and act(s x) = s act(x) does not hold as it does for ReLU"}


def test_a_norm_whose_weight_is_shared_is_refused():
    model, layers, answers = ready(CASES["llama"])
    first, second = (model.model.layers[i].input_layernorm for i in range(2))
    second.weight = first.weight
    refused = {r.source: r.reason for r in find_foldings(model, list(layers.values()), answers).refused}
    assert "several modules share the norm's weight" in refused["model.layers.0.input_layernorm"]
    assert "several modules share the norm's weight" in refused["model.layers.1.input_layernorm"]


class Blocks(nn.Module):
    """Norm, two layers; the second one runs where `both`."""

    def __init__(self, both: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList([nn.ModuleDict({"norm": nn.LayerNorm(8), "q": nn.Linear(8, 8), "k": nn.Linear(8, 8)})])
        self.both = both

    def forward(self, x):
        part = self.block[0]
        x = part["norm"](x)
        return part["q"](x) + (part["k"](x) if self.both else 0)


@pytest.mark.parametrize("both", [True, False])
def test_a_layer_that_the_batch_does_not_run_leaves_its_block_alone(both):
    model, x = Blocks(both).requires_grad_(False), torch.randn(2, 5, 8)
    found = find_foldings(model, find_layers(model), lambda: model(x))
    assert len(found.foldings) == both
    assert [r.reason for r in found.refused] == (
        [] if both else ["the batch never runs another layer of the block, so that its inputs are not known"]
    )
