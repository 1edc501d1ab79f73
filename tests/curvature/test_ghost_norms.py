import dataclasses

import pytest
import torch
from torch import nn

from paredown.calibration import capture
from paredown.curvature.ggn import gauss_newton
from paredown.curvature.ghost_norms import gauss_newton_traces
from paredown.curvature.per_sample import PerSampleGradients
from paredown.curvature.probes import generator_for, output_columns, output_probe
from paredown.curvature.surface import LossSurface
from paredown.errors import ParedownError
from paredown.layers import find_layers
from paredown.tasks import Batch, Predictions
from surfaces import family as families
from tiny_models import CASES


def surface_of(model, inputs, logits_of):
    """Every real position is a unit; the batch's two samples."""
    samples = len(next(iter(inputs.values())))
    mask = inputs.get("attention_mask")

    def logits(batch):
        values = logits_of(model(**batch.inputs))
        real = torch.ones(values.shape[:-1], dtype=torch.bool)
        if mask is not None and real.dim() == 2 and real.shape[1] == mask.shape[1]:
            real = mask.bool()
        sample = torch.arange(samples).reshape(-1, *[1] * (real.dim() - 1)).expand_as(real)[real]
        return Predictions(values[real], None, sample)

    batch = Batch(inputs, None, tuple(range(samples)))
    with torch.no_grad():
        units = logits(batch).sample.bincount()
    return LossSurface(model, lambda b: b.inputs["never asked"], [batch], units, logits)


def logits_of(output):
    return next(value for value in (output.get("logits"), output.get("last_hidden_state")) if value is not None)


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def family(request):
    case = CASES[request.param]
    model = case.build().double().requires_grad_(False)
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in case.inputs().items()}
    return surface_of(model, inputs, logits_of), find_layers(model)


def squared_norms(surface, layers, seed):
    """Mean of each layer, from the dense per-sample gradients of the same probe."""
    batch = surface.batches[0]

    def probe(b):
        z = surface.logits(b).logits
        directions = output_columns(z)[0] if z.shape[-1] == 2 else output_probe(z, generator_for(seed, "gauss_newton_traces", b.ids))
        return (z * directions).sum()

    captured = capture(surface.model, layers, [batch], probe)
    return {name: PerSampleGradients(seen).squared_norms() for name, seen in captured.items()}


def test_traces_are_those_of_the_dense_per_sample_gradients_for_every_layer(family):
    surface, layers = family
    expected = squared_norms(surface, layers, 7)
    (estimates,) = gauss_newton_traces(surface, layers, seed=7)
    assert [e.layer for e in estimates] == [layer.name for layer in layers]
    for estimate in estimates:
        assert estimate.value == pytest.approx(float(expected[estimate.layer].sum()) / surface.total_units, rel=1e-9, abs=1e-15)
        assert estimate.data_sd >= 0


class Twice(nn.Module):
    """A classifier of sequences that uses one weight twice."""

    def __init__(self, classes, tokens=6):
        super().__init__()
        torch.manual_seed(classes)
        self.first, self.again, self.last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, classes)
        self.again.weight = self.first.weight

    def forward(self, x):
        return self.last(torch.tanh(self.again(torch.tanh(self.first(x)))).mean(1))


def sequences(classes, samples=6, tokens=6):
    model = Twice(classes).double().eval().requires_grad_(False)
    x = torch.randn(samples, tokens, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batches = [Batch({"x": x[i : i + 2]}, torch.zeros(2, dtype=torch.long), (i, i + 1)) for i in range(0, samples, 2)]

    def logits(batch):
        return Predictions(model(**batch.inputs), batch.targets, torch.arange(2))

    def loss(batch):
        return nn.functional.cross_entropy(model(**batch.inputs), batch.targets, reduction="none")

    return LossSurface(model, loss, batches, torch.ones(samples), logits), find_layers(model)


def dense_trace(surface, layer):
    """Of J^T (diag p - p p^T) J per sample, from a dense Jacobian; [samples]."""
    parameter = surface.model.get_submodule(layer.name).weight

    def logits(weight, inputs):
        names = {name + ".weight": weight for name in (layer.name, *layer.tied_to)}
        return torch.func.functional_call(surface.model, names, kwargs=inputs)

    found = []
    for batch in surface.batches:
        jacobian = torch.func.jacrev(logits)(parameter, batch.inputs).flatten(2)
        p = surface.logits(batch).logits.softmax(-1)
        found += [(j.T @ (torch.diag(q) - torch.outer(q, q)) @ j).trace() for j, q in zip(jacobian, p, strict=True)]
    return torch.stack(found)


def last(estimates):
    return list(estimates)[-1]


@pytest.mark.parametrize(("classes", "tokens"), [(2, 2), (4, 2), (4, 40)], ids=["two classes", "ghosts", "dense"])
def test_exact_traces_are_those_of_the_dense_matrix_and_know_their_data_error(classes, tokens):
    surface, layers = sequences(classes, tokens=tokens)
    assert [layer.tied_to for layer in layers][:1] == [("again",)]
    estimates = last(gauss_newton_traces(surface, layers, seed=0, exact=None if classes == 2 else True))
    for layer, estimate in zip(layers, estimates, strict=True):
        dense = dense_trace(surface, layer)
        assert estimate.value == pytest.approx(float(dense.mean()), rel=1e-9)
        assert estimate.data_sd == pytest.approx(float(dense.std()) / 6**0.5, rel=1e-9)
        assert (estimate.probe_sd, estimate.matrix, estimate.samples) == (0, "ggn", 6)


def test_random_probes_are_within_their_stated_error_of_the_exact_traces():
    """95 % intervals over 200 seeds, four probes each. Right above the logits the eigenbasis leaves no noise at all."""
    surface, layers = sequences(4)
    shared, head = last(gauss_newton_traces(surface, layers, seed=0, exact=True))
    hits = 0
    for seed in range(200):
        found, found_head = last(gauss_newton_traces(surface, layers, seed=seed, probes=4, exact=False))
        hits += abs(found.value - shared.value) <= 1.96 * found.probe_sd
        assert found_head.value == pytest.approx(head.value, rel=1e-9)
    assert 180 <= hits <= 198


def test_each_batch_refines_the_estimate_and_their_order_does_not_matter():
    surface, layers = sequences(5)
    streamed = list(gauss_newton_traces(surface, layers, seed=3, exact=False))
    assert [found[0].samples for found in streamed] == [2, 4, 6]
    assert streamed[0][0].probe_sd is None
    turned = dataclasses.replace(surface, batches=surface.batches[::-1])
    for a, b in zip(streamed[-1], last(gauss_newton_traces(turned, layers, seed=3, exact=False)), strict=True):
        assert (a.value, a.data_sd) == pytest.approx((b.value, b.data_sd))


def test_without_probabilities_the_matrix_is_the_empirical_fisher():
    surface, layers = sequences(3)
    estimates = last(gauss_newton_traces(dataclasses.replace(surface, logits=None), layers, seed=0))
    captured = capture(surface.model, layers, surface.batches, lambda batch: surface.loss(batch).sum())
    for estimate in estimates:
        assert estimate.matrix == "empirical_fisher"
        assert estimate.value == pytest.approx(float(PerSampleGradients(captured[estimate.layer]).squared_norms().mean()))


def test_layers_that_are_not_run_are_absent():
    surface, layers = sequences(3)
    surface.model.spare = nn.Linear(5, 70, dtype=torch.float64)
    spare = find_layers(surface.model)[-1]
    assert spare.name == "spare"
    assert [e.layer for e in last(gauss_newton_traces(surface, [*layers, spare], seed=0))] == [layer.name for layer in layers]


def test_values_that_are_not_finite_name_layer_and_samples():
    surface, layers = sequences(3)

    def steep(batch):
        made = surface.logits(batch)
        return dataclasses.replace(made, logits=made.logits + (0 * made.logits).sqrt())

    with pytest.raises(ParedownError, match=r"gradients of first are NaN or infinite for the batch of samples 0 to 1"):
        last(gauss_newton_traces(dataclasses.replace(surface, logits=steep), layers, seed=0))
    surface.model.last.weight.fill_(torch.nan)
    with pytest.raises(ParedownError, match=r"returned NaN or infinite logits for the batch of samples 0, 1"):
        last(gauss_newton_traces(surface, layers, seed=0))
    with pytest.raises(ParedownError, match="at least one probe of each sample, got 0"):
        last(gauss_newton_traces(surface, layers, seed=0, probes=0))


def test_units_of_one_sample_are_not_mixed_where_traces_claim_to_be_exact():
    """Tokens of two classes: a probe that is exact for each token is not for their sum."""
    surface, layers = families("gpt2", classes=2, batches=2)
    some = layers[1:3]
    operator = gauss_newton(surface, some, exact=True)
    truth = [operator.block(i).trace() for i in range(2)]
    assert [e.value for e in last(gauss_newton_traces(surface, some, seed=0, exact=True))] == pytest.approx(truth, rel=1e-9)
    assert all(e.probe_sd is None for e in last(gauss_newton_traces(surface, some, seed=0)))
    for estimate, exact in zip(last(gauss_newton_traces(surface, some, seed=0, probes=20)), truth, strict=True):
        assert abs(estimate.value - exact) <= 4 * estimate.probe_sd
