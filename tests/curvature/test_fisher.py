import pytest
import torch

from paredown.curvature import empirical_fisher, fisher, gauss_newton
from paredown.curvature.fisher import _label_gradient
from paredown.curvature.probes import generator_for
from paredown.errors import ParedownError
from reference.curvature import sample_gradients
from surfaces import family, plain


def outer(rows, units):
    return rows.T @ rows / units


@pytest.mark.parametrize("tokens", [1, 3])
def test_the_empirical_fisher_is_that_of_autograd_gradients(tokens):
    surface, layers = plain(tokens=tokens)
    rows = sample_gradients(surface, layers, surface.loss)
    torch.testing.assert_close(empirical_fisher(surface, layers).dense(), outer(rows, surface.total_units))


@pytest.mark.parametrize("name", ["gpt2", "bert", "t5"])
def test_with_several_units_a_sample_its_loss_is_summed_first(name):
    surface, layers = family(name, batches=2)
    some = [layers[0], layers[-1]]
    rows = sample_gradients(surface, some, surface.loss)
    vectors = torch.randn(rows.shape[1], 2, dtype=torch.float64)
    torch.testing.assert_close(empirical_fisher(surface, some) @ vectors, rows.T @ (rows @ vectors) / surface.total_units)


def test_sampled_labels_give_the_gradients_of_their_cross_entropy():
    surface, layers = plain()

    def with_labels(draw):
        def losses(batch):
            logits = surface.logits(batch).logits
            gradient = _label_gradient(logits, generator_for(5, "fisher", (draw, *batch.ids)))
            labels = (logits.detach().softmax(-1) - gradient).argmax(-1)  # the one-hot vector that was taken away
            return torch.nn.functional.cross_entropy(logits, labels, reduction="none")

        return losses

    expected = sum(outer(sample_gradients(surface, layers, with_labels(draw)), surface.total_units) for draw in range(2)) / 2
    torch.testing.assert_close(fisher(surface, layers, draws=2, seed=5).dense(), expected)


def test_the_mean_over_labels_is_the_gauss_newton_matrix():
    surface, layers = plain((3, 4, 3), tokens=2)
    exact = gauss_newton(surface, layers[:1]).dense()
    draws = torch.stack([fisher(surface, layers[:1], seed=seed).dense() for seed in range(200)])
    error = draws.std(0) / 200**0.5
    assert ((draws.mean(0) - exact).abs() <= 5 * error + 1e-12).all()


def test_logits_and_draws_are_needed():
    surface, layers = plain()
    with pytest.raises(ParedownError, match="to sample labels from"):
        fisher(type(surface)(surface.model, surface.loss, surface.batches, surface.units), layers)
    with pytest.raises(ParedownError, match="at least one draw"):
        fisher(surface, layers, draws=0)
