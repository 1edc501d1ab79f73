"""Layers: what is found in each family, what is one tensor, what is fused, what stays as it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers as tf
from torch import nn
from transformers.pytorch_utils import Conv1D

from paredown.errors import ParedownError
from paredown.layers import default_exclusions, find_layers, weight_of
from paredown.specs import LayerRef, fused_groups, to_json
from tiny_models import CASES

ATTENTION = {"q": 2, "k": 2, "v": 2, "o": 2}
ENCODER = ATTENTION | {"fc1": 2, "fc2": 2}
LLAMA = ATTENTION | {"gate": 2, "up": 2, "down": 2, "embedding": 1}
TWO_STACKS = {"q": 4, "k": 4, "v": 4, "o": 4, "xq": 2, "xk": 2, "xv": 2, "xo": 2, "fc1": 4, "fc2": 4, "embedding": 1}


@dataclass(frozen=True)
class Expected:
    roles: dict[str, int]
    blocks: tuple[str, ...]
    fused: dict[int, int]  # members of a group to number of such groups
    tied: dict[str, tuple[str, ...]]
    heads: tuple[str, ...]


def blocks(*stacks: str) -> tuple[str, ...]:
    return tuple(f"{stack}.{index}" for stack in stacks for index in range(2))


EXPECTED = {
    "bert": Expected(ENCODER | {"embedding": 1, "position": 1, "pooler": 1}, blocks("bert.encoder.layer"), {3: 2}, {}, ("classifier",)),
    "roberta": Expected(
        ENCODER | {"embedding": 1, "position": 1}, blocks("roberta.encoder.layer"), {3: 2}, {}, ("classifier.dense", "classifier.out_proj")
    ),
    "distilbert": Expected(
        ENCODER | {"embedding": 1, "position": 1}, blocks("distilbert.transformer.layer"), {3: 2}, {}, ("pre_classifier", "classifier")
    ),
    "gpt2": Expected(
        {"qkv": 2, "o": 2, "fc1": 2, "fc2": 2, "embedding": 1, "position": 1},
        blocks("transformer.h"),
        {},
        {"transformer.wte": ("lm_head",)},
        (),
    ),
    "llama": Expected(LLAMA, blocks("model.layers"), {3: 2, 2: 2}, {}, ("lm_head",)),
    "qwen2": Expected(LLAMA, blocks("model.layers"), {3: 2, 2: 2}, {"model.embed_tokens": ("lm_head",)}, ()),
    "qwen3": Expected(LLAMA, blocks("model.layers"), {3: 2, 2: 2}, {"model.embed_tokens": ("lm_head",)}, ()),
    "mistral": Expected(LLAMA, blocks("model.layers"), {3: 2, 2: 2}, {}, ("lm_head",)),
    "vit": Expected(ENCODER, blocks("vit.layers"), {3: 2}, {}, ("classifier",)),
    "dinov2": Expected(ENCODER, blocks("dinov2.encoder.layer"), {3: 2}, {}, ("classifier",)),
    "whisper": Expected(
        TWO_STACKS,
        blocks("model.encoder.layers", "model.decoder.layers"),
        {3: 4, 2: 2},
        {"model.decoder.embed_tokens": ("proj_out",)},
        (),
    ),
    "wav2vec2": Expected(ENCODER | {"other": 1}, blocks("wav2vec2.encoder.layers"), {3: 2}, {}, ("lm_head",)),
    "t5": Expected(
        TWO_STACKS,
        blocks("encoder.block", "decoder.block"),
        {3: 4, 2: 2},
        {"shared": ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head")},
        (),
    ),
}


@pytest.fixture(params=CASES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_family_has_an_expectation() -> None:
    assert EXPECTED.keys() == CASES.keys()


def test_finds_what_each_family_has(family: str) -> None:
    model, expected = CASES[family].build(), EXPECTED[family]
    layers = find_layers(model, dtype="bfloat16")
    assert Counter(layer.role for layer in layers) == expected.roles
    assert tuple(dict.fromkeys(layer.block for layer in layers if layer.block)) == expected.blocks
    assert {layer.name: layer.tied_to for layer in layers if layer.tied_to} == expected.tied
    assert Counter(len(group) for group in fused_groups(layers) if len(group) > 1) == expected.fused
    assert default_exclusions(model) == expected.heads
    assert {layer.dtype for layer in layers} == {"bfloat16"}
    assert len(to_json(layers)) > 0


def test_layers_are_in_model_order_and_inside_their_block(family: str) -> None:
    model = CASES[family].build()
    layers = find_layers(model)
    order = [name for name, _ in model.named_modules(remove_duplicate=False)]
    assert [layer.name for layer in layers] == sorted((layer.name for layer in layers), key=order.index)
    assert all(layer.name.startswith(layer.block + ".") for layer in layers if layer.block)


def test_weight_of_is_the_matrix_that_the_forward_pass_uses(family: str) -> None:
    """Each layer's output is recomputed from [out, in]; a wrong transpose or a wrong tensor shows."""
    case = CASES[family]
    model = case.build()
    layers = find_layers(model)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def keep(name: str) -> Any:
        return lambda _, inputs, output: seen.update({name: (inputs[0], output)})

    paths = {path: layer for layer in layers for path in (layer.name, *layer.tied_to)}
    for path in paths:
        model.get_submodule(path).register_forward_hook(keep(path))
    with torch.no_grad():
        model(**case.inputs())
    assert {paths[path].name for path in seen} == {layer.name for layer in layers}
    for path, (inputs, output) in seen.items():
        weight = weight_of(model, paths[path])
        assert tuple(weight.shape) == paths[path].shape
        if isinstance(model.get_submodule(path), nn.Embedding):
            expected = weight[inputs]
        else:
            bias = model.get_submodule(path).bias
            expected = inputs @ weight.T + (0 if bias is None else bias)
        torch.testing.assert_close(output, expected)


def test_fused_layers_share_their_input(family: str) -> None:
    case = CASES[family]
    model = case.build()
    layers = find_layers(model)
    seen: dict[str, torch.Tensor] = {}
    for layer in layers:
        model.get_submodule(layer.name).register_forward_hook(lambda _, inputs, output, name=layer.name: seen.update({name: inputs[0]}))
    with torch.no_grad():
        model(**case.inputs())
    for group in fused_groups(layers):
        for name in group[1:]:
            assert torch.equal(seen[name], seen[group[0]]), (group[0], name)


def test_no_tensor_is_found_twice(family: str) -> None:
    model = CASES[family].build()
    layers = find_layers(model)
    pointers = [weight_of(model, layer).data_ptr() for layer in layers]
    assert len(set(pointers)) == len(pointers)
    for layer in layers:
        for other in layer.tied_to:
            assert model.get_submodule(other).weight.data_ptr() == weight_of(model, layer).data_ptr()


def test_writing_to_the_view_writes_to_the_model_and_to_tied_layers() -> None:
    model = CASES["gpt2"].build()
    layers = {layer.name: layer for layer in find_layers(model)}
    weight_of(model, layers["transformer.h.0.mlp.c_fc"]).fill_(3.0)
    assert bool((model.transformer.h[0].mlp.c_fc.weight == 3.0).all())
    weight_of(model, layers["transformer.wte"]).fill_(5.0)
    assert bool((model.lm_head.weight == 5.0).all())


def test_tied_weights_are_found_by_their_memory_without_being_one_parameter() -> None:
    model = CASES["llama"].build()
    model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.detach())  # another object, the same numbers in memory
    (embedding,) = (layer for layer in find_layers(model) if layer.role == "embedding")
    assert embedding.tied_to == ("lm_head",)
    model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.detach().clone())
    (embedding,) = (layer for layer in find_layers(model) if layer.role == "embedding")
    assert embedding.tied_to == ()
    assert default_exclusions(model) == ("lm_head",)


def test_works_without_the_weights_in_memory() -> None:
    """On the meta device no tensor has an address; parameters still tell themselves apart."""
    config = tf.Qwen2Config(
        vocab_size=128,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=96,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = tf.Qwen2ForCausalLM(config)
    assert find_layers(model) == find_layers(CASES["qwen2"].build())


def test_half_precision_and_frozen_weights_change_nothing() -> None:
    model = CASES["whisper"].build()
    before = find_layers(model)
    assert find_layers(model.half().requires_grad_(requires_grad=False)) == before


def test_gated_t5_has_gate_up_and_down() -> None:
    config = tf.T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, feed_forward_proj="gated-gelu")
    layers = find_layers(tf.T5EncoderModel(config))
    roles = {layer.role: layer for layer in layers}
    assert Counter(layer.role for layer in layers) == {"embedding": 1, "q": 1, "k": 1, "v": 1, "o": 1, "gate": 1, "up": 1, "down": 1}
    assert roles["gate"].fused_with == (roles["up"].name,)
    assert roles["down"].fused_with == ()


def test_cross_attention_inside_bert_blocks_is_told_apart() -> None:
    config = tf.BertConfig(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        is_decoder=True,
        add_cross_attention=True,
    )
    layers = find_layers(tf.BertLMHeadModel(config))
    assert {layer.role for layer in layers} >= {"q", "k", "v", "o", "xq", "xk", "xv", "xo"}
    fused = {layer.role: len(layer.fused_with) for layer in layers if layer.block}
    assert fused == {"q": 2, "k": 2, "v": 2, "o": 0, "xq": 0, "xk": 1, "xv": 1, "xo": 0, "fc1": 0, "fc2": 0}


@pytest.mark.parametrize(
    ("family", "left"),
    [
        ("bert", "bert.embeddings.token_type_embeddings"),  # two rows
        ("vit", "vit.embeddings.patch_embeddings.projection"),  # a convolution
        ("whisper", "model.encoder.embed_positions"),  # sinusoids
        ("whisper", "model.decoder.embed_positions"),  # a forward of its own
        ("whisper", "model.encoder.conv1"),
        ("wav2vec2", "wav2vec2.encoder.pos_conv_embed.conv"),  # weight-normed
        ("t5", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"),  # 32 rows
    ],
)
def test_leaves_alone_what_can_not_or_should_not_be_compressed(family: str, left: str) -> None:
    model = CASES[family].build()
    model.get_submodule(left)  # it is there
    assert left not in {name for layer in find_layers(model) for name in (layer.name, *layer.tied_to)}


def test_sinusoids_are_known_by_their_values() -> None:
    model = CASES["whisper"].build()
    model.model.encoder.embed_positions = nn.Embedding(64, 64)
    assert "model.encoder.embed_positions" in {layer.name for layer in find_layers(model) if layer.role == "position"}


def test_an_embedding_needs_64_rows() -> None:
    layers = find_layers(nn.ModuleDict({"small": nn.Embedding(63, 8), "large": nn.Embedding(64, 8)}))
    assert [layer.name for layer in layers] == ["large"]


class Scaled(nn.Embedding):
    """Computes something else than its class, as Gemma's embedding does."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) * 8


def test_a_tensor_shared_with_a_module_that_can_not_be_replaced_is_left_alone() -> None:
    model = nn.ModuleDict({"embedding": Scaled(128, 32), "other": nn.Linear(32, 32), "out": nn.Linear(32, 128, bias=False)})
    assert [layer.name for layer in find_layers(model)] == ["other", "out"]
    model["out"].weight = model["embedding"].weight
    assert [layer.name for layer in find_layers(model)] == ["other"]


class SharedAsParameter(nn.Module):
    """Reads the weight of its layer under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.table = self.second.weight


def test_a_tensor_that_is_also_a_bare_parameter_is_left_alone() -> None:
    assert [layer.name for layer in find_layers(SharedAsParameter())] == ["first"]


def test_a_transposed_tie_is_left_alone() -> None:
    model = nn.ModuleDict({"a": Conv1D(8, 8), "b": nn.Linear(8, 8), "c": nn.Linear(8, 8)})
    model["b"].weight = model["a"].weight
    assert [layer.name for layer in find_layers(model)] == ["c"]


def test_multihead_attention_reads_its_weights_itself_and_is_left_alone() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2), "after": nn.Linear(8, 8)})
    assert [layer.name for layer in find_layers(model)] == ["after"]


def test_names_are_kept_raw() -> None:
    model = nn.ModuleDict({"<b>&amp;": nn.Linear(4, 4)})
    assert [layer.name for layer in find_layers(model)] == ["<b>&amp;"]


def test_exclude_takes_layers_and_whole_modules_and_ungroups_the_rest() -> None:
    model = CASES["bert"].build()
    every = find_layers(model)
    query = "bert.encoder.layer.0.attention.self.query"
    layers = find_layers(model, exclude=[query, "bert.encoder.layer.1"])
    assert {layer.name for layer in every} - {layer.name for layer in layers} == {query} | {
        layer.name for layer in every if layer.block == "bert.encoder.layer.1"
    }
    (key,) = (layer for layer in layers if layer.role == "k")
    assert key.fused_with == (query.replace("query", "value"),)


def test_exclude_of_a_tied_name_leaves_out_the_tensor() -> None:
    model = CASES["gpt2"].build()
    assert "transformer.wte" not in {layer.name for layer in find_layers(model, exclude=["lm_head"])}


def test_exclude_accepts_what_is_left_out_anyway() -> None:
    model = CASES["bert"].build()
    assert find_layers(model, exclude=["classifier", "bert.embeddings.LayerNorm"]) == find_layers(model)


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        (["bert.encoder.layer.0.attention.self.querry"], r"no such module; did you mean bert\.encoder\.layer\.0\.attention\.self\.query"),
        (["pooler"], r"no such module; did you mean bert\.pooler"),
        (["\N{SNOWMAN}"], r"no such module; list its layers with find_layers"),
        ([""], "names '', but the model has no such module"),
        (["bert"], "leave none of 16; shorten exclude"),
        ("classifier", r"list of module paths, got the text 'classifier'; write \['classifier'\]"),
    ],
)
def test_exclude_explains_what_it_expects(exclude: Any, message: str) -> None:
    with pytest.raises(ParedownError, match=message):
        find_layers(CASES["bert"].build(), exclude=exclude)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ParedownError, match=r"got Sequential without any that can be compressed; load a transformers model"):
        find_layers(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))


def test_weight_of_explains_a_layer_of_another_model() -> None:
    layer = LayerRef("bert.pooler.dense", "linear", "pooler", "", (64, 64), "float32")
    with pytest.raises(ParedownError, match=r"expected a layer bert\.pooler\.dense with a weight, but the model has none"):
        weight_of(CASES["gpt2"].build(), layer)
    with pytest.raises(ParedownError, match=r"shape \[64, 32\], got \[64, 64\]; is this the model"):
        weight_of(CASES["bert"].build(), LayerRef("bert.pooler.dense", "linear", "pooler", "", (64, 32), "float32"))


def test_weight_of_explains_a_layer_that_is_compressed_already() -> None:
    model = nn.ModuleDict({"layer": nn.Linear(4, 4)})
    (layer,) = find_layers(model)
    model["layer"].weight = None
    with pytest.raises(ParedownError, match="weight of layer to be a tensor, got NoneType; was the model compressed already"):
        weight_of(model, layer)
