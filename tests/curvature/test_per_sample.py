import pytest
import torch

from paredown import calibration
from paredown.calibration import Captured, capture, passes, some_samples, statistics
from paredown.curvature import PerSampleGradients, output_probe, per_sample
from paredown.errors import ParedownError
from paredown.layers import find_layers
from paredown.tasks import Batch
from reference.per_sample import gauss_newton, gradients
from tiny_models import CASES


def logits_of(output):
    return next(value for value in (output.get("logits"), output.get("last_hidden_state")) if value is not None)


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def seen(request):
    case = CASES[request.param]
    model = case.build().double().eval().requires_grad_(False)
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in case.inputs().items()}
    samples = len(next(iter(inputs.values())))
    with torch.no_grad():
        shape = logits_of(model(**inputs)).shape
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if "attention_mask" in inputs and weights.dim() == 3 and weights.shape[1] == inputs["attention_mask"].shape[1]:
        weights = weights * inputs["attention_mask"][:, :, None]  # nothing that counts sits on padding
    layers = find_layers(model)
    batch = Batch(inputs, None, tuple(range(samples)))
    captured = capture(model, layers, [batch], lambda b: (logits_of(model(**b.inputs)) * weights).sum())

    def share(output, sample):
        return (logits_of(output)[sample] * weights[sample]).sum()

    return model, layers, captured, inputs, share, samples


def test_per_sample_gradients_are_those_of_autograd_for_every_layer(seen):
    model, layers, captured, inputs, share, samples = seen
    assert set(captured) == {layer.name for layer in layers}
    for layer in layers:
        expected = gradients(model, layer, inputs, share, samples)
        found = torch.cat(list(PerSampleGradients(captured[layer.name]).chunks()))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11, msg=lambda text, name=layer.name: f"{name}: {text}")


def test_quadratic_forms_and_eigenvalues_are_those_of_the_dense_gradients(seen):
    model, layers, captured, inputs, share, samples = seen
    generator = torch.Generator().manual_seed(2)
    for layer in layers:
        expected = gradients(model, layer, inputs, share, samples)
        changes = [torch.randn(layer.shape, generator=generator, dtype=torch.float64) for _ in range(2)]
        form = PerSampleGradients(captured[layer.name])
        diagonal, full = form.forms(changes)
        close = {"rtol": 1e-9, "atol": 1e-12}
        torch.testing.assert_close(diagonal, torch.stack([(expected**2 * change**2).sum((1, 2)) for change in changes], 1), **close)
        torch.testing.assert_close(full, torch.stack([(expected * change).sum((1, 2)) ** 2 for change in changes], 1), **close)
        torch.testing.assert_close(form.squared_norms(), expected.square().sum((1, 2)), **close)
        values, used = form.eigenvalues()
        flat = expected.flatten(1)
        assert used == samples
        torch.testing.assert_close(values, torch.linalg.svdvals(flat) ** 2, rtol=1e-8, atol=1e-12 * float(values[0]) + 1e-15)


def test_chunks_do_not_change_the_answer(seen, monkeypatch):
    _, layers, captured, *_ = seen
    form = PerSampleGradients(captured[layers[0].name])
    changes = [torch.ones(layers[0].shape, dtype=torch.float64)]
    whole = form.forms(changes)
    torch.testing.assert_close(torch.cat(list(form.chunks(limit_bytes=1))), torch.cat(list(form.chunks())))
    monkeypatch.setattr(per_sample, "FORM_SAMPLES", 1)
    monkeypatch.setattr(per_sample, "FORM_BYTES", 1)
    torch.testing.assert_close(form.forms(changes), whole)


def test_moments_of_many_short_batches_are_summed_as_one(seen, monkeypatch):
    _, layers, captured, *_ = seen
    parts = captured[layers[-1].name].batches[0]
    many = Captured(layers[-1], tuple(tuple(some_samples(part, slice(i, i + 1)) for part in parts) for i in range(len(parts[0].inputs))))
    whole = statistics(captured[layers[-1].name])
    for tokens in (1, 10_000):
        monkeypatch.setattr(calibration, "GRAM_TOKENS", tokens)
        found = statistics(many)
        assert found.tokens == whole.tokens
        torch.testing.assert_close(found.input_second_moment, whole.input_second_moment)
        torch.testing.assert_close(found.input_abs_max, whole.input_abs_max)


def test_statistics_count_real_tokens_only(seen):
    _, layers, captured, inputs, *_ = seen
    mask = inputs.get("attention_mask")
    for layer in layers:
        stats = statistics(captured[layer.name])
        parts = captured[layer.name].batches[0]
        part = next((part for part in parts if part.kind == "dense"), parts[0])  # a tied head counts, where there is one
        rows = part.inputs.flatten(0, 1) if part.mask is None else part.inputs[mask.bool()]
        assert stats.tokens == len(rows)
        if part.kind == "lookup":
            assert stats.input_second_moment.sum() == pytest.approx(1, abs=1e-6)
        else:
            torch.testing.assert_close(stats.input_second_moment.double(), rows.T @ rows / len(rows), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(stats.input_abs_max.double(), rows.abs().amax(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("classes", [2, 5, 200])
def test_probes_have_the_curvature_of_the_softmax_as_second_moment(classes):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(1, classes, generator=generator, dtype=torch.float64)
    draws = output_probe(logits.expand(40_000, -1), generator)
    p = logits.softmax(-1)[0]
    products = draws[:, :, None] * draws[:, None, :] if classes < 200 else draws[:, :8, None] * draws[:, None, :8]
    expected = (torch.diag(p) - torch.outer(p, p))[: products.shape[1], : products.shape[1]]
    deviation = products.std(0) / len(draws) ** 0.5
    assert ((products.mean(0) - expected).abs() <= 5 * deviation + 1e-12).all()
    torch.testing.assert_close(draws.sum(-1), torch.zeros(len(draws), dtype=torch.float64), atol=1e-9, rtol=0)


def test_one_probe_is_exact_for_two_classes():
    logits = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    u = output_probe(logits, torch.Generator().manual_seed(0))[0]
    p = logits.softmax(-1)[0]
    torch.testing.assert_close(torch.outer(u, u), torch.diag(p) - torch.outer(p, p))


def test_the_mean_over_probes_is_the_dense_gauss_newton_diagonal():
    """A classifier on one sample: the dense matrix from the Jacobian, the estimate within its standard error."""
    generator = torch.Generator().manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)).double().requires_grad_(False)
    x = torch.randn(1, 1, 4, generator=generator, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda w: torch.func.functional_call(model, {"0.weight": w}, (x,))[:, 0])(model[0].weight).flatten(2)
    dense = gauss_newton(jacobian, model(x)[:, 0].softmax(-1)).diagonal()
    layer = find_layers(torch.nn.Sequential(model))[0]
    squares = []
    for _ in range(400):
        batch = Batch({"input": x}, None, (0,))
        seen = capture(
            torch.nn.Sequential(model).eval(),
            [layer],
            [batch],
            lambda b: (lambda z: (z * output_probe(z, generator)).sum())(model(b.inputs["input"])[:, 0]),
        )
        squares.append(next(PerSampleGradients(seen[layer.name]).chunks())[0].flatten() ** 2)
    stacked = torch.stack(squares)
    assert ((stacked.mean(0) - dense).abs() <= 5 * stacked.std(0) / 20 + 1e-12).all()


def test_layers_are_split_by_memory_and_none_is_lost():
    layers = find_layers(CASES["bert"].build())
    runs = list(passes(layers, tokens=100, limit_bytes=100_000))
    assert [layer for run in runs for layer in run] == list(layers)
    assert len(runs) > 1
    assert all(len(run) == 1 or sum(400 * sum(layer.shape) for layer in run) <= 100_000 for run in runs)


def test_training_mode_and_broken_losses_are_refused():
    model = CASES["bert"].build()
    layers = find_layers(model)
    batch = Batch(CASES["bert"].inputs(), None, (4, 7))
    with pytest.raises(ParedownError, match=r"training mode, where dropout makes every pass differ; call model.eval\(\) first"):
        capture(model.train(), layers, [batch], lambda b: model(**b.inputs).logits.sum())
    with pytest.raises(ParedownError, match=r"the loss is nan on calibration batch 0 \(samples 4 to 7\)"):
        capture(model.eval(), layers, [batch], lambda b: model(**b.inputs).logits.sum() * float("nan"))
