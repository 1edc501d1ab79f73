"""The sign that holds on a real model: refitted channels do less damage than cut ones."""

from __future__ import annotations

import copy

import pytest
import torch

from paredown import models, tasks
from paredown.evaluation import divergence
from paredown.methods import channels
from paredown.structure import find_blocks, input_moments, keep_channels_, projections
from paredown.structure.fitting import damping
from paredown.tasks import Batch

BLOCKS = (1, 3)


def every_third(batches, start):
    """Disjoint slices with samples of every length."""
    return [
        Batch({name: tensor[start::3] for name, tensor in batch.inputs.items()}, batch.targets[start::3], batch.ids[start::3])
        for batch in batches
    ]


@pytest.mark.demo
def test_refitted_channels_do_less_damage_than_cut_ones_at_every_share_and_slice():
    loaded = models.load("demo:sentiment")
    task = tasks.load("demo:sentiment", loaded)
    held_out = task.batches("held_out", 40)
    with torch.no_grad():
        original = [task.predictions(loaded.model, batch).logits for batch in held_out]
    mlps = [find_blocks(loaded.model)[index].mlp for index in BLOCKS]

    def kl(model):
        with torch.no_grad():
            found = [task.predictions(model, batch).logits for batch in held_out]
        return float(torch.cat([divergence(before, after) for before, after in zip(original, found, strict=True)]).mean())

    for start in range(3):
        batches = every_third(task.batches("calibration", 240), start)
        moments = input_moments(loaded.model, task, batches, [mlp.output for mlp in mlps])
        for share in (0.8, 0.7, 0.5):
            refitted, cut = copy.deepcopy(loaded.model), copy.deepcopy(loaded.model)
            for mlp in mlps:
                weight = projections.inputs(loaded.model, mlp.output).weight.T
                seen = moments[mlp.output]
                made = channels.keep_channels(weight, seen.second, round(share * mlp.channels), damping=damping(seen))
                keep_channels_(refitted, mlp, made.kept, made.weight)
                keep_channels_(cut, mlp, made.kept)
            damages = kl(refitted), kl(cut)
            assert damages[0] < damages[1]
