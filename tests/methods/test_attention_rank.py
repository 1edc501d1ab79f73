from __future__ import annotations

import pytest
import torch

from paredown.errors import ParedownError
from paredown.methods import attention_rank
from reference.attention import DIM, HEADS, KEY_HEADS, WIDTH, Weights, attention, inputs, moment_of, noise, rotate


class TestQueriesAndKeys(Weights):
    x = inputs(50)
    moment = moment_of(x)

    def squares(self, weight):
        return attention_rank.mean_squares(weight, self.moment)

    def test_mean_squares_are_those_of_the_tokens_with_or_without_bias(self):
        bias = noise(len(self.query), seed=16)
        torch.testing.assert_close(self.squares(self.query), (self.x @ self.query.T).double().square().mean(0), rtol=1e-5, atol=1e-7)
        with_bias = attention_rank.mean_squares(self.query, self.moment, bias, self.x.mean(0))
        torch.testing.assert_close(with_bias, (self.x @ self.query.T + bias).double().square().mean(0), rtol=1e-5, atol=1e-6)
        with pytest.raises(ParedownError, match="mean of the inputs beside the bias"):
            attention_rank.mean_squares(self.query, self.moment, bias)

    def test_the_score_is_the_product_of_columns_of_both_roots(self):
        # MoDeGPT's ‖C_q^{1/2}[:, i]‖ ‖C_k^{1/2}[:, i]‖, summed over the queries that share a key
        scores = attention_rank.query_key_scores(self.squares(self.query), self.squares(self.key), KEY_HEADS, rotary=False)

        def columns(weight, number):
            per_head = weight.double().unflatten(0, (number, -1))
            values, vectors = torch.linalg.eigh(per_head @ self.moment @ per_head.mT)
            return (vectors * values.clamp(min=0).sqrt()[:, None] @ vectors.mT).norm(dim=1)

        q, k = columns(self.query, HEADS), columns(self.key, KEY_HEADS)
        torch.testing.assert_close(scores, (q.unflatten(0, (KEY_HEADS, -1)) * k[:, None]).sum(1))

    def test_one_dimension_costs_the_scores_its_own_score_and_several_no_more_than_their_sum(self):
        q, k = self.x @ self.query[:DIM].T, self.x @ self.key[:DIM].T
        scores = attention_rank.query_key_scores(self.squares(self.query[:DIM]), self.squares(self.key[:DIM]), 1, rotary=False)[0]
        for dimension in range(DIM):
            term = torch.outer(q[:, dimension], k[:, dimension])
            assert term.norm().item() / len(q) == pytest.approx(scores[dimension].item(), rel=1e-4)
        gone = torch.tensor([0, 3, 6])
        assert (q[:, gone] @ k[:, gone].T).norm() / len(q) <= scores[gone].sum() * (1 + 1e-5)

    def test_a_rotated_pair_costs_no_more_than_its_score(self):
        scores = attention_rank.query_key_scores(self.squares(self.query[:DIM]), self.squares(self.key[:DIM]), 1, rotary=True)[0]
        frequencies = torch.linspace(1, 0.01, DIM // 2)
        q, k = (rotate((self.x @ weight[:DIM].T)[None], frequencies)[0] for weight in (self.query, self.key))
        for pair in range(DIM // 2):
            both = [pair, pair + DIM // 2]
            assert (q[:, both] @ k[:, both].T).norm() / len(q) <= scores[pair] * (1 + 1e-5)

    @pytest.mark.parametrize("rotary", [False, True])
    def test_the_smaller_attention_is_the_masked_one(self, rotary):
        scores = attention_rank.query_key_scores(self.squares(self.query), self.squares(self.key), KEY_HEADS, rotary=rotary)
        kept = attention_rank.keep_dimensions(scores, 6, rotary=rotary)
        query, key = attention_rank.take(self.query, kept, HEADS), attention_rank.take(self.key, kept, KEY_HEADS)
        assert query.shape == (HEADS * 6, WIDTH)
        mask = torch.zeros(KEY_HEADS, DIM).scatter_(1, kept, 1)
        masks = mask.repeat_interleave(HEADS // KEY_HEADS, 0).flatten(), mask.flatten()
        frequencies = torch.linspace(1, 0.01, DIM // 2)

        def products(query, key, chosen):
            q = (self.x @ query.T).unflatten(1, (HEADS, -1)).transpose(0, 1)
            k = (self.x @ key.T).unflatten(1, (KEY_HEADS, -1)).transpose(0, 1)
            if rotary:
                q = torch.cat([rotate(q[h : h + 1], frequencies[chosen[h // 2]]) for h in range(HEADS)])
                k = torch.cat([rotate(k[h : h + 1], frequencies[chosen[h]]) for h in range(KEY_HEADS)])
            return q @ k.repeat_interleave(HEADS // KEY_HEADS, 0).mT

        small = products(query, key, kept[:, :3])
        everything = torch.arange(DIM // 2).expand(KEY_HEADS, -1)
        masked = products(self.query * masks[0][:, None], self.key * masks[1][:, None], everything)
        assert (small - masked).abs().max() < 1e-4 * masked.abs().max()
        assert attention_rank.take(noise(HEADS * DIM), kept, HEADS).shape == (HEADS * 6,)

    def test_mistakes_are_explained(self):
        scores = torch.ones(2, 4)
        with pytest.raises(ParedownError, match="2 to 8 dimensions of a head, in pairs, got 5"):
            attention_rank.keep_dimensions(scores, 5, rotary=True)
        with pytest.raises(ParedownError, match="1 to 4 dimensions of a head, got 5"):
            attention_rank.keep_dimensions(scores, 5, rotary=False)


class TestValuesAndOutput(Weights):
    x = inputs(60)
    moment = moment_of(x)

    def products(self, value, output, groups):
        """W_O W_V of each key-value head, its query heads stacked: [groups, shared × out, in]."""
        values = value.double().unflatten(0, (groups, -1))
        outputs = output.double().unflatten(1, (groups, HEADS // groups, -1)).permute(1, 2, 0, 3).flatten(1, 2)
        return outputs @ values

    @pytest.mark.parametrize("groups", [KEY_HEADS, HEADS], ids=["grouped", "one each"])
    @pytest.mark.parametrize("rank", [1, 5, DIM])
    def test_two_small_decompositions_are_the_large_one(self, groups, rank):
        value = self.value if groups == KEY_HEADS else noise(HEADS * DIM, WIDTH, seed=17) / 4
        found = attention_rank.value_output(value, self.output, self.moment, groups, rank)
        before, after = self.products(value, self.output, groups), self.products(found.value, found.output, groups)
        root = torch.linalg.cholesky(self.moment)
        left, values, _ = torch.linalg.svd(before @ root, full_matrices=False)
        torch.testing.assert_close(found.singular_values, values[:, :DIM], rtol=1e-5, atol=1e-6)
        best = left[..., :rank] @ left[..., :rank].mT @ before
        torch.testing.assert_close(after, best, rtol=1e-4, atol=1e-4)
        error = ((before - after) @ root).square().sum((1, 2))
        torch.testing.assert_close(error, values[:, rank:].square().sum(1), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("with_bias", [False, True])
    def test_at_full_rank_the_attention_is_unchanged(self, with_bias):
        bias = noise(KEY_HEADS * DIM, seed=18) if with_bias else None
        found = attention_rank.value_output(self.value, self.output, self.moment, KEY_HEADS, DIM, value_bias=bias)
        before = attention(self.x, self.query, self.key, self.value, self.output, HEADS, KEY_HEADS, DIM**-0.5, bias)
        after = attention(self.x, self.query, self.key, found.value, found.output, HEADS, KEY_HEADS, DIM**-0.5) + found.bias
        assert (before - after).abs().max() < 1e-4 * before.abs().max()

    def test_the_smaller_attention_is_the_one_with_factored_products(self):
        bias = noise(KEY_HEADS * DIM, seed=19)
        found = attention_rank.value_output(self.value, self.output, self.moment, KEY_HEADS, 5, value_bias=bias)
        assert found.value.shape == (KEY_HEADS * 5, WIDTH)
        small = attention(self.x, self.query, self.key, found.value, found.output, HEADS, KEY_HEADS, DIM**-0.5) + found.bias
        value, output = torch.zeros_like(self.value), torch.zeros_like(self.output)
        value.unflatten(0, (KEY_HEADS, -1))[:, :5] = found.value.unflatten(0, (KEY_HEADS, -1))
        output.unflatten(1, (HEADS, -1))[..., :5] = found.output.unflatten(1, (HEADS, -1))
        full = attention(self.x, self.query, self.key, value, output, HEADS, KEY_HEADS, DIM**-0.5) + found.bias
        assert (small - full).abs().max() < 1e-5

    def test_it_beats_dropping_dimensions(self):
        found = attention_rank.value_output(self.value, self.output, self.moment, KEY_HEADS, 4)
        values = self.value.unflatten(0, (KEY_HEADS, -1)).clone()
        values[:, 4:] = 0
        root = torch.linalg.cholesky(self.moment)
        before = self.products(self.value, self.output, KEY_HEADS)
        errors = [
            ((before - self.products(v, o, KEY_HEADS)) @ root).square().sum()
            for v, o in ((found.value, found.output), (values.flatten(0, 1), self.output))
        ]
        assert errors[0] < errors[1]

    def test_odd_input_gives_finite_answers_and_mistakes_are_explained(self):
        for value, moment in ((torch.zeros_like(self.value), self.moment), (self.value, moment_of(inputs(2)))):
            found = attention_rank.value_output(value, self.output, moment, KEY_HEADS, 5)
            assert torch.isfinite(found.value).all()
            assert torch.isfinite(found.output).all()
        assert "identity" in attention_rank.value_output(self.value, self.output, torch.zeros(WIDTH, WIDTH), KEY_HEADS, 5).note
        with pytest.raises(ParedownError, match="rank of 1 to 8"):
            attention_rank.value_output(self.value, self.output, self.moment, KEY_HEADS, 9)
        with pytest.raises(ParedownError, match="3 heads of values"):
            attention_rank.value_output(self.value, self.output, self.moment, 3, 2)
