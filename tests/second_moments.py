"""Weights, and second moments of inputs that are correlated and of uneven size, as a layer's are."""

from __future__ import annotations

import torch
from torch import Tensor


def moment_of(inputs: int, tokens: int = 400, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inputs, inputs, generator=generator, dtype=torch.float64) * torch.rand(inputs, generator=generator).exp()
    samples = torch.randn(tokens, inputs, generator=generator, dtype=torch.float64) @ mixing
    return samples.T @ samples / tokens


def weights(out: int, inputs: int, seed: int = 1) -> Tensor:
    return torch.randn(out, inputs, generator=torch.Generator().manual_seed(seed))


def damped(moment: Tensor, damping: float = 0.01) -> Tensor:
    return moment + damping * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
