"""Slow and obvious, in float64: dense Jacobians of the logits by loops over classes, and the matrices that are made of them."""

import torch

from paredown.layers import weight_of


def parameter_of(model, layer):
    return next(p for name, p in model.named_parameters(remove_duplicate=False) if name == f"{layer.name}.weight")


def weight_gradients(model, layers, values):
    """Gradients of some scalars, [values, n]; [out, in] of every layer flattened, layer after layer."""
    parameters = [parameter_of(model, layer) for layer in layers]
    rows = []
    for i in range(len(values)):
        found = torch.autograd.grad(values[i], parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        found = [g.T if layer.kind == "conv1d" else g for g, layer in zip(found, layers, strict=True)]
        assert [g.shape for g in found] == [weight_of(model, layer).shape for layer in layers]
        rows.append(torch.cat([g.reshape(-1) for g in found]))
    return torch.stack(rows)


def jacobians(surface, layers):
    """Jacobian of the logits of every counted unit [units, classes, n], and the softmax [units, classes], all batches."""
    parameters = [parameter_of(surface.model, layer).requires_grad_(True) for layer in layers]
    blocks, probabilities = [], []
    for batch in surface.batches:
        logits = surface.logits(batch).logits
        blocks.append(weight_gradients(surface.model, layers, logits.flatten()).reshape(*logits.shape, -1))
        probabilities.append(logits.detach().softmax(-1))
    for parameter in parameters:
        parameter.requires_grad_(False)
    return torch.cat(blocks), torch.cat(probabilities)


def sample_gradients(surface, layers, scalars):
    """Gradient of one scalar per sample, [samples, n]; `scalars` maps a batch to [samples]."""
    parameters = [parameter_of(surface.model, layer).requires_grad_(True) for layer in layers]
    rows = torch.cat([weight_gradients(surface.model, layers, scalars(batch)) for batch in surface.batches])
    for parameter in parameters:
        parameter.requires_grad_(False)
    return rows
