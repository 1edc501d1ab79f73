from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown import sizes
from paredown.errors import ParedownError
from paredown.methods import dequantize, quantize
from paredown.methods.factors import LowRank, StoredFactors, store, stored_bytes
from paredown.methods.low_rank import eora, scaled_svd, svd, whitened_svd
from paredown.methods.masks import NOfM
from paredown.methods.pruning import prune
from paredown.methods.saliency import magnitude
from paredown.specs import WeightFormat
from reference import low_rank as reference

SHAPES = [(12, 20), (20, 12), (16, 16), (1, 9), (9, 1)]


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moment_of(inputs, tokens=None, seed=1):
    """A moment whose eigenvalues span several orders, of full rank unless there are too few tokens."""
    x = noise(tokens or 4 * inputs, inputs, seed=seed).double() * torch.logspace(0, -2, inputs, dtype=torch.float64)
    x = x @ torch.linalg.qr(noise(inputs, inputs, seed=seed + 1).double())[0]
    return x.T @ x / len(x)


def left_over(change, factors, moment):
    return reference.activation_error(change.double() - factors.dense().double(), moment)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 8])
class TestTheResidual:
    def test_it_is_the_sum_of_the_squared_tail(self, shape, rank):
        change, moment = noise(*shape, seed=2), moment_of(shape[1])
        factors = whitened_svd(change, moment, rank)
        scale = reference.activation_error(change.double(), moment)
        assert left_over(change, factors, moment) == pytest.approx(factors.singular_values[rank:].square().sum().item(), abs=1e-6 * scale)
        assert factors.singular_values.square().sum().item() == pytest.approx(scale, rel=1e-8)

    def test_it_is_that_of_both_papers(self, shape, rank):
        change, moment = noise(*shape, seed=3), moment_of(shape[1])
        ours = whitened_svd(change, moment, rank).dense().double()
        for paper in (reference.eora, reference.cholesky_whitened):
            torch.testing.assert_close(ours, paper(change.double(), moment, rank), rtol=1e-4, atol=1e-5)

    def test_outputs_are_nearer_than_by_svd_and_weights_are_not(self, shape, rank):
        change, moment = noise(*shape, seed=4), moment_of(shape[1])
        white, plain = whitened_svd(change, moment, rank), svd(change, rank)
        slack = 1 + 1e-5
        scale = 1e-9 * reference.activation_error(change.double(), moment)
        assert left_over(change, white, moment) <= left_over(change, plain, moment) * slack + scale
        assert (change - plain.dense()).norm() <= (change - white.dense()).norm() * slack + 1e-5

    def test_a_moment_like_the_identity_gives_svd(self, shape, rank):
        change = noise(*shape, seed=5)
        white, plain = whitened_svd(change, 7.0 * torch.eye(shape[1]), rank), svd(change, rank)
        torch.testing.assert_close(white.dense(), plain.dense(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(white.singular_values, 7**0.5 * plain.singular_values, rtol=1e-6, atol=1e-6)

    def test_svd_leaves_the_tail_too(self, shape, rank):
        change = noise(*shape, seed=6)
        factors = svd(change, rank)
        assert (change - factors.dense()).square().sum().item() == pytest.approx(
            factors.singular_values[rank:].square().sum().item(), abs=1e-5 * change.square().sum().item()
        )


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(2, 12), st.integers(2, 12), st.integers(1, 14))
def test_a_larger_rank_never_leaves_more(seed, out, inputs, tokens):
    change, moment = noise(out, inputs, seed=seed), moment_of(inputs, tokens, seed)
    scale = reference.activation_error(change.double(), moment)
    errors = [left_over(change, whitened_svd(change, moment, rank), moment) for rank in range(1, min(out, inputs) + 1)]
    assert all(later <= earlier + 1e-5 * scale for earlier, later in itertools.pairwise(errors))
    assert errors[-1] <= 1e-5 * scale


def test_with_diagonal_weights_the_weighted_error_is_least():
    change, rows, columns = noise(10, 14, seed=7), noise(10, seed=8).abs() + 0.1, noise(14, seed=9).abs() + 0.1
    factors = scaled_svd(change, rows, columns, 4)
    torch.testing.assert_close(
        scaled_svd(change, torch.ones(10), columns, 4).dense(),
        whitened_svd(change, columns.square().diag(), 4).dense(),
        rtol=1e-3,
        atol=1e-5,
    )
    weighted = ((change - factors.dense()) * rows[:, None] * columns).square().sum().item()
    assert weighted == pytest.approx(factors.singular_values[4:].square().sum().item(), rel=1e-4)


class TestCompensation:
    weight, moment = noise(48, 64, seed=10), moment_of(64)

    @pytest.mark.parametrize("what", ["quantized", "pruned", "both"])
    def test_whatever_was_lost_is_partly_given_back(self, what):
        compressed = self.weight
        if what != "quantized":
            compressed = prune(compressed, magnitude(compressed), NOfM(2, 4)).weight
        if what != "pruned":
            compressed = dequantize(quantize(compressed, WeightFormat(3, 32)))
        factors = eora(self.weight, compressed, self.moment, 4)
        before = reference.activation_error((self.weight - compressed).double(), self.moment)
        after = left_over(self.weight - compressed, factors, self.moment)
        assert after < 0.9 * before
        assert after <= left_over(self.weight - compressed, svd(self.weight - compressed, 4), self.moment)

    def test_nothing_lost_needs_nothing(self):
        factors = eora(self.weight, self.weight, self.moment, 4)
        assert not factors.dense().any()
        assert torch.isfinite(factors.left).all()

    def test_the_weight_itself_may_be_replaced(self):
        low = noise(48, 5, seed=11) @ noise(5, 64, seed=12)
        torch.testing.assert_close(whitened_svd(low, self.moment, 5).dense(), low, rtol=1e-4, atol=1e-4)


class TestOddMoments:
    change = noise(10, 16, seed=13)

    def test_few_tokens_leave_no_error_on_them_and_the_spare_rank_serves_the_weights(self):
        moment = moment_of(16, tokens=3)
        factors = whitened_svd(self.change, moment, 6)
        assert left_over(self.change, factors, moment) < 1e-9 * reference.activation_error(self.change.double(), moment)
        fewer = whitened_svd(self.change, moment, 3)
        assert (self.change - factors.dense()).norm() < (self.change - fewer.dense()).norm()
        assert torch.isfinite(factors.dense()).all()

    def test_dead_inputs_are_no_trouble(self):
        moment = moment_of(16)
        moment[5], moment[:, 5] = 0, 0
        factors = whitened_svd(self.change, moment, 4)
        assert left_over(self.change, factors, moment) == pytest.approx(factors.singular_values[4:].square().sum().item(), rel=1e-4)

    def test_rounding_that_makes_small_eigenvalues_negative_is_no_trouble(self):
        moment = moment_of(16, tokens=4).float()
        assert torch.linalg.eigvalsh(moment.double()).min() < 0
        assert torch.isfinite(whitened_svd(self.change, moment, 8).dense()).all()

    def test_without_activations_it_is_svd_and_it_is_said(self):
        factors = whitened_svd(self.change, torch.zeros(16, 16), 4)
        assert "taken as the identity" in factors.note
        torch.testing.assert_close(factors.dense(), svd(self.change, 4).dense(), rtol=1e-4, atol=1e-5)

    def test_a_rank_beyond_the_weight_is_cut_and_it_is_said(self):
        factors = whitened_svd(self.change, moment_of(16), 11)
        assert "rank 11 is more than the weight has; 10 is used" in factors.note
        assert factors.left.shape == (10, 10)

    def test_mistakes_are_explained(self):
        with pytest.raises(ParedownError, match="rank of at least 1, got 0"):
            svd(self.change, 0)
        with pytest.raises(ParedownError, match="moment holds NaN"):
            whitened_svd(self.change, torch.full((16, 16), float("nan")), 2)
        with pytest.raises(ParedownError, match="weight holds NaN"):
            svd(torch.tensor([[float("inf"), 1.0]]), 1)
        with pytest.raises(ParedownError, match="none negative and not all zero"):
            scaled_svd(self.change, torch.zeros(10), torch.ones(16), 2)


class TestStorage:
    factors = svd(noise(96, 128, seed=14), 8)

    def test_both_sides_weigh_the_same(self):
        torch.testing.assert_close(self.factors.left.norm(dim=0), self.factors.right.norm(dim=1))

    @pytest.mark.parametrize(("bits", "most"), [(16, 1e-3), (8, 0.02), (4, 0.2)])
    def test_what_is_read_is_near(self, bits, most):
        stored, exact = store(self.factors, bits), self.factors.dense()
        assert (stored.dense() - exact).norm() < most * exact.norm()

    @settings(deadline=None)
    @given(st.integers(1, 12), st.integers(1, 150), st.integers(1, 150), st.sampled_from([16, 8, 4]))
    def test_bytes_are_those_of_the_tensors(self, rank, out, inputs, bits):
        factors = LowRank(noise(out, rank), noise(rank, inputs), torch.ones(rank, dtype=torch.float64))
        stored = store(factors, bits)
        assert isinstance(stored, StoredFactors)
        total = 0
        for factor in (stored.left, stored.right):
            if isinstance(factor, torch.Tensor):
                total += 2 * factor.numel()
                continue
            rows, columns = factor.shape
            groups = factor.scales.shape[1]
            # words of 32 bits along the rows of codes and down the columns of zero points
            total += 4 * rows * sizes.words(columns, bits) + 2 * rows * groups + 4 * sizes.words(rows, bits) * groups
        assert stored_bytes((out, inputs), rank, bits) == total

    def test_odd_factors_stay_finite(self):
        zeros = LowRank(torch.zeros(5, 2), torch.zeros(2, 7), torch.zeros(2))
        huge = LowRank(torch.full((5, 2), 1e9), torch.full((2, 7), 1e-9), torch.zeros(2))
        for bits in (16, 8, 4):
            assert not store(zeros, bits).dense().any()
            assert torch.isfinite(store(huge, bits).dense()).all()
        with pytest.raises(ParedownError, match="16, 8 or 4 bits, got 5"):
            store(zeros, 5)
