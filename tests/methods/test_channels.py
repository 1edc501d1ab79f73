from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from paredown.errors import ParedownError
from paredown.methods import channels
from reference.attention import WIDTH, inputs, mean_square, moment_of, noise


class TestChannels:
    x, down = inputs(width=24), noise(10, 24, seed=4)
    moment = moment_of(x)

    @pytest.mark.parametrize("keep", [1, 9, 23])
    def test_leverage_is_its_formula(self, keep):
        ridge = torch.linalg.eigvalsh(self.moment)[: 24 - keep].sum() / keep
        expected = (self.moment @ torch.linalg.inv(self.moment + ridge * torch.eye(24, dtype=torch.float64))).diagonal()
        torch.testing.assert_close(channels.leverage(self.moment, keep), expected, rtol=1e-8, atol=1e-10)

    def test_a_moment_of_few_tokens_summed_in_single_precision_has_leverages(self):
        rows = 30 * inputs(6, width=24)
        found = channels.leverage(rows.T @ rows / 6, 12)  # rounding leaves it eigenvalues below zero
        assert ((found >= 0) & (found <= 1 + 1e-6)).all()
        assert found.sum().item() == pytest.approx(6, abs=0.1)

    def test_the_update_is_the_least_squares_fit(self):
        kept = torch.tensor([1, 2, 5, 8, 13, 20])
        pruned = channels.project(self.down, self.moment, kept, damping=1e-12)
        fit = torch.linalg.lstsq(self.x[:, kept].double(), (self.x @ self.down.T).double()).solution.T
        torch.testing.assert_close(pruned.weight, fit.float(), rtol=1e-4, atol=1e-5)
        select = torch.eye(24, dtype=torch.float64)[:, kept]
        nystroem = self.down.double() @ self.moment @ select @ torch.linalg.inv(select.T @ self.moment @ select)
        torch.testing.assert_close(pruned.weight, nystroem.float(), rtol=1e-4, atol=1e-5)

    @settings(deadline=None)
    @given(st.integers(1, 24), st.integers(0, 9), st.sampled_from([1e-12, 1e-4, 0.1, 10.0]), st.integers(2, 60))
    def test_it_is_never_worse_than_dropping_channels(self, keep, seed, damping, tokens):
        x = inputs(tokens, 24, seed)
        kept = torch.randperm(24, generator=torch.Generator().manual_seed(seed))[:keep].sort().values
        plain, updated = (channels.project(self.down, moment_of(x), kept, damping=d) for d in (float("inf"), damping))
        assert torch.equal(plain.weight, self.down[:, kept])
        assert updated.error <= plain.error * (1 + 1e-6) + 1e-6

    def test_the_expected_error_is_the_one_on_the_tokens(self):
        pruned = channels.keep_channels(self.down, self.moment, 15)
        error = self.x @ self.down.T - self.x[:, pruned.kept] @ pruned.weight.T
        assert mean_square(error) == pytest.approx(pruned.error, rel=1e-4)

    def test_all_channels_cost_nothing(self):
        pruned = channels.keep_channels(self.down, self.moment, 24)
        assert torch.equal(pruned.weight, self.down)
        assert pruned.error == 0

    def test_channels_that_others_repeat_go_first_and_nothing_is_lost(self):
        x = torch.cat([self.x[:, :12], self.x[:, :12] * 2], 1)
        pruned = channels.keep_channels(self.down, moment_of(x), 12)
        assert sorted(c % 12 for c in pruned.kept.tolist()) == list(range(12))
        assert pruned.error < 1e-3 * mean_square(x @ self.down.T)

    @pytest.mark.parametrize("gated", [False, True], ids=["gelu", "silu gate"])
    def test_the_smaller_mlp_is_the_masked_one(self, gated):
        x, up, gate, bias = (t.double() for t in (inputs(), noise(24, WIDTH, seed=6), noise(24, WIDTH, seed=7), noise(24, seed=8)))

        def hidden(up, gate, bias):
            if gated:
                return functional.silu(x @ gate.T) * (x @ up.T + bias)
            return functional.gelu(x @ up.T + bias)

        h = hidden(up, gate, bias)
        pruned = channels.keep_channels(self.down, moment_of(h), 14)
        small = hidden(up[pruned.kept], gate[pruned.kept], bias[pruned.kept]) @ pruned.weight.double().T
        mask, full = torch.zeros(24), self.down.double() * 0
        mask[pruned.kept], full[:, pruned.kept] = 1, pruned.weight.double()
        masked = hidden(up * mask[:, None], gate * mask[:, None], bias * mask) @ full.T
        assert (small - masked).abs().max() < 1e-5
        drop = h[:, pruned.kept] @ self.down[:, pruned.kept].double().T
        target = h @ self.down.double().T
        assert mean_square(small - target) < mean_square(drop - target)

    def test_odd_moments_give_finite_answers(self):
        dead = self.moment.clone()
        dead[:, :3], dead[:3] = 0, 0
        assert channels.keep_channels(self.down, dead, 21).kept.tolist() == list(range(3, 24))
        few = inputs(3, 24)
        for moment in (dead, moment_of(few), torch.zeros(24, 24)):
            pruned = channels.keep_channels(self.down, moment, 12)
            assert torch.isfinite(pruned.weight).all()
        assert "taken as the identity" in pruned.note
        with pytest.raises(ParedownError, match="keep 1 to 24 of 24 channels, got 25"):
            channels.leverage(self.moment, 25)
