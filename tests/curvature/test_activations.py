import dataclasses

import pytest
import torch

from paredown.curvature.activations import activation_curvature
from paredown.errors import ParedownError
from paredown.layers import find_layers
from reference.hessian import network, surface_of


def dense(surface, matrix):
    """Diagonals of the second derivative in the outputs of both layers of the network, summed over samples and tokens, [out] each."""
    first, _, last = surface.model[0]
    totals = [torch.zeros(5).double(), torch.zeros(surface.model[0][2].out_features).double()]
    for batch in surface.batches:
        for x, label in zip(batch.inputs["x"], batch.targets, strict=True):
            hidden = first(x)
            heads = (lambda z: last(torch.tanh(z)).mean(0), lambda z: z.mean(0))
            for index, (head, z) in enumerate(zip(heads, (hidden, last(torch.tanh(hidden))), strict=True)):
                if matrix == "ggn":
                    j = torch.func.jacrev(head)(z).flatten(1)
                    p = head(z).softmax(-1)
                    diagonal = (j.T @ (torch.diag(p) - torch.outer(p, p)) @ j).diagonal()
                else:
                    loss = lambda z, head=head, label=label: torch.nn.functional.cross_entropy(head(z), label)  # noqa: E731
                    diagonal = torch.func.jacrev(torch.func.jacrev(loss))(z).reshape(z.numel(), -1).diagonal()
                totals[index] += diagonal.reshape(z.shape).sum(0) / surface.total_units
    return totals


@pytest.mark.parametrize("matrix", ["ggn", "hessian"])
def test_traces_and_channels_are_those_of_the_dense_matrix(matrix):
    surface = network(3)
    layers = find_layers(surface.model)
    for found, expected in zip(
        activation_curvature(surface, layers, matrix=matrix, seed=0, probes=400), dense(surface, matrix), strict=True
    ):
        assert abs(found.trace.value - float(expected.sum())) < 4 * found.trace.probe_sd + 1e-12
        torch.testing.assert_close(found.channels, expected, rtol=0, atol=0.1 * float(expected.abs().max()))
        assert float(found.channels.sum()) == pytest.approx(found.trace.value, rel=1e-9)
        assert found.trace.data_sd > 0


def test_two_classes_make_one_gauss_newton_probe_exact():
    surface = network(2)
    for found, expected in zip(activation_curvature(surface, find_layers(surface.model), seed=0), dense(surface, "ggn"), strict=True):
        torch.testing.assert_close(found.channels, expected)
        assert found.trace.probe_sd is None


@pytest.mark.parametrize("name", ["bert", "gpt2", "whisper"])
@pytest.mark.parametrize("matrix", ["ggn", "hessian"])
def test_every_layer_of_a_real_family_has_channels(name, matrix):
    surface = surface_of(name)
    layers = find_layers(surface.model)
    for layer, found in zip(layers, activation_curvature(surface, layers, matrix=matrix, seed=0), strict=True):
        assert found.trace.layer == layer.name
        assert len(found.channels) == layer.shape[layer.kind == "embedding"]
        assert found.channels.isfinite().all()
        assert found.channels.any() == (found.trace.value != 0)


def test_memory_changes_pieces_and_bad_questions_are_refused():
    surface = network(3)
    layers = find_layers(surface.model)
    (tight, _) = activation_curvature(surface, layers, matrix="hessian", seed=0, probes=40, limit_bytes=1)
    (free, _) = activation_curvature(surface, layers, matrix="hessian", seed=0, probes=40)
    assert abs(tight.trace.value - free.trace.value) < 4 * (tight.trace.probe_sd**2 + free.trace.probe_sd**2) ** 0.5
    with pytest.raises(ParedownError, match="at least one probe of each sample, got 0"):
        activation_curvature(surface, layers, seed=0, probes=0)
    with pytest.raises(ParedownError, match="got one without; ask for matrix='hessian'"):
        activation_curvature(dataclasses.replace(surface, logits=None), layers, seed=0)
