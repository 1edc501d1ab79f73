import pytest
import torch

from paredown.curvature.double_backward import Graphs
from paredown.curvature.hessian import Hessian
from paredown.curvature.output_space import HessianBlock, HessianBlocks
from paredown.errors import ParedownError
from paredown.layers import find_layers
from reference.hessian import entries, network, surface_of
from tiny_models import CASES

ROUNDED = {"llama", "qwen2", "qwen3", "mistral", "t5", "vit"}
"""Families whose norms or softmax compute in float32 even in a float64 model, so that the order of operations shows."""


@pytest.fixture(scope="module", params=CASES, ids=list(CASES))
def family(request):
    surface = surface_of(request.param)
    layers = find_layers(surface.model)
    generator = torch.Generator().manual_seed(5)
    places = []
    for layer in layers:
        at = torch.randint(0, layer.parameters, (2,), generator=generator)
        if layer.kind == "embedding":  # of a row that is looked up, where it is one of tokens
            row = int(surface.batches[0].inputs.get("input_ids", torch.zeros(1, 2, dtype=torch.long))[0, 1]) % layer.shape[0]
            at[0] = row * layer.shape[1] + 1
        places.append(at)
    dense = entries(surface, layers, places)
    share = 1e-6 if request.param in ROUNDED else 1e-9
    return surface, layers, places, dense, {"rtol": share, "atol": share * float(dense.abs().max())}


def unit_vectors(layers, places):
    starts = torch.tensor([0, *[layer.parameters for layer in layers]]).cumsum(0)
    at = torch.cat([start + place for start, place in zip(starts, places, strict=False)])
    return at, torch.zeros(int(starts[-1]), len(at), dtype=torch.float64).index_put((at, torch.arange(len(at))), torch.tensor(1.0).double())


def test_the_joint_product_is_that_of_the_dense_hessian_for_every_family(family):
    surface, layers, places, dense, close = family
    at, columns = unit_vectors(layers, places)
    found = (Hessian(surface, layers) @ columns)[at]
    assert dense.abs().max() > 1e-4
    torch.testing.assert_close(found, dense, **close)
    assert not any(parameter.requires_grad for parameter in surface.model.parameters())


def test_each_block_is_that_of_the_dense_hessian_for_every_family(family):
    surface, layers, places, dense, close = family
    for index, (layer, at) in enumerate(zip(layers, places, strict=True)):
        _, columns = unit_vectors([layer], [at])
        expected = dense[2 * index : 2 * index + 2, 2 * index : 2 * index + 2]
        found = (HessianBlock(surface, layer) @ columns)[at]
        torch.testing.assert_close(found, expected, **close, msg=lambda text, name=layer.name: f"{name}: {text}")


def whole(surface, layers):
    return entries(surface, layers, [torch.arange(layer.parameters) for layer in layers])


def test_operators_are_the_whole_dense_matrix_of_a_network():
    surface = network()
    layers = find_layers(surface.model, exclude=[])
    dense = whole(surface, layers)
    torch.testing.assert_close(Hessian(surface, layers).dense(), dense, rtol=1e-10, atol=1e-12)
    first = layers[0].parameters
    torch.testing.assert_close(HessianBlock(surface, layers[0]).dense(), dense[:first, :first], rtol=1e-10, atol=1e-12)


def test_a_memory_limit_changes_pieces_and_not_the_answer(monkeypatch):
    surface = network()
    layers = find_layers(surface.model)
    for operator in (Hessian, lambda s, ls, limit_bytes: HessianBlock(s, ls[0], limit_bytes)):
        free, tight = operator(surface, layers, limit_bytes=10**9), operator(surface, layers, limit_bytes=1)
        v = torch.randn(free.dimension, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        torch.testing.assert_close(tight @ v, free @ v, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["bert", "gpt2"])
@pytest.mark.parametrize("limit_bytes", [10**9, 1])
def test_blocks_that_share_a_graph_are_those_that_do_not(name, limit_bytes):
    surface = surface_of(name)
    layers = find_layers(surface.model)[::3]  # the first of gpt2 is tied to the head
    blocks = HessianBlocks(surface, layers, limit_bytes)
    for layer, block in zip(layers, blocks, strict=True):
        v = torch.randn(layer.parameters, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        torch.testing.assert_close(block @ v, HessianBlock(surface, layer) @ v, rtol=1e-10, atol=1e-14)
    assert blocks[layers[1]].layers == (layers[1],)


def test_graphs_are_kept_as_far_as_they_fit():
    surface = network()
    built = []

    def build(batch):
        built.append(batch.ids)
        x = batch.inputs["x"].clone().requires_grad_()
        return x.square().sum()  # keeps x: 3 x 4 numbers a sample

    graphs = Graphs(surface, build, limit_bytes=6 * 96)
    list(graphs), list(graphs)
    assert built == [(0,), (0, 1, 2), (3, 4, 5)]  # one to measure with; both batches kept
    built.clear()
    graphs = Graphs(surface, build, limit_bytes=4 * 96)
    list(graphs), list(graphs)
    assert built == [(0,), (0, 1), (2,), (3, 4), (5,), (2,), (3, 4), (5,)]


def test_a_network_without_curvature_gives_zero():
    surface = network()
    linear = surface.model[0][2]
    flat = type(surface)(
        linear, lambda b: linear(torch.tanh(b.inputs["x"] @ torch.ones(4, 5).double())).sum((1, 2)), surface.batches, surface.units
    )
    layer = find_layers(torch.nn.Sequential(linear))[0]
    flat = type(surface)(torch.nn.Sequential(linear).eval(), flat.loss, flat.batches, flat.units)
    for operator in (Hessian(flat, [layer]), HessianBlock(flat, layer)):
        assert (operator @ torch.ones(operator.dimension)).abs().max() == 0


def test_a_product_of_the_wrong_length_is_refused():
    surface = network()
    layer = find_layers(surface.model)[0]
    with pytest.raises(ParedownError, match=r"expected a vector \[20\]"):
        HessianBlock(surface, layer) @ torch.ones(3)
