from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from paredown.apply import Variants
from paredown.calibration import capture
from paredown.curvature import probe_objective
from paredown.evaluation import Evaluator, observe
from paredown.evaluation.pieces import _cheapest, shortened
from paredown.layers import find_layers, weight_of
from paredown.sensitivity import price
from paredown.specs import KEEP, Scheme
from paredown.tasks import Batch, custom
from paredown.tasks.base import IGNORED
from tiny_models import CASES

SCHEMES = [Scheme.parse("int3g32"), KEEP, Scheme.parse("int4g32a8")]
LENGTHS = (9, 2, 24, 3, 17, 24)


def padded(lengths, targets="sample"):
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(3, 100, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    labels = torch.arange(len(lengths)) % 2 if targets == "sample" else torch.where(mask > 0, ids, IGNORED)
    return Batch({"input_ids": ids, "attention_mask": mask}, labels, tuple(range(len(lengths))))


def setting(model, batch, logits, **options):
    task = custom(lambda model: 1.0, batches=[batch], calibration=[batch], higher_is_better=True, logits=logits)
    layers = find_layers(model)
    variants = Variants(model, layers)
    plan = {layer.name: SCHEMES[i % 3] for i, layer in enumerate(layers)}
    return task, variants, plan, Evaluator(model, layers, task, [batch], variants, **options)


def cost(lengths, cuts, call):
    return sum((b - a) * lengths[b - 1] + call for a, b in itertools.pairwise([0, *cuts, len(lengths)]))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=7).map(sorted), st.integers(0, 60))
def test_no_other_cuts_are_cheaper(lengths, call):
    places = range(1, len(lengths))
    every = [list(cuts) for many in range(len(lengths)) for cuts in itertools.combinations(places, many)]
    assert cost(lengths, _cheapest(lengths, call), call) == min(cost(lengths, cuts, call) for cuts in every)


@pytest.mark.parametrize("targets", ["sample", "token"])
def test_predictions_come_in_the_batchs_order_and_the_longest_run_alone(targets, monkeypatch):
    monkeypatch.setattr("paredown.evaluation.pieces._cut.__defaults__", (0,))
    model, batch = CASES["bert"].build().double(), padded(LENGTHS, targets)
    widths = []

    def logits(model, batch):
        widths.append(batch.inputs["input_ids"].shape)
        made = model(**batch.inputs).logits
        return made if targets == "sample" else made[:, None] * batch.inputs["input_ids"][..., None]

    task, variants, plan, evaluator = setting(model, batch, logits)
    with variants.applied(plan):
        expected = observe(model, task, [batch]).predictions[0]
    evaluator.observe({})
    widths.clear()
    found = evaluator.observe(plan).predictions[0]
    assert sorted(tuple(shape) for shape in widths) == [(1, 2), (1, 3), (1, 9), (1, 17), (2, 24)]
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-10, atol=1e-10)
    assert torch.equal(found.sample, expected.sample)
    assert torch.equal(found.targets, expected.targets)
    assert evaluator.whole_batches == ""


def test_a_model_that_reads_its_padding_gets_whole_batches(monkeypatch):
    monkeypatch.setattr("paredown.evaluation.pieces._cut.__defaults__", (0,))
    model, batch = CASES["bert"].build(), padded(LENGTHS)
    task, variants, plan, evaluator = setting(model, batch, lambda model, batch: model(input_ids=batch.inputs["input_ids"]).logits)
    with variants.applied(plan):
        expected = observe(model, task, [batch]).predictions[0].logits
    torch.testing.assert_close(evaluator.observe(plan).predictions[0].logits, expected, rtol=1e-4, atol=1e-5)
    assert evaluator.whole_batches == "samples answer otherwise without their padding"


def test_changes_of_a_recorded_plan_are_bitwise_those_of_a_full_run_piece_by_piece(monkeypatch):
    monkeypatch.setattr("paredown.evaluation.pieces._cut.__defaults__", (0,))
    model, batch = CASES["bert"].build(), padded(LENGTHS)
    _, _, plan, evaluator = setting(model, batch, lambda model, batch: model(**batch.inputs).logits)
    evaluator.observe(plan, keep=True)
    child = plan | {evaluator.layers[-2].name: SCHEMES[0]}
    found = evaluator.observe(child).predictions[0].logits
    assert evaluator.blocks_given_back > 0
    evaluator.clear()
    assert torch.equal(found, evaluator.observe(child).predictions[0].logits)


class TestTheFirstToken:
    class Model(nn.Module):
        """A block that mixes tokens and one that does not, and what is read of them."""

        def __init__(self, read):
            super().__init__()
            torch.manual_seed(0)
            block = lambda: nn.ModuleDict({name: nn.Linear(32, 32) for name in ("query", "value", "out")})  # noqa: E731
            self.layers, self.head, self.read = nn.ModuleList(block() for _ in range(2)), nn.Linear(32, 3), read

        def forward(self, x):
            for block in self.layers:
                weights = (block["query"](x) @ x.mT).softmax(-1)
                x = x + torch.tanh(block["out"](x + weights @ block["value"](x)))
            return self.head(self.read(x))

    def layers_read_in_part(self, read):
        model = self.Model(read).eval().double()
        batch = Batch({"x": torch.randn(3, 5, 32, dtype=torch.float64)}, torch.zeros(3, dtype=torch.long), (0, 1, 2))
        task, variants, plan, evaluator = setting(model, batch, lambda model, batch: model(batch.inputs["x"]))
        with variants.applied(plan):
            expected = observe(model, task, [batch]).predictions[0].logits
        torch.testing.assert_close(evaluator.observe(plan).predictions[0].logits, expected, rtol=1e-10, atol=1e-10)
        return evaluator._first_row_layers

    def test_only_what_reaches_it_is_computed_of_the_last_block(self):
        assert self.layers_read_in_part(lambda x: x[:, 0]) == {"layers.1.query", "layers.1.out"}

    @pytest.mark.parametrize("read", [lambda x: x.mean(1), lambda x: x[:, -1], lambda x: x[:, :2].sum(1), lambda x: x.amax(1)])
    def test_all_is_computed_where_others_are_read(self, read):
        assert self.layers_read_in_part(read) == frozenset()


def test_layers_are_priced_alike_on_the_pieces_and_on_whole_batches(monkeypatch):
    """Two classes: the one sign of a sample's probe does not matter to its square."""
    monkeypatch.setattr("paredown.evaluation.pieces._cut.__defaults__", (0,))
    model, batch = CASES["bert"].build().eval().requires_grad_(False), padded(LENGTHS)
    task = custom(lambda model: 1.0, batches=[batch], calibration=[batch], higher_is_better=True, logits=lambda m, b: m(**b.inputs).logits)
    short = shortened([batch], task, model)
    assert sum(each.inputs["input_ids"].numel() for each in short) == sum(LENGTHS)
    assert [LENGTHS[i] for each in short for i in each.ids] == sorted(LENGTHS)
    layers = [layer for layer in find_layers(model) if layer.block]

    def priced(batches):
        seen = capture(model, layers, batches, probe_objective(model, task, seed=0))
        units = torch.cat([task.units(batch) for batch in batches])
        return [c for layer in layers for c in price(layer, weight_of(model, layer), seen[layer.name], units, SCHEMES[:1])]

    for one, other in zip(priced(short), priced([batch]), strict=True):
        assert one.loss_increase == pytest.approx(other.loss_increase, rel=1e-4)
        assert one.loss_increase_sd == pytest.approx(other.loss_increase_sd, rel=1e-3)
        assert one.output_error == pytest.approx(other.output_error, rel=1e-5)
