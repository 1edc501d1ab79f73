import pytest
import torch

from paredown.curvature import InputMoment, input_moment
from surfaces import family, plain


def test_quadratic_forms_are_the_squared_error_of_the_outputs():
    surface, layers = plain(tokens=3)
    operator = input_moment(surface, layers[:1])
    change = torch.randn(layers[0].shape, dtype=torch.float64)
    inputs = torch.cat([batch.inputs["inputs"] for batch in surface.batches]).flatten(0, 1)
    expected = (inputs @ change.T).square().sum(1).mean()
    assert float(operator.quadratic_forms([change])[0]) == pytest.approx(float(expected), rel=1e-5)
    dense = torch.kron(torch.eye(layers[0].shape[0]), operator.moments[0])
    torch.testing.assert_close(operator.dense(), dense)
    assert operator.trace() == pytest.approx(float(dense.trace()), rel=1e-5)


@pytest.mark.parametrize("name", ["bert", "gpt2", "whisper"])
def test_padding_does_not_count_and_embeddings_have_shares(name):
    surface, layers = family(name, batches=2)
    operator = input_moment(surface, [layers[0], layers[-1]])
    for layer, moment in zip(operator.layers, operator.moments, strict=True):
        if layer.kind == "embedding" and moment.dim() == 1:
            assert float(moment.sum()) == pytest.approx(1, abs=1e-6)
            change = torch.randn(layer.shape)
            alone = InputMoment([layer], [moment])
            assert float(alone.quadratic_forms([change])[0]) == pytest.approx(float((change.square().sum(1) * moment).sum()), rel=1e-5)
    if name == "bert":
        batch = [b.inputs for b in surface.batches]
        real = torch.cat([inputs["input_ids"][inputs["attention_mask"].bool()] for inputs in batch])
        torch.testing.assert_close(operator.moments[0], torch.bincount(real, minlength=layers[0].shape[0]).float() / len(real))


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_moments_are_those_of_what_each_layer_reads(name):
    surface, layers = family(name, batches=2)
    dense = [layer for layer in layers if layer.kind != "embedding" and not layer.tied_to]
    read = {layer.name: [] for layer in dense}
    for layer in dense:
        module = surface.model.get_submodule(layer.name)
        module.register_forward_pre_hook(lambda module, arguments, seen=read[layer.name]: seen.append(arguments[0]))
    masks = []
    for batch in surface.batches:
        surface.losses(batch)
        masks.append(batch.inputs["attention_mask"].bool())
    moments = {name: list(seen) for name, seen in read.items()}
    found = input_moment(surface, layers)
    for layer, moment in zip(found.layers, found.moments, strict=True):
        if layer.name in moments:
            tokens = torch.cat([x[mask] if x.dim() == 3 else x for x, mask in zip(moments[layer.name], masks, strict=True)])
            torch.testing.assert_close(moment, (tokens.T @ tokens / len(tokens)).float(), rtol=1e-5, atol=1e-7)
