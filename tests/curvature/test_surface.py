import pytest
import torch
from torch import nn

from paredown.curvature.surface import LossSurface
from paredown.errors import ParedownError
from paredown.tasks import Batch, custom


def surface(model, loss=None, samples=4, units=None):
    x = torch.arange(samples * 3.0).reshape(samples, 3) / 10
    batches = [Batch({"x": x[:2]}, torch.tensor([0, 1]), (3, 0)), Batch({"x": x[2:]}, torch.tensor([1, 0]), (1, 2))]
    loss = loss or (lambda b: nn.functional.cross_entropy(model(b.inputs["x"]), b.targets, reduction="none"))
    return LossSurface(model, loss, batches, torch.ones(4) if units is None else units)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).eval().requires_grad_(False)


def test_the_first_samples_are_those_with_the_lowest_ids():
    first = surface(network()).first(3)
    assert [batch.ids for batch in first.batches] == [(0,), (1, 2)]
    assert first.samples == first.total_units == 3
    whole = surface(network())
    torch.testing.assert_close(first.losses(first.batches[0]), whole.losses(whole.batches[0])[1:])


def test_batches_without_rows_are_left_out():
    assert [batch.ids for batch in surface(network()).take(torch.tensor([3, 2])).batches] == [(1, 2)]


def test_a_loss_that_is_not_finite_names_batch_and_layer():
    model = network()
    model[2].weight[0, 0] = torch.nan
    found = surface(model)
    with pytest.raises(
        ParedownError, match="for samples 3, 0 in the batch of samples 3 to 0; the first layer whose output is not finite is 2"
    ):
        found.losses(found.batches[0])
    task = custom(
        lambda _: 1.0,
        higher_is_better=True,
        batches=found.batches,
        calibration=found.batches,
        loss=lambda m, b: m(b.inputs["x"]).square().sum(1),
    )
    with pytest.raises(
        ParedownError, match=r"NaN or infinite losses for the batch of samples 3, 0.*the first layer whose output is not finite is 2"
    ):
        LossSurface.of(model, task).losses(found.batches[0])
    found = surface(network(), lambda b: torch.full((2,), torch.inf))
    with pytest.raises(ParedownError, match="every layer's output is finite, look at the loss"):
        found.losses(found.batches[0])


def test_losses_that_are_not_one_value_a_sample_are_refused():
    found = surface(network(), lambda b: b.inputs["x"].sum())
    with pytest.raises(ParedownError, match=r"expected one loss per sample, a tensor \[2\] .* got \[\]; sum over the units"):
        found.losses(found.batches[0])


def test_training_mode_half_precision_and_nothing_to_count_are_refused():
    with pytest.raises(ParedownError, match=r"training mode.*model.eval\(\)"):
        surface(network().train())
    found = surface(network())
    found.model.train()
    with pytest.raises(ParedownError, match="training mode"):
        found.losses(found.batches[0])
    with pytest.raises(ParedownError, match=r"0\.weight is in half precision"):
        surface(network().bfloat16())
    with pytest.raises(ParedownError, match="expected labels to count in the batch of samples 1 to 2, got none"):
        surface(network(), units=torch.tensor([1, 1, 0, 0]))
    with pytest.raises(ParedownError, match="at least one sample"):
        LossSurface(network(), lambda b: b.inputs["x"], [], torch.ones(0))


def test_a_model_in_half_precision_is_computed_with_a_float32_copy():
    model = network().bfloat16()
    batches = [Batch({"x": torch.ones(2, 3, dtype=torch.bfloat16)}, torch.tensor([0, 1]), (0, 1))]
    task = custom(lambda _: 1.0, higher_is_better=True, batches=batches, calibration=batches, logits=lambda m, b: m(b.inputs["x"]))
    found = LossSurface.of(model, task)
    assert found.losses(found.batches[0]).dtype == torch.float32
    assert model[0].weight.dtype == torch.bfloat16
    assert torch.equal(found.model[0].weight, model[0].weight.float())
