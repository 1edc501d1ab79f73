"""Small loss surfaces in float64: every family of `tiny_models` with a softmax on its output, and a plain network."""

import dataclasses
import itertools

import torch
from torch import nn

from paredown.curvature.surface import LossSurface
from paredown.layers import find_layers
from paredown.tasks import Batch, Predictions
from tiny_models import CASES


def logits_of(output):
    return next(value for value in (output.get("logits"), output.get("last_hidden_state")) if value is not None)


def family(name, classes=5, batches=1):
    """The family's model on its own two samples; the first classes are the logits, real tokens alone are counted; and its layers."""
    case = CASES[name]
    model = case.build().double().eval().requires_grad_(False)
    inputs = {key: value.double() if value.is_floating_point() else value for key, value in case.inputs().items()}

    def predict(batch):
        logits = logits_of(model(**batch.inputs))[..., :classes] * 3  # far enough from uniform
        samples = torch.arange(len(batch.ids))
        if logits.dim() == 2:
            return Predictions(logits, batch.targets[:, 0], samples)
        mask = batch.inputs.get("attention_mask")
        if mask is None or mask.shape != logits.shape[:2]:
            mask = torch.ones(logits.shape[:2])
        real = mask.bool()
        return Predictions(logits[real], batch.targets[:, : logits.shape[1]][real], samples[:, None].expand_as(real)[real])

    def loss(batch):
        found = predict(batch)
        each = nn.functional.cross_entropy(found.logits, found.targets, reduction="none")
        return each.new_zeros(len(batch.ids)).index_add(0, found.sample, each)

    targets = torch.randint(0, 2, (2, 100), generator=torch.Generator().manual_seed(4))
    whole = Batch(inputs, targets, (0, 1))
    with torch.no_grad():
        units = predict(whole).sample.bincount()
    cut = [whole]
    if batches == 2:
        cut = [Batch({k: v[i : i + 1] for k, v in inputs.items()}, targets[i : i + 1], (i,)) for i in range(2)]
    return LossSurface(model, loss, cut, units, predict), find_layers(model)


class Plain(nn.Module):
    """Linear layers over [samples, tokens, in], and the mean over the tokens."""

    def __init__(self, *sizes, activation=nn.Tanh, bias=True):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(sizes))
        self.activation = activation()

    def forward(self, inputs):
        for layer in self.layers[:-1]:
            inputs = self.activation(layer(inputs))
        return self.layers[-1](inputs).mean(1)


def plain(sizes=(4, 5, 3), samples=6, tokens=1, seed=0, batch_size=4, activation=nn.Tanh, bias=True):
    """A classifier with random weights, labels and inputs; and its layers, the last one too."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Plain(*sizes, activation=activation, bias=bias).double().eval().requires_grad_(False)
        inputs, targets = torch.randn(samples, tokens, sizes[0], dtype=torch.float64), torch.randint(0, sizes[-1], (samples,))

    def predict(batch):
        return Predictions(model(batch.inputs["inputs"]), batch.targets, torch.arange(len(batch.ids)))

    def loss(batch):
        return nn.functional.cross_entropy(predict(batch).logits, batch.targets, reduction="none")

    batches = [
        Batch({"inputs": inputs[i : i + batch_size]}, targets[i : i + batch_size], tuple(range(i, min(i + batch_size, samples))))
        for i in range(0, samples, batch_size)
    ]
    layers = [dataclasses.replace(layer, role="other") for layer in find_layers(nn.Sequential(model))]
    layers = [dataclasses.replace(layer, name=layer.name.removeprefix("0.")) for layer in layers]
    return LossSurface(model, loss, batches, torch.ones(samples, dtype=torch.long), predict), layers
