import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.curvature import gauss_newton
from paredown.curvature.outer_products import OuterProducts
from paredown.curvature.uncertainty import ratio
from paredown.errors import ParedownError
from surfaces import family, plain


def rows_of(operator):
    """The P of all rows, dense [rows, n]."""
    return torch.cat([torch.cat([chunk.flatten(1) for chunk in each.chunks()]) for each in operator.gradients], 1)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 100),
    samples=st.integers(1, 6),
    tokens=st.integers(1, 4),
    classes=st.integers(2, 4),
    limit=st.sampled_from([1, 200, 10**6]),
)
def test_both_ways_to_the_gram_matrix_agree_in_any_block_size(seed, samples, tokens, classes, limit):
    surface, layers = plain((3, 4, classes), samples, tokens, seed, batch_size=2)
    for each in gauss_newton(surface, layers).gradients:
        dense = torch.cat([chunk.flatten(1) for chunk in each.chunks()])
        for found in (each._gram_by_rows(limit), each._gram_by_tokens(limit), each.gram()):
            torch.testing.assert_close(found, dense @ dense.T)


@pytest.mark.parametrize("name", ["gpt2", "t5", "qwen2"])
def test_lookups_and_tied_heads_agree_too(name):
    surface, layers = family(name, classes=3, batches=2)
    layer = next(layer for layer in layers if layer.kind == "embedding")
    (each,) = gauss_newton(surface, [layer], exact=False, draws=3).gradients
    dense = torch.cat([chunk.flatten(1) for chunk in each.chunks()])
    for found in (each._gram_by_rows(10**5), each._gram_by_tokens(10**4), each.gram()):
        torch.testing.assert_close(found, dense @ dense.T, rtol=1e-9, atol=1e-16)


def test_batches_do_not_change_the_matrix():
    one, layers = plain(batch_size=6)
    many, _ = plain(batch_size=1)
    torch.testing.assert_close(gauss_newton(many, layers).dense(), gauss_newton(one, layers).dense())


def test_it_is_symmetric_positive_and_of_the_rank_of_its_samples():
    surface, layers = plain((5, 6, 2), samples=3)
    operator = gauss_newton(surface, layers[:1])
    dense = operator.dense()
    torch.testing.assert_close(dense, dense.T)
    values = torch.linalg.eigvalsh(dense)
    assert values[0] > -1e-12
    assert int((values > 1e-10 * values[-1]).sum()) == 3 == len(operator.eigenvalues())


def test_sample_values_are_those_of_the_matrix_in_parts():
    surface, layers = plain()
    operator = gauss_newton(surface, layers)
    changes = [[torch.randn(layer.shape, dtype=torch.float64) for layer in layers] for _ in range(3)]
    forms = operator.sample_forms(changes)
    assert forms.shape == (6, 3)
    mean, _ = ratio(forms, surface.units)
    torch.testing.assert_close(mean, operator.quadratic_forms(changes))
    dense, columns = operator.dense(), operator.columns(changes)
    torch.testing.assert_close(mean, (columns * (dense @ columns)).sum(0))
    mean, _ = ratio(operator.sample_traces()[:, None], surface.units)
    assert float(mean) == pytest.approx(operator.trace()) == pytest.approx(float(dense.trace()))


def test_half_of_the_samples_have_the_top_eigenvalue_of_their_own_matrix():
    surface, layers = plain(samples=7, batch_size=3)
    shuffled = [dataclasses.replace(batch, ids=ids) for batch, ids in zip(surface.batches, [(6, 0, 3), (2, 5, 1), (4,)], strict=True)]
    surface = dataclasses.replace(surface, batches=shuffled)
    half = gauss_newton(surface.first(3), layers)
    assert gauss_newton(surface, layers).half_sample_top() == pytest.approx(float(half.eigenvalues()[0]))


def test_the_top_eigenvalue_of_few_samples_is_too_high_on_average():
    surface, layers = plain((6, 8, 3), samples=64, batch_size=64)
    means = []
    for size in (8, 32, 64):
        parts = [gauss_newton(surface.take(rows), layers[:1]).eigenvalues()[0] for rows in torch.arange(64).split(size)]
        means.append(float(torch.stack(parts).mean()))
    assert means[0] > means[1] > means[2]  # a maximum is convex in the mean of matrices


def test_layers_that_nothing_runs_and_gradients_that_are_not_finite_are_named():
    surface, layers = plain()
    stray = torch.nn.Linear(2, 2)
    surface.model.add_module("stray", stray.double())
    with pytest.raises(ParedownError, match="no batch ran stray; leave them out"):
        gauss_newton(surface, [*layers, dataclasses.replace(layers[0], name="stray", shape=(2, 2))])
    bad = lambda batch: (surface.logits(batch).logits, [torch.full((len(batch.ids), 3), torch.inf)])  # noqa: E731
    with pytest.raises(ParedownError, match=r"gradients of layers.0 are NaN or infinite for the batch of samples 0 to 3"):
        OuterProducts.of(surface, layers, bad, averaged=False)


def test_a_layer_that_only_some_batches_run_counts_nothing_in_the_others():
    surface, layers = plain(samples=6, batch_size=3)
    model, first = surface.model, surface.batches[0]
    model.add_module("extra", torch.nn.Linear(3, 3).double().requires_grad_(False))
    extra = dataclasses.replace(layers[0], name="extra", shape=(3, 3))

    def predict(batch):
        found = surface.logits(batch)
        return dataclasses.replace(found, logits=model.extra(found.logits)) if batch is first else found

    partial = dataclasses.replace(surface, logits=predict)
    operator = gauss_newton(partial, [extra, layers[0]])
    alone = gauss_newton(dataclasses.replace(partial, batches=[first], units=surface.units[:3]), [extra])
    torch.testing.assert_close(operator.dense()[:9, :9], alone.dense() / 2)
    torch.testing.assert_close(operator.eigenvalues()[:8], torch.linalg.eigvalsh(operator.dense()).flip(0)[:8])
