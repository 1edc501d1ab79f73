from __future__ import annotations

import pytest
import torch

from paredown.errors import ParedownError
from paredown.methods import channels, heads
from reference.attention import DIM, HEADS, KEY_HEADS, WIDTH, Weights, attention, inputs, mean_square, moment_of, noise


class TestHeads(Weights):
    x = inputs(width=HEADS * DIM, seed=14)
    moment = moment_of(x)

    def test_the_loss_of_a_head_is_that_of_removing_it_and_adapting_the_others(self):
        losses = heads.head_losses(self.output, self.moment, HEADS, damping=1e-12)
        for head in range(HEADS):
            others = torch.tensor([c for c in range(HEADS * DIM) if c // DIM != head])
            assert losses[head].item() == pytest.approx(channels.project(self.output, self.moment, others, damping=1e-12).error, rel=1e-5)

    def test_the_head_that_goes_first_is_the_cheapest(self):
        losses = heads.head_losses(self.output, self.moment, HEADS)
        kept = heads.keep_heads(self.output, self.moment, HEADS, HEADS - 1)
        assert set(range(HEADS)) - set(kept.kept.tolist()) == {int(losses.argmin())}
        error = self.x @ self.output.T - heads.take(self.x.T, kept.kept, HEADS).T @ kept.output.T
        assert mean_square(error) == pytest.approx(kept.error, rel=1e-4)

    @pytest.mark.parametrize("groups", [KEY_HEADS, HEADS], ids=["grouped", "one each"])
    def test_the_smaller_attention_is_the_masked_one(self, groups):
        x = inputs(40)
        key, value = (w if groups == KEY_HEADS else noise(HEADS * DIM, WIDTH, seed=15) / 4 for w in (self.key, self.value))
        kept = heads.keep_heads(self.output, self.moment, groups, groups - 1)
        query, small_key, small_value = (heads.take(w, kept.kept, groups) for w in (self.query, key, value))
        count = (groups - 1) * HEADS // groups
        small = attention(x, query, small_key, small_value, kept.output, count, groups - 1, DIM**-0.5)
        full = torch.zeros_like(self.output)
        full.unflatten(1, (groups, -1))[:, kept.kept] = kept.output.unflatten(1, (groups - 1, -1))
        masked = attention(x, self.query, key, value, full, HEADS, groups, DIM**-0.5)
        assert (small - masked).abs().max() < 1e-5

    def test_mistakes_are_explained(self):
        with pytest.raises(ParedownError, match="divides the 32 inputs"):
            heads.head_losses(self.output, self.moment, 5)
        with pytest.raises(ParedownError, match="keep 1 to 4 of 4 heads, got 0"):
            heads.keep_heads(self.output, self.moment, HEADS, 0)
        assert "identity" in heads.keep_heads(self.output, torch.zeros(32, 32), HEADS, 2).note
