import pytest
import torch

from paredown.curvature import gauss_newton
from paredown.errors import ParedownError
from reference.curvature import jacobians
from surfaces import family, plain
from tiny_models import CASES


def dense_products(jacobian, probabilities, vectors, units):
    """J^T (diag(p) - p p^T) J V / N, without the matrix, which families' layers are too large for."""
    outputs = torch.einsum("ucn,nk->uck", jacobian, vectors)
    weighted = probabilities[:, :, None] * (outputs - (probabilities[:, :, None] * outputs).sum(1, keepdim=True))
    return torch.einsum("ucn,uck->nk", jacobian, weighted) / units


FLOAT32_INSIDE = ("llama", "qwen2", "qwen3", "mistral", "t5")
"""Their norms compute in float32 whatever the model's type."""


def chosen(layers):
    """One of each kind and shape: the loops over classes are slow."""
    kinds = {}
    for layer in layers:
        kinds.setdefault((layer.kind, bool(layer.tied_to)), layer)
    return [*kinds.values(), layers[-1]] if layers[-1] not in kinds.values() else list(kinds.values())


@pytest.mark.parametrize("name", list(CASES))
def test_products_are_those_of_dense_jacobians_for_every_family(name):
    surface, layers = family(name, classes=3)
    joint = chosen(layers)
    operator = gauss_newton(surface, joint, exact=True)
    jacobian, probabilities = jacobians(surface, joint)
    close = 1e-6 if name in FLOAT32_INSIDE else 1e-10
    vectors = torch.randn(operator.dimension, 2, dtype=torch.float64)
    expected = dense_products(jacobian, probabilities, vectors, surface.total_units)
    torch.testing.assert_close(operator @ vectors, expected, rtol=close, atol=close * float(expected.abs().max()))
    forms = (vectors * expected).sum(0)
    torch.testing.assert_close(operator.quadratic_forms(list(vectors.T)), forms, rtol=10 * close, atol=0)
    # (J^T M^½) has the matrix's non-zero spectrum, squared; the trace and the diagonal come from it too
    root = torch.linalg.cholesky(torch.diag_embed(probabilities[:, :-1]) - probabilities[:, :-1, None] * probabilities[:, None, :-1])
    differences = jacobian[:, :-1] - jacobian[:, -1:]  # M is singular along 1: classes but one are enough
    rows = torch.einsum("ucn,ucd->udn", differences, root).flatten(0, 1) / surface.total_units**0.5
    values = torch.linalg.eigvalsh(rows @ rows.T).flip(0)
    found = operator.eigenvalues()
    size = min(len(values), len(found))
    torch.testing.assert_close(found[:size], values[:size].clamp(min=0), rtol=close, atol=close * float(values[0]))
    torch.testing.assert_close(operator.diagonal(), rows.square().sum(0), rtol=10 * close, atol=close * float(values[0]))
    assert operator.trace() == pytest.approx(float(rows.square().sum()), rel=close)


@pytest.mark.parametrize("tokens", [1, 3])
def test_the_joint_matrix_and_its_blocks_are_dense_ones(tokens):
    surface, layers = plain(tokens=tokens)
    jacobian, p = jacobians(surface, layers)
    dense = dense_products(jacobian, p, torch.eye(jacobian.shape[-1], dtype=torch.float64), surface.total_units)
    operator = gauss_newton(surface, layers)  # exact by default: two columns
    torch.testing.assert_close(operator.dense(), dense)
    torch.testing.assert_close(operator.eigenvalues()[:12], torch.linalg.eigvalsh(dense).flip(0)[:12])
    torch.testing.assert_close(operator.diagonal(), dense.diagonal())
    size = layers[0].parameters
    torch.testing.assert_close(operator.block(0).dense(), dense[:size, :size])
    torch.testing.assert_close(gauss_newton(surface, layers[1:]).dense(), dense[size:, size:])
    vector = operator.top_eigenvector()
    torch.testing.assert_close(operator @ vector, operator.eigenvalues()[0] * vector)


def test_the_matrix_is_the_hessian_where_the_logits_are_linear_in_the_weights():
    surface, layers = plain((4, 3), samples=5)
    model, batch = surface.model, surface.batches

    def loss(weight):
        total = 0.0
        for b in batch:
            logits = torch.func.functional_call(model, {"layers.0.weight": weight}, (b.inputs["inputs"],))
            total = total + torch.nn.functional.cross_entropy(logits, b.targets, reduction="sum")
        return total / surface.total_units

    hessian = torch.func.jacrev(torch.func.jacrev(loss))(model.layers[0].weight).reshape(12, 12)
    torch.testing.assert_close(gauss_newton(surface, layers).dense(), hessian)


def test_blocks_are_those_of_the_hessian_in_a_deep_linear_network():
    """The logits are linear in each layer's weight by itself, though not in all of them together."""
    surface, layers = plain((4, 5, 3), samples=5, batch_size=5, activation=torch.nn.Identity)
    batch = surface.batches[0]

    def loss(first, second):
        names = {"layers.0.weight": first, "layers.1.weight": second}
        return torch.nn.functional.cross_entropy(torch.func.functional_call(surface.model, names, (batch.inputs["inputs"],)), batch.targets)

    weights = [layer.weight for layer in surface.model.layers]
    operator = gauss_newton(surface, layers)
    for i, layer in enumerate(layers):
        hessian = torch.func.jacrev(torch.func.jacrev(loss, i), i)(*weights)
        torch.testing.assert_close(operator.block(i).dense(), hessian.reshape(layer.parameters, layer.parameters))


def test_one_backward_pass_is_exact_for_two_classes():
    surface, layers = plain((4, 5, 2))
    operator = gauss_newton(surface, layers)
    assert len(operator.gradients[0].draws) == 1
    torch.testing.assert_close(gauss_newton(surface, layers, exact=False, seed=7).dense(), operator.dense())


def test_random_probes_have_the_exact_matrix_as_their_mean():
    surface, layers = plain(tokens=2)
    exact = gauss_newton(surface, layers).dense()
    draws = torch.stack([gauss_newton(surface, layers, exact=False, seed=seed).dense() for seed in range(100)])
    error = draws.std(0) / 10
    assert ((draws.mean(0) - exact).abs() <= 5 * error + 1e-12).all()
    many = gauss_newton(surface, layers, exact=False, draws=100).dense()
    assert float((many - exact).norm()) < 0.4 * float((draws[0] - exact).norm())


def test_probes_depend_on_the_seed_and_the_samples_alone():
    surface, layers = plain(batch_size=3)
    both = gauss_newton(surface, layers, exact=False, seed=3)
    torch.testing.assert_close(gauss_newton(surface, layers, exact=False, seed=3).trace(), both.trace())
    second = gauss_newton(surface.take(torch.arange(3, 6)), layers, exact=False, seed=3)
    torch.testing.assert_close(second.sample_traces(), both.sample_traces()[3:])
    assert gauss_newton(surface, layers, exact=False, seed=4).trace() != both.trace()


def test_a_loss_without_logits_is_refused_with_the_remedy():
    surface, layers = plain()
    bare = type(surface)(surface.model, surface.loss, surface.batches, surface.units)
    with pytest.raises(ParedownError, match=r"expected a loss with logits .* use the empirical Fisher or the Hessian"):
        gauss_newton(bare, layers)
    with pytest.raises(ParedownError, match="at least one draw of each sample, got 0"):
        gauss_newton(surface, layers, draws=0)
    with pytest.raises(ParedownError, match="at least one layer, got none"):
        gauss_newton(surface, [])
