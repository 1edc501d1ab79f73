from __future__ import annotations

import torch

from paredown.methods.block_influence import block_influence

x = torch.randn(30, 12, generator=torch.Generator().manual_seed(20))


def test_it_is_one_minus_the_cosine():
    y = x.roll(1, 0) + x
    torch.testing.assert_close(block_influence(x, y), 1 - torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=-1))


def test_what_only_scales_has_none_and_what_turns_round_has_two():
    assert block_influence(x, 3 * x).max() < 1e-12
    assert block_influence(x, -x).min() > 2 - 1e-12


def test_tokens_without_direction_are_counted_as_said():
    zero = torch.zeros(1, 12)
    assert block_influence(zero, zero).item() == 0
    assert block_influence(zero, x[:1]).item() == 1
