"""Tiny attentions and what goes into them."""

import torch

HEADS, KEY_HEADS, DIM, WIDTH = 4, 2, 8, 20


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(tokens=300, width=WIDTH, seed=1):
    """Correlated activations with means, [tokens, width]."""
    return noise(tokens, width, seed=seed) @ noise(width, width, seed=seed + 1) / width**0.5 + noise(width, seed=seed + 2)


def moment_of(x):
    return x.T.double() @ x.double() / len(x)


def mean_square(error):
    return error.double().square().sum(-1).mean().item()


class Weights:
    query, key = noise(HEADS * DIM, WIDTH, seed=10) / 4, noise(KEY_HEADS * DIM, WIDTH, seed=11) / 4
    value, output = noise(KEY_HEADS * DIM, WIDTH, seed=12) / 4, noise(WIDTH, HEADS * DIM, seed=13)


def attention(x, query, key, value, output, count, groups, scale, bias=None):
    """Plain attention over all tokens with grouped queries, in float64, [tokens, out]."""
    x, query, key, value, output = (t.double() for t in (x, query, key, value, output))

    def split(weight, number):
        return (x @ weight.T).unflatten(1, (number, -1)).transpose(0, 1)

    q, k, v = split(query, count), split(key, groups), split(value, groups)
    if bias is not None:
        v = v + bias.unflatten(0, (groups, 1, -1))
    k, v = (t.repeat_interleave(count // groups, 0) for t in (k, v))
    return ((q @ k.mT * scale).softmax(-1) @ v).transpose(0, 1).flatten(1) @ output.T


def rotate(heads_by_token, frequencies):
    """Rotary embedding of [heads, tokens, dimension], dimension i with i + dimension / 2."""
    angles = torch.arange(heads_by_token.shape[1])[:, None] * frequencies
    first, second = heads_by_token.chunk(2, -1)
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)
