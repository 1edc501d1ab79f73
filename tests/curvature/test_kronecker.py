import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.curvature import ekfac, empirical_fisher, fisher, gauss_newton, kfac
from paredown.curvature.kronecker import KroneckerFactored
from paredown.errors import ParedownError
from surfaces import family, plain
from tiny_models import CASES


def naive_factors(products):
    """Sums over samples and tokens, one by one: A is a mean over real tokens, G a sum over them per counted unit."""
    (each,) = products.gradients
    rows, width = each.captured.layer.shape
    a, g, tokens = torch.zeros(width, width).double(), torch.zeros(rows, rows).double(), 0
    for draw, captured in enumerate(each.draws):
        for parts in captured.batches:
            for part in parts:
                for s in range(len(part.inputs)):
                    for t in range(part.inputs.shape[1]):
                        g += torch.outer(part.gradients[s, t], part.gradients[s, t])
                        if draw == 0 and (part.mask is None or part.mask[s, t]):
                            a += torch.outer(part.inputs[s, t], part.inputs[s, t])
                            tokens += 1
    return g * products.scale, a / tokens


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_block_is_the_kronecker_product_of_naive_factors(name):
    surface, layers = family(name, classes=3)
    layer = next(layer for layer in layers if layer.role in ("o", "q", "qkv"))
    products = gauss_newton(surface, [layer], exact=False, draws=2)
    g, a = naive_factors(products)
    changes = torch.randn(layer.parameters, 3, dtype=torch.float64)
    expected = torch.stack([(g @ v.reshape(layer.shape) @ a).flatten() for v in changes.T], 1)
    factored = kfac(products)
    torch.testing.assert_close(factored @ changes, expected, rtol=1e-8, atol=1e-12 * float(expected.abs().max()))
    torch.testing.assert_close(factored.quadratic_forms(list(changes.T)), (changes * expected).sum(0))
    assert factored.trace() == pytest.approx(float(g.trace() * a.trace()))


def test_kfac_is_exact_for_one_linear_layer_and_one_sample():
    for make in (gauss_newton, empirical_fisher):
        surface, layers = plain((4, 3), samples=1)
        products = make(surface, layers)
        torch.testing.assert_close(kfac(products).dense(), products.dense())
        torch.testing.assert_close(ekfac(products).dense(), products.dense())


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 1000),
    samples=st.integers(1, 6),
    tokens=st.integers(1, 3),
    sizes=st.lists(st.integers(2, 5), min_size=2, max_size=3),
    sampled=st.booleans(),
)
def test_ekfac_is_never_farther_from_the_matrix_than_kfac_and_has_its_trace(seed, samples, tokens, sizes, sampled):
    surface, layers = plain(tuple(sizes), samples, tokens, seed)
    for layer in layers:
        products = fisher(surface, [layer], draws=2, seed=seed) if sampled else gauss_newton(surface, [layer])
        dense, corrected = products.dense(), ekfac(products)
        near, far = (float((each.dense() - dense).norm()) for each in (corrected, kfac(products)))
        assert near <= far * (1 + 1e-9) + 1e-12
        assert corrected.trace() == pytest.approx(float(dense.trace()), rel=1e-8, abs=1e-14)


@pytest.mark.parametrize("make", [kfac, ekfac])
def test_the_inverse_is_damped_by_a_tenth_of_each_layers_mean_eigenvalue(make):
    surface, layers = plain(tokens=2)
    factored = make(gauss_newton(surface, layers))
    dense, start = factored.dense(), 0
    for layer in layers:
        block = slice(start, start + layer.parameters)
        dense[block, block] += 0.1 * dense[block, block].trace() / layer.parameters * torch.eye(layer.parameters)
        start += layer.parameters
    torch.testing.assert_close(factored.inverse().dense(), torch.linalg.inv(dense))
    vector = torch.randn(start, dtype=torch.float64)
    torch.testing.assert_close(factored.inverse() @ vector, torch.linalg.solve(dense, vector))
    assert factored.inverse(10.0).trace() < factored.inverse(0.1).trace()


@pytest.mark.parametrize("make", [kfac, ekfac])
def test_an_embeddings_left_factor_is_the_share_of_its_rows(make):
    surface, layers = family("bert")
    layer = layers[0]
    assert layer.kind == "embedding"
    products = gauss_newton(surface, [layer], exact=False)
    factored = make(products)
    ids, mask = surface.batches[0].inputs["input_ids"], surface.batches[0].inputs["attention_mask"].bool()
    if make is kfac:
        shares = torch.bincount(ids[mask], minlength=layer.shape[0]).double() / int(mask.sum())
        torch.testing.assert_close(factored.bases[0].left_values, shares)
    else:
        assert factored.trace() == pytest.approx(products.trace())
    v = torch.randn(layer.shape, dtype=torch.float64)
    unused = ~torch.isin(torch.arange(layer.shape[0]), ids[mask])
    (answer,) = factored @ [v]
    assert not answer[unused].any()
    assert answer[~unused].any()


@pytest.mark.parametrize("name", list(CASES))
def test_every_family_has_factors_or_says_why_not(name):
    surface, layers = family(name)
    for layer in layers[:: max(1, len(layers) // 4)]:
        products = gauss_newton(surface, [layer], exact=False)
        kinds = {part.kind for parts in products.gradients[0].captured.batches for part in parts}
        if len(kinds) > 1:
            with pytest.raises(ParedownError, match="both looked up and multiplied by"):
                ekfac(products)
        else:
            assert ekfac(products).trace() == pytest.approx(products.trace(), rel=1e-9)


def test_what_can_not_be_inverted_or_formed_is_refused(monkeypatch):
    surface, layers = plain()
    products = gauss_newton(surface, layers)
    with pytest.raises(ParedownError, match="expected a positive damping, got 0"):
        kfac(products).inverse(0)
    nothing = [torch.zeros_like(grid) for grid in kfac(products).grids]
    with pytest.raises(ParedownError, match=r"the gradients of layers\.0, layers\.1 are zero; leave them out"):
        KroneckerFactored(products.layers, kfac(products).bases, nothing).inverse()
    monkeypatch.setattr("paredown.curvature.kronecker.MAX_SIDE", 4)
    with pytest.raises(ParedownError, match=r"sides of at most 4 for Kronecker factors, layers\.0 is \[5, 4\]"):
        kfac(products)
