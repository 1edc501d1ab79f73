"""What calibration sees of a layer with random inputs and gradients."""

from __future__ import annotations

import torch

from paredown.methods import Statistics
from paredown.methods.activations import static_range


def seen(out, inputs, *, tokens=9, seed=0, x=None, gradients=None):
    """The statistics of a layer whose inputs and output gradients [tokens, ...] are random; each token is a sample."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, inputs, generator=generator) if x is None else x
    g = torch.randn(len(x), out, generator=generator) if gradients is None else gradients
    return Statistics(
        x.T @ x / max(len(x), 1),
        len(x),
        lambda start, stop: torch.einsum("to,ti->toi", g[:, start:stop], x),
        lambda: g.T @ g / max(len(x), 1),
        lambda bits: static_range(x, bits),
    )
