import dataclasses
import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from paredown.curvature import double_backward, hessian_traces, padding
from paredown.curvature.output_space import HessianBlock
from paredown.curvature.padding import TOKENS, padding_is_idle, runs, without_padding
from paredown.layers import find_layers
from paredown.tasks import Batch
from paredown.tasks.base import IGNORED
from reference.hessian import surface_of


def masked(lengths, tokens):
    mask = (torch.arange(tokens) < torch.tensor(lengths)[:, None]).long()
    return Batch({"input_ids": mask.clone(), "attention_mask": mask}, torch.zeros(len(lengths)).long(), tuple(range(len(lengths))))


def padded(name):
    """Three samples of 2, 3 and 6 tokens."""
    surface = surface_of(name)
    (batch,) = surface.batches
    inputs = {key: torch.cat([value, value[:1]]) for key, value in batch.inputs.items()}
    inputs["attention_mask"] = masked([2, 3, batch.inputs["input_ids"].shape[1]], batch.inputs["input_ids"].shape[1]).inputs[
        "attention_mask"
    ]
    targets = torch.cat([batch.targets, batch.targets[:1]])
    if targets.dim() > 1:
        targets = targets.masked_fill(inputs["attention_mask"] == 0, IGNORED)
        units = (targets != IGNORED).sum(1)
    else:
        units = torch.ones(3)
    return dataclasses.replace(surface, batches=[Batch(inputs, targets, (0, 1, 2))], units=units)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_nothing_changes_but_the_padding(name, monkeypatch):
    monkeypatch.setattr(padding, "TOKENS", 6)
    surface = padded(name)
    assert padding_is_idle(surface)
    assert [piece.inputs["input_ids"].shape for piece in double_backward.pieces(surface, 3)][:1] == [(2, 3)]
    layers = find_layers(surface.model)[1:3]
    v = torch.randn(layers[0].parameters, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def results():
        *_, traces = hessian_traces(surface, layers, seed=0, target=0.0, max_probes=4)
        return HessianBlock(surface, layers[0]) @ v, torch.tensor([[trace.value, trace.probe_sd] for trace in traces])

    short = results()
    for module in (double_backward, importlib.import_module("paredown.curvature.hessian_traces")):
        monkeypatch.setattr(module, "padding_is_idle", lambda surface: False)
    for one, other in zip(short, results(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_a_model_that_ignores_the_mask_keeps_its_padding():
    surface = padded("bert")

    def loss(batch):
        return surface.model.bert.embeddings(batch.inputs["input_ids"]).square().mean((1, 2))

    assert not padding_is_idle(dataclasses.replace(surface, loss=loss))


def test_what_can_not_be_seen_to_be_padding_stays():
    batch = masked([1, 2], 4)
    assert without_padding(batch).inputs["input_ids"].shape == (2, 2)
    for other in (
        masked([1, 4], 4),
        masked([0, 0], 4),
        dataclasses.replace(batch, targets=None),
        dataclasses.replace(batch, targets=torch.zeros(2, 4).long()),  # they count
        dataclasses.replace(batch, targets=torch.zeros(2, 3).long()),
        dataclasses.replace(batch, inputs={**batch.inputs, "pixel_values": torch.zeros(2, 4)}),
        dataclasses.replace(batch, inputs={"input_ids": batch.inputs["input_ids"]}),
        dataclasses.replace(batch, inputs={name: tensor.flip(1) for name, tensor in batch.inputs.items()}),  # padded on the left
    ):
        assert without_padding(other) is other


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=40), samples=st.integers(1, 10))
def test_runs_hold_every_row_once_within_both_limits(lengths, samples):
    batch, rows = masked(lengths, 300), torch.arange(len(lengths))
    found = runs(batch, rows, samples, by_length=True)
    assert torch.cat(found).tolist() == rows.tolist()
    for run in found:
        assert len(run) <= samples
        assert len(run) == 1 or len(run) * max(lengths[i] for i in run) <= TOKENS
