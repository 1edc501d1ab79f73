"""Dense second derivatives by torch.func, at some of the weights, and small surfaces to take them on."""

import torch
from torch import nn

from paredown.curvature.surface import LossSurface
from paredown.tasks import Batch, Predictions
from tiny_models import CASES


def surface_of(name, samples=None):
    """Cross-entropy of random labels, summed over the real tokens, on a tiny model in float64 with eager attention."""
    case = CASES[name]
    model = case.build().double().eval().requires_grad_(False)
    model.set_attn_implementation("eager")
    inputs = {key: value.double() if value.is_floating_point() else value for key, value in case.inputs().items()}
    count = len(next(iter(inputs.values())))

    def logits(batch):
        output = model(**batch.inputs)
        return next(value for value in (output.get("logits"), output.get("last_hidden_state")) if value is not None)

    batch = Batch(inputs, None, tuple(range(count)))
    with torch.no_grad():
        shape = logits(batch).shape
    labels = torch.randint(0, shape[-1], shape[:-1], generator=torch.Generator().manual_seed(4))
    mask = inputs.get("attention_mask")
    if mask is not None and labels.shape == mask.shape:
        labels = labels.masked_fill(mask == 0, -100)
    batch = Batch(inputs, labels, batch.ids)

    def loss(batch):
        each = nn.functional.cross_entropy(logits(batch).flatten(0, -2), batch.targets.flatten(), reduction="none")
        return each.reshape(len(batch.ids), -1).sum(1)

    def predictions(batch):
        real = batch.targets != -100
        rows = torch.arange(len(batch.ids)).reshape(-1, *[1] * (real.dim() - 1)).expand_as(real)
        return Predictions(logits(batch)[real], batch.targets[real], rows[real])

    return LossSurface(model, loss, [batch], (labels != -100).reshape(count, -1).sum(1), predictions)


def entries(surface, layers, places):
    """The Hessian of the mean loss at some weights of all layers: `places` has flat [out, in] indices per layer; [n, n]."""
    originals = dict(surface.model.named_parameters())
    names = [next(n for n, _ in surface.model.named_parameters() if n == f"{layer.name}.weight") for layer in layers]

    def value(changes):
        replaced = {}
        for layer, name, at, change in zip(layers, names, places, changes, strict=True):
            weight = originals[name]
            weight = weight.T if layer.kind == "conv1d" else weight
            moved = weight.reshape(-1).index_add(0, at, change).reshape(weight.shape)
            replaced[name] = moved.T if layer.kind == "conv1d" else moved
        wrapper = _Loss(surface)
        total = torch.func.functional_call(wrapper, {f"model.{name}": tensor for name, tensor in replaced.items()}, ())
        return total / surface.total_units

    zeros = [torch.zeros(len(at), dtype=torch.float64) for at in places]
    sizes = [len(at) for at in places]
    flat = torch.cat(zeros)
    # reverse over reverse: the forward mode of torch.func.hessian warns that torch.jit is deprecated
    return torch.func.jacrev(torch.func.jacrev(lambda change: value(change.split(sizes))))(flat)


class _Loss(nn.Module):
    def __init__(self, surface):
        super().__init__()
        self.model, self.surface = surface.model, surface

    def forward(self):
        return sum(self.surface.loss(batch).sum() for batch in self.surface.batches)


def network(outputs=2, samples=6, tokens=3, seed=0):
    """Two dense layers over tokens, mean pooling and a softmax: small enough for whole Hessians."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs)).double().eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    wrapped = nn.Sequential(model).eval()
    x = torch.randn(samples, tokens, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, outputs, (samples,), generator=generator)
    half = samples // 2
    batches = [Batch({"x": x[rows]}, labels[rows], tuple(range(samples))[rows]) for rows in (slice(0, half), slice(half, None))]

    def logits(batch):
        return wrapped(batch.inputs["x"]).mean(1)

    def predictions(batch):
        return Predictions(logits(batch), batch.targets, torch.arange(len(batch.ids)))

    def loss(batch):
        return nn.functional.cross_entropy(logits(batch), batch.targets, reduction="none")

    return LossSurface(wrapped, loss, batches, torch.ones(samples), predictions)
