"""M-FAC's static recursion as the paper writes it, one gradient after the other (float64 in, float64 out)."""

import torch


def static(gradients, damping):
    """H [m, d] and d [m] of gradients [m, d]."""
    count = len(gradients)
    rows, pivots = [], []
    for gradient in gradients:
        row = gradient / damping
        for earlier, pivot in zip(rows, pivots, strict=True):
            row = row - earlier * (earlier @ gradient) / pivot
        rows.append(row)
        pivots.append(count + gradient @ row)
    return torch.stack(rows), torch.stack(pivots)


def fisher(gradients, damping):
    """The dense damped Fisher [d, d]."""
    return gradients.T @ gradients / len(gradients) + damping * torch.eye(gradients.shape[1], dtype=gradients.dtype)


def brain_surgeon(weights, matrix, pruned):
    """The weights [d] after pruning a set, by the constrained minimum with Lagrange multipliers, and the loss increase."""
    inverse = torch.linalg.inv(matrix)
    multipliers = torch.linalg.solve(inverse[pruned][:, pruned], weights[pruned])
    change = -inverse[:, pruned] @ multipliers
    return weights + change, 0.5 * change @ matrix @ change
