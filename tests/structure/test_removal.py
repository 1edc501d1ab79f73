"""Each removal against the whole model with the piece at zero, in every family."""

from __future__ import annotations

import copy
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from paredown.errors import ParedownError
from paredown.layers import find_layers
from paredown.methods import attention_rank
from paredown.structure import (
    drop_blocks_,
    factor_value_output_,
    find_blocks,
    keep_channels_,
    keep_heads_,
    keep_query_key_dimensions_,
    remove_attention_,
    remove_mlp_,
    renumber_,
)
from structure import masked
from tiny_models import CASES

FAMILIES = sorted(CASES)
GENERATES = ("gpt2", "llama", "qwen2", "qwen3", "mistral", "whisper", "t5")


def built(family):
    """A tiny model in float64 with larger weights than a fresh one: there every piece matters."""
    model = CASES[family].build().double()
    blocks = find_blocks(model)
    with torch.no_grad():
        for block in blocks:
            for parameter in model.get_submodule(block.path).parameters():
                parameter.mul_(6 if parameter.dim() == 2 and family != "t5" else 1)
    return model, given(family), blocks


def given(family):
    return {name: value.double() if value.is_floating_point() else value for name, value in CASES[family].inputs().items()}


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def alike(small, whole, family, mask):
    """The small model's outputs are those of the whole one under the mask, and it has fewer parameters."""
    inputs = given(family)
    with mask:
        wanted = masked.outputs(whole, inputs)
    torch.testing.assert_close(masked.outputs(small, inputs), wanted, rtol=0, atol=1e-5)
    assert (wanted - masked.outputs(whole, inputs)).abs().max() > 1e-3  # the piece was not idle
    assert parameters(small) < parameters(whole)


def several(*contexts):
    stack = ExitStack()
    for context in contexts:
        stack.enter_context(context)
    return stack


@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_channels_are_the_masked_mlp(family):
    whole, _, blocks = built(family)
    small = copy.deepcopy(whole)
    masks = []
    for number, block in enumerate(blocks):
        kept = torch.arange(number, block.mlp.channels, 3)
        keep_channels_(small, block.mlp, kept)
        masks.append(masked.zero_inputs(whole, block.mlp.output, kept))
    alike(small, whole, family, several(*masks))
    assert [block.mlp.channels for block in find_blocks(small)] == [
        len(range(number, block.mlp.channels, 3)) for number, block in enumerate(blocks)
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_heads_are_the_masked_attention(family):
    whole, _, blocks = built(family)
    small = copy.deepcopy(whole)
    masks = []
    for block in blocks:
        for attention in block.attentions:
            kept = torch.tensor([1]) if attention.key_heads == 2 else torch.tensor([0, 2, 3][: 2 + block.index % 2])
            unit = attention.heads // attention.key_heads * attention.head_dim
            keep_heads_(small, attention, kept)
            masks.append(masked.zero_inputs(whole, attention.o, masked.positions(kept, unit)))
    alike(small, whole, family, several(*masks))


def choices(attention, seed=3):
    """Dimensions of its own for every key-value head; pairs where they are rotated."""
    scores = torch.rand(attention.key_heads, attention.head_dim // (1 + attention.rotary), generator=torch.Generator().manual_seed(seed))
    return attention_rank.keep_dimensions(scores, 6, rotary=attention.rotary)


@pytest.mark.parametrize("family", FAMILIES)
def test_fewer_query_key_dimensions_are_the_masked_attention(family):
    whole, _, blocks = built(family)
    small = copy.deepcopy(whole)
    masks = []
    for block in blocks:
        for attention in block.attentions:
            if family == "qwen3":
                with pytest.raises(ParedownError, match="can't lose query-key dimensions: queries and keys are normalised"):
                    keep_query_key_dimensions_(small, attention, choices(attention))
                return
            keep_query_key_dimensions_(small, attention, choices(attention))
            masks.append(masked.few_dimensions(whole, attention, choices(attention)))
    alike(small, whole, family, several(*masks))


@pytest.mark.parametrize("family", FAMILIES)
def test_values_of_lower_rank_are_the_factored_product(family):
    whole, _, blocks = built(family)
    small, rank = copy.deepcopy(whole), 5
    for block in blocks:
        for attention in block.attentions:
            weight, bias, out = _values(whole, attention)
            factors = attention_rank.value_output(
                weight, out, torch.eye(weight.shape[1], dtype=torch.float64), attention.key_heads, rank, value_bias=bias
            )
            factor_value_output_(small, attention, factors)
            _write_values(whole, attention, factors, rank)
    original, inputs, _ = built(family)
    torch.testing.assert_close(masked.outputs(small, inputs), masked.outputs(whole, inputs), rtol=0, atol=1e-5)
    assert (masked.outputs(small, inputs) - masked.outputs(original, inputs)).abs().max() > 1e-3
    assert parameters(small) < parameters(original)


def _matrix(module):
    return module.weight.T if hasattr(module, "nf") else module.weight


def _values(model, attention):
    v, o = model.get_submodule(attention.v), model.get_submodule(attention.o)
    rows = slice(-attention.key_heads * attention.head_dim, None)
    return _matrix(v).detach()[rows], None if v.bias is None else v.bias.detach()[rows], _matrix(o).detach()


def _write_values(model, attention, factors, rank):
    """The same product, in matrices of the full size."""
    v, o = model.get_submodule(attention.v), model.get_submodule(attention.o)
    rows = slice(-attention.key_heads * attention.head_dim, None)
    with torch.no_grad():
        weight, out = _matrix(v)[rows], _matrix(o)
        weight.zero_().unflatten(0, (attention.key_heads, -1))[:, :rank] = factors.value.unflatten(0, (attention.key_heads, rank))
        out.zero_().unflatten(1, (attention.heads, -1))[..., :rank] = factors.output.unflatten(1, (attention.heads, rank))
        if v.bias is not None:
            v.bias[rows] = 0
        o.bias = nn.Parameter(factors.bias.double() + (0 if o.bias is None else o.bias))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_removed_mlp_adds_nothing(family):
    whole, _, blocks = built(family)
    small = copy.deepcopy(whole)
    remove_mlp_(small, blocks[-1].mlp)
    alike(small, whole, family, masked.zero_outputs(whole, blocks[-1].mlp.output))
    assert find_blocks(small)[-1].mlp is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_removed_attention_adds_nothing(family):
    whole, _, blocks = built(family)
    small = copy.deepcopy(whole)
    attentions = blocks[-1].attentions
    for attention in attentions:
        remove_attention_(small, attention)
    alike(small, whole, family, several(*(masked.zero_outputs(whole, attention.o) for attention in attentions)))
    assert find_blocks(small)[-1].attentions == ()


@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_dropped_block_is_passed_by(family, place):
    whole, _, blocks = built(family)
    small = copy.deepcopy(whole)
    drop_blocks_(small, [blocks[place].path])
    alike(small, whole, family, masked.no_block(whole, blocks[place]))
    assert len(find_blocks(small)) == len(blocks) - 1


@pytest.mark.parametrize("family", GENERATES)
@pytest.mark.parametrize("first", [True, False], ids=["without the first attention", "without the first block"])
def test_generation_with_a_cache_is_generation_without(family, first):
    model, inputs, blocks = built(family)
    decoder = [block for block in blocks if "encoder" not in block.path.split(".")]
    for block in blocks:
        keep_heads_(model, block.attentions[0], torch.tensor([1]))
    for block in find_blocks(model):
        if family != "qwen3":
            keep_query_key_dimensions_(model, block.attentions[0], torch.tensor([[0, 3, 8, 11]] * block.attentions[0].key_heads))
    if not first:
        drop_blocks_(model, [decoder[0].path])
    elif family != "t5":
        remove_attention_(model, decoder[0].attentions[0])
    name = "input_features" if family == "whisper" else "input_ids"
    options = {name: inputs[name], "max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    if "attention_mask" in inputs:
        options["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    cached, plain = (model.generate(**options, use_cache=use) for use in (True, False))
    assert torch.equal(cached, plain)


def test_the_cache_counts_tokens_by_the_first_attention_that_is_left():
    model, inputs, blocks = built("llama")
    remove_attention_(model, blocks[0].attentions[0])
    ids = inputs["input_ids"][:1]

    def error():
        with torch.no_grad():
            past = model(ids[:, :4], use_cache=True).past_key_values
            return (model(ids[:, 4:], past_key_values=past).logits - model(ids).logits[:, 4:]).abs().max().item()

    assert error() < 1e-9
    model.get_submodule(blocks[1].attentions[0].core).layer_idx = 1  # its old place
    assert error() > 1e-3
    renumber_(model)
    assert error() < 1e-9


def test_what_is_left_of_a_projection_keeps_its_role():
    model, _, blocks = built("llama")
    keep_query_key_dimensions_(model, blocks[0].attentions[0], choices(blocks[0].attentions[0]))
    layers = {layer.name: layer for layer in find_layers(model)}
    left = layers["model.layers.0.self_attn.q_proj.kept"]
    assert (left.role, left.shape, left.block) == ("q", (24, 64), "model.layers.0")
    assert set(left.fused_with) == {"model.layers.0.self_attn.k_proj.kept", "model.layers.0.self_attn.v_proj"}


def test_pieces_can_be_removed_one_after_the_other():
    whole, _, blocks = built("gpt2")
    model = copy.deepcopy(whole)
    attention = blocks[0].attentions[0]
    keep_query_key_dimensions_(model, attention, choices(attention))
    keep_heads_(model, find_blocks(model)[0].attentions[0], torch.tensor([0, 2]))
    both = several(
        masked.few_dimensions(whole, attention, choices(attention)),
        masked.zero_inputs(whole, attention.o, masked.positions(torch.tensor([0, 2]), 16)),
    )
    alike(model, whole, "gpt2", both)
    assert model.get_submodule(attention.q).kept.weight.shape == (64, 2 * 6 * 2 + 32)


def test_mistakes_are_explained():
    model, _, blocks = built("t5")
    with pytest.raises(ParedownError, match="can't lose attention: it holds the position bias"):
        remove_attention_(model, blocks[0].attentions[0])
    remove_attention_(model, blocks[1].attentions[0])
    with pytest.raises(ParedownError, match=r"encoder.block.1 has no self-attention to take it"):
        drop_blocks_(model, ["encoder.block.0"])
    with pytest.raises(ParedownError, match=r"at least one block of encoder.block to stay"):
        drop_blocks_(model, ["encoder.block.0", "encoder.block.1"])
    model, _, blocks = built("llama")
    keep_heads_(model, blocks[1].attentions[0], torch.tensor([1]))
    with pytest.raises(ParedownError, match="find them again"):
        keep_heads_(model, blocks[1].attentions[0], torch.tensor([1]))
    with pytest.raises(ParedownError, match=r"paths of blocks, such as model.layers.0, got nine"):
        drop_blocks_(model, ["nine"])
    remove_attention_(model, blocks[0].attentions[0])
    with pytest.raises(ParedownError, match=r"last self-attention of model.layers"):
        remove_attention_(model, blocks[1].attentions[0])
    with pytest.raises(ParedownError, match=r"whose blocks are known \(bert"):
        find_blocks(nn.Sequential(nn.Linear(3, 4)))
