"""What is chosen by the inputs, and what the refitted layer makes up for."""

from __future__ import annotations

import copy

import pytest
import torch

from paredown import tasks
from paredown.errors import ParedownError
from paredown.evaluation import divergence
from paredown.methods import attention_rank
from paredown.structure import (
    Fractions,
    find_blocks,
    fit_block_,
    fit_channels_,
    fit_heads_,
    fit_query_keys_,
    fit_value_output_,
    influences,
    input_moments,
)
from tiny_models import CASES


def task_of(family):
    inputs = CASES[family].inputs()
    return tasks.custom(lambda model: 0.0, batches=[inputs], calibration=[inputs], higher_is_better=True)


@pytest.fixture
def llama(tiny_llama):
    return copy.deepcopy(tiny_llama.model)


def kl(task, original, model):
    with torch.no_grad():
        each = [
            divergence(task.predictions(original, batch).logits, task.predictions(model, batch).logits)
            for batch in task.batches("calibration")
        ]
    return float(torch.cat(each).mean())


def test_moments_are_those_of_the_real_tokens():
    model, task = CASES["bert"].build(), task_of("bert")
    path = find_blocks(model)[1].mlp.output
    seen = []
    handle = model.get_submodule(path).register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    inputs = CASES["bert"].inputs()
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    rows = seen[0][inputs["attention_mask"].bool()].double()
    moments = input_moments(model, task, task.batches("calibration"), [path])[path]
    assert moments.tokens == len(rows) == 12
    torch.testing.assert_close(moments.second, rows.T @ rows / 12, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(moments.mean, rows.mean(0), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("family", sorted(CASES))
def test_every_block_has_an_influence(family):
    model, task = CASES[family].build(), task_of(family)
    blocks = find_blocks(model)
    found = influences(model, task, task.batches("calibration"), blocks)
    assert set(found) == {block.path for block in blocks}
    assert all(0 < value < 2 for value in found.values())


@pytest.mark.parametrize("family", sorted(CASES))
def test_every_family_shrinks_in_every_way_and_stays_finite(family):
    model, task = CASES[family].build(), task_of(family)
    before = sum(parameter.numel() for parameter in model.parameters())
    batches = task.batches("calibration")
    notes = [
        note
        for block in find_blocks(model)
        for note in fit_block_(model, task, batches, block.path, Fractions(mlp=0.5, heads=0.5, qk=0.5, vo=0.5))
    ]
    with torch.no_grad():
        assert task.predictions(model, batches[0]).logits.isfinite().all()
    assert sum(parameter.numel() for parameter in model.parameters()) < before
    assert ("normalised over all dimensions of a head" in " ".join(notes)) == (family == "qwen3")


def test_the_refitted_mlp_is_nearer_than_the_cut_one(tiny_llama, tiny_llama_task):
    batches = tiny_llama_task.batches("calibration")
    damage = []
    for compensate in (True, False):
        model = copy.deepcopy(tiny_llama.model)
        for block in find_blocks(model):
            fit_block_(model, tiny_llama_task, batches, block.path, Fractions(mlp=0.5), compensate=compensate)
        damage.append(kl(tiny_llama_task, tiny_llama.model, model))
    assert damage[0] < damage[1]


def test_the_refitted_output_of_fewer_heads_has_the_smaller_error(llama, tiny_llama_task):
    """The mean squared change of what the attention adds, over the very tokens that the moments are of."""
    batches = tiny_llama_task.batches("calibration")
    attention = find_blocks(llama)[1].attentions[0]
    keep = max(attention.key_heads // 2, 1)
    moments = input_moments(llama, tiny_llama_task, batches, [attention.o])[attention.o]
    outputs = []
    for compensate in (None, True, False):
        model = copy.deepcopy(llama)
        if compensate is not None:
            fit_heads_(model, attention, keep, moments, compensate=compensate)
        added = []
        model.get_submodule(attention.o).register_forward_hook(lambda module, arguments, output, added=added: added.append(output))
        with torch.no_grad():
            for batch in batches:
                tiny_llama_task.predictions(model, batch)
        outputs.append(torch.cat(added))
    original, refitted, cut = outputs
    assert (refitted - original).square().mean() < (cut - original).square().mean()


def test_the_dimensions_with_the_largest_scores_stay(llama, tiny_llama_task):
    batches = tiny_llama_task.batches("calibration")
    attention = find_blocks(llama)[0].attentions[0]
    moments = input_moments(llama, tiny_llama_task, batches, [attention.q, attention.k])
    weights = {name: llama.get_submodule(getattr(attention, name)).weight for name in "qk"}
    squares = [attention_rank.mean_squares(weights[name], moments[getattr(attention, name)].second) for name in "qk"]
    scores = attention_rank.query_key_scores(*squares, attention.key_heads, rotary=True)
    kept = attention_rank.keep_dimensions(scores, attention.head_dim // 2, rotary=True)
    fit_query_keys_(llama, attention, attention.head_dim // 2, moments)
    starts = torch.arange(attention.key_heads)[:, None] * attention.head_dim
    assert torch.equal(llama.get_submodule(attention.k).index, (kept.sort(dim=1).values + starts).flatten())


def test_values_of_full_rank_change_nothing(llama, tiny_llama, tiny_llama_task):
    batches = tiny_llama_task.batches("calibration")
    attention = find_blocks(llama)[0].attentions[0]
    moments = input_moments(llama, tiny_llama_task, batches, [attention.v])[attention.v]
    fit_value_output_(llama, attention, attention.head_dim, moments)
    assert kl(tiny_llama_task, tiny_llama.model, llama) < 1e-6


def test_mistakes_and_degenerate_inputs_are_said(llama, tiny_llama_task):
    with pytest.raises(ParedownError, match="share of heads to keep, above 0 and at most 1, got 0"):
        Fractions(heads=0)
    mlp = find_blocks(llama)[0].mlp
    moments = input_moments(llama, tiny_llama_task, tiny_llama_task.batches("calibration", 1), [mlp.output])[mlp.output]
    dead = type(moments)(torch.zeros_like(moments.second), torch.zeros_like(moments.mean), moments.tokens)
    assert "identity" in fit_channels_(llama, mlp, mlp.channels // 2, dead)
    with pytest.raises(ParedownError, match=r"never runs model.layers.0.mlp.down_proj"):
        input_moments(llama, tiny_llama_task, [], ["model.layers.0.mlp.down_proj"])
