"""Weights, and second moments of inputs that are correlated and of uneven size, as a layer's are."""

from __future__ import annotations

import pytest
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


DEGENERATE_WEIGHTS = (
    pytest.param(torch.zeros(3, 32), id="zeros"),
    pytest.param(torch.full((3, 32), 0.4), id="constant"),
    pytest.param(weights(3, 32).mul(1e-9), id="tiny"),
    pytest.param(weights(3, 32).to(torch.bfloat16), id="half"),
    pytest.param(weights(3, 32).mul(1e30), id="beyond float16"),
)
DEGENERATE_MOMENTS = (
    pytest.param(torch.zeros(32, 32), id="nothing seen"),
    pytest.param(torch.ones(32, 32), id="rank one"),
    pytest.param(moment_of(32, tokens=5), id="few tokens"),
    pytest.param(moment_of(32).mul(1e-60), id="tiny moment"),
    pytest.param(torch.diag(torch.tensor([1.0, 0.0] * 16)), id="dead inputs"),
)
"""What a method must answer with finite numbers."""
