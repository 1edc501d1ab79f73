"""MoDeGPT's allocation, dropping by influence, the greedy search, and all of it from one call."""

from __future__ import annotations

import copy
import itertools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown import models
from paredown.errors import ParedownError
from paredown.structure import (
    Fractions,
    allocation,
    drop_least_influential_,
    find_blocks,
    greedy,
    influences,
    modegpt_,
    shrink,
)
from paredown.structure.measuring import mean_loss


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def blocks_size(model):
    return sum(size(model.get_submodule(block.path)) for block in find_blocks(model))


@given(st.lists(st.floats(0, 2), min_size=1, max_size=30), st.floats(0, 0.8), st.floats(0.01, 10))
def test_the_allocation_has_the_mean_that_was_asked_for_and_spares_what_matters(influence, share, temperature):
    shares = allocation(influence, share, temperature=temperature)
    assert sum(shares) / len(shares) == pytest.approx(share, abs=1e-9)
    assert all(0 <= lost <= 0.8 + 1e-12 for lost in shares)
    pairs = sorted(zip(influence, shares, strict=True))
    assert all(before[1] >= after[1] - 1e-9 for before, after in itertools.pairwise(pairs))


def test_within_the_limit_the_allocation_is_the_formula():
    influence = torch.tensor([0.2, 0.25, 0.3], dtype=torch.float64)
    wanted = 3 * 0.3 * (-influence / 0.2).softmax(0)
    assert allocation(influence.tolist(), 0.3, temperature=0.2) == pytest.approx(wanted.tolist())
    with pytest.raises(ParedownError, match=r"a share to lose from 0 to the limit of 0.8 and a temperature above 0, got 0.9 and 0.1"):
        allocation([0.1], 0.9)


def test_modegpt_keeps_about_the_share_that_was_asked_for(tiny_llama, tiny_llama_task):
    model = copy.deepcopy(tiny_llama.model)
    told = []
    batches = tiny_llama_task.batches("calibration")
    notes = modegpt_(model, tiny_llama_task, batches, 0.7, progress=lambda done, total, what: told.append((done, total)))
    assert blocks_size(model) / blocks_size(tiny_llama.model) == pytest.approx(0.7, abs=0.03)
    assert told == [(done, 4) for done in range(5)]
    assert len([note for note in notes if "influence" in note]) == 4


def test_the_blocks_of_the_least_influence_go_and_no_stack_is_emptied(tiny_llama, tiny_llama_task):
    model = copy.deepcopy(tiny_llama.model)
    batches = tiny_llama_task.batches("calibration")
    measured = influences(model, tiny_llama_task, batches, find_blocks(model))
    least = sorted(measured, key=lambda path: measured[path])[:2]
    said = drop_least_influential_(model, tiny_llama_task, batches, 2)
    assert [line.partition(":")[0] for line in said] == least
    assert model.config.num_hidden_layers == len(find_blocks(model)) == 2
    with pytest.raises(ParedownError, match="to drop 1 to 1 of 2 blocks, got 2"):
        drop_least_influential_(model, tiny_llama_task, batches, 2)


@pytest.mark.parametrize("threshold", [0.0, 0.03, 0.3])
def test_no_accepted_removal_lets_the_search_loss_rise_beyond_the_threshold(tiny_vit, tiny_vit_task, threshold):
    model, batches = copy.deepcopy(tiny_vit.model), tiny_vit_task.batches("calibration", 16)
    limit = mean_loss(model, tiny_vit_task, batches, None) + threshold
    before, accepted = size(model), 0
    for step in greedy(model, tiny_vit_task, batches, threshold=threshold, levels=("pieces", "heads")):
        assert step.accepted == (step.loss <= limit)
        if step.accepted:
            accepted += 1
            assert size(model) == step.parameters < before
            before = size(model)
        assert size(model) == before  # a refused one was put back
    assert mean_loss(model, tiny_vit_task, batches, None) <= limit
    assert accepted > 0 or threshold == 0


def test_a_search_goes_on_where_another_one_was_stopped(tiny_vit, tiny_vit_task):
    batches = tiny_vit_task.batches("calibration", 8)
    options = {"threshold": 0.05, "levels": ("channels",)}
    whole = copy.deepcopy(tiny_vit.model)
    steps = list(greedy(whole, tiny_vit_task, batches, **options))
    again = copy.deepcopy(tiny_vit.model)
    assert list(greedy(again, tiny_vit_task, batches, done=steps[:-3], **options)) == steps
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor)
    assert [step for step in steps if step.level == "channels" and step.accepted]
    with pytest.raises(ParedownError, match="the earlier search tried"):
        list(greedy(copy.deepcopy(tiny_vit.model), tiny_vit_task, batches, done=steps[1:], **options))
    with pytest.raises(ParedownError, match="threshold of 0 nats or more"):
        list(greedy(whole, tiny_vit_task, batches, threshold=-1))


def test_from_one_call_to_a_folder_and_back(tiny_vit, tiny_vit_task, tmp_path):
    digest = models.digest(models.distinct_tensors(tiny_vit.model))
    made = shrink(tiny_vit, tiny_vit_task, drop_blocks=1, fractions=Fractions(mlp=0.5), calibration=32, held_out=64)
    assert models.digest(models.distinct_tensors(tiny_vit.model)) == digest  # the original stays as it is
    assert made.after.parameters == size(made.loaded.model) < made.before.parameters
    assert made.after.bytes == 2 * made.after.parameters  # stored in float16
    assert made.before.kl == 0.0
    assert made.after.kl > 0
    assert made.plain
    folder = made.save(tmp_path / "small")
    assert models.load(str(folder)).digest == made.loaded.digest
    report = json.loads((folder / "paredown_shrunk.json").read_text())
    assert report["after"]["parameters"] == made.after.parameters
    assert report["removed"][1] == "every block keeps 50% of mlp"
    with pytest.raises(ParedownError, match="expected something to remove"):
        shrink(tiny_vit, tiny_vit_task)


def test_half_precision_is_measured_as_it_is_stored(tiny_llama, tiny_llama_task, tmp_path):
    half = models.described("half", "half", copy.deepcopy(tiny_llama.model), tiny_llama.processor, torch.float16)
    made = shrink(half, tiny_llama_task, fractions=Fractions(mlp=0.75, vo=0.5), calibration=2, held_out=2)
    assert not made.plain
    assert models.load(str(made.save(tmp_path / "small"))).digest == made.loaded.digest
