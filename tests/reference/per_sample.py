"""Slow and obvious: one sample at a time, gradients of the weights by autograd."""

import torch

from paredown.layers import weight_of


def gradients(model, layer, batch_inputs, objective, samples):
    """Gradient of each sample's share of the objective with respect to the layer's weight, [samples, out, in]."""
    parameter = next(p for name, p in model.named_parameters(remove_duplicate=False) if name == f"{layer.name}.weight")
    parameter.requires_grad_(True)
    rows = []
    for sample in range(samples):
        value = objective(model(**batch_inputs), sample)
        (gradient,) = torch.autograd.grad(value, parameter)
        rows.append(gradient.T if layer.kind == "conv1d" else gradient)
    parameter.requires_grad_(False)
    assert rows[0].shape == weight_of(model, layer).shape
    return torch.stack(rows)


def gauss_newton(jacobian, probabilities):
    """J^T (diag(p) - p p^T) J summed over units, from a dense Jacobian [units, classes, weights] and p [units, classes]."""
    total = torch.zeros(jacobian.shape[-1], jacobian.shape[-1], dtype=jacobian.dtype)
    for j, p in zip(jacobian, probabilities, strict=True):
        total += j.T @ (torch.diag(p) - torch.outer(p, p)) @ j
    return total
