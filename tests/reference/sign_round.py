"""SignRound by automatic differentiation, in float64: the straight-through estimator written as it is explained."""

from __future__ import annotations

import torch
from torch import Tensor


def through(value: Tensor, like: Tensor) -> Tensor:
    """The value of the first, the gradient of the second."""
    return like + (value - like).detach()


def half(scale: Tensor) -> Tensor:
    return through(scale.detach().half().to(scale.dtype), scale)


def loss_of(change: Tensor, moment: Tensor) -> Tensor:
    return ((change @ moment) * change).sum(1)


def sign_round(weight: Tensor, moment: Tensor, bits: int, group: int, start: Tensor, steps: int, symmetric: bool) -> Tensor:
    """The best weight of each row, [out, in]; ``start`` is the factor of each range, [out, groups, 1], negative where mirrored."""
    groups, top = weight.double().view(len(weight), -1, group), 2**bits - 1
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    offset, below, above = torch.zeros_like(groups), start.abs().double(), start.abs().double()
    best, least = torch.zeros_like(weight, dtype=torch.float64), torch.full((len(weight),), torch.inf, dtype=torch.float64)
    for step in range(steps + 1):
        for parameter in (offset, below, above):
            parameter.requires_grad_(True)
        if symmetric:
            scale = half(torch.maximum(-low, high) * above / (top / 2)) * start.sign()
            zero = torch.full_like(scale, 2 ** (bits - 1))
        else:
            scale = half((high * above - low * below) / top)
            exact = -low * below / scale
            zero = through(exact.round(), exact)
        exact = groups / scale + offset
        made = (scale * ((through(exact.round(), exact) + zero).clamp(0, top) - zero)).view_as(weight)
        loss = loss_of(made - weight, moment)
        better = loss < least
        best[better], least[better] = made.detach()[better], loss.detach()[better]
        slopes = torch.autograd.grad(loss.sum(), [offset, below, above], allow_unused=True)
        rate = (1 - step / steps) / steps
        offset, below, above = (
            parameter.detach() - rate * (0 if slope is None else slope.sign())
            for parameter, slope in zip((offset, below, above), slopes, strict=True)
        )
        offset, below, above = offset.clamp(-0.5, 0.5), below.clamp(1e-3, 1), above.clamp(1e-3, 1)
    return best
