from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods import brain_surgeon, mfac
from paredown.methods.masks import NOfM, Rows, Unstructured, follows, select, stages
from paredown.methods.pruning import prune
from paredown.methods.saliency import diagonal_fisher, magnitude
from reference import mfac as reference

PATTERNS = [Unstructured(0.5), Unstructured(0.6, per_row=True), NOfM(2, 4), NOfM(1, 5), Rows(0.25)]


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def correlated(count, out, inputs, seed=0):
    """Gradients whose coordinates are correlated, so that updates matter."""
    return noise(count, out, 3, seed=seed) @ noise(3, inputs, seed=seed + 1) + 0.3 * noise(count, out, inputs, seed=seed + 2)


class TestInverse:
    @settings(deadline=None)
    @given(st.integers(1, 9), st.integers(1, 12), st.floats(1e-3, 10))
    def test_it_is_the_recursion_of_the_paper(self, count, dimension, damping):
        gradients = noise(count, dimension, seed=1)
        inverse = mfac.invert(gradients, damping)
        rows, pivots = reference.static(gradients, damping)
        torch.testing.assert_close(inverse.rows, rows, rtol=1e-8, atol=1e-8 / damping)
        torch.testing.assert_close(inverse.pivots, pivots, rtol=1e-8, atol=0)

    @pytest.mark.parametrize(("count", "dimension"), [(5, 30), (40, 12), (1, 1)])
    def test_products_and_diagonal_are_those_of_the_dense_inverse(self, count, dimension):
        gradients, vector = noise(count, dimension, seed=2), noise(dimension, seed=3)
        inverse, dense = mfac.invert(gradients, 0.05), reference.fisher(gradients, 0.05)
        torch.testing.assert_close(inverse.product(vector), torch.linalg.solve(dense, vector), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(inverse.diagonal(), torch.linalg.inv(dense).diagonal(), rtol=1e-10, atol=1e-10)

    def test_every_gradient_counts(self):
        gradients = noise(6, 8, seed=4)
        assert not torch.allclose(mfac.invert(gradients, 0.1).diagonal(), mfac.invert(gradients[:5], 0.1).diagonal())

    def test_many_are_inverted_as_one_is(self):
        gradients, vectors = noise(3, 4, 7, 10, seed=5), noise(3, 4, 10, seed=6)
        together = mfac.invert(gradients, 0.2)
        alone = mfac.invert(gradients[2, 1], 0.2)
        torch.testing.assert_close(together.product(vectors)[2, 1], alone.product(vectors[2, 1]))
        torch.testing.assert_close(together.diagonal()[2, 1], alone.diagonal())

    def test_without_gradients_it_is_the_damping(self):
        inverse = mfac.invert(torch.zeros(3, 4, dtype=torch.float64), 0.5)
        assert inverse.diagonal().tolist() == [2.0] * 4
        with pytest.raises(ParedownError, match="damping above 0"):
            mfac.invert(torch.ones(1, 2), 0.0)


class TestBlocks:
    @pytest.mark.parametrize("inputs", [1, 7, 16, 17])
    def test_each_block_is_the_damped_fisher_of_its_weights(self, inputs):
        gradients = noise(9, 3, inputs, seed=7)
        blocks, note = mfac.fisher_blocks(gradients, (3, inputs), block=8, damping=0.03)
        assert note == ""
        width = blocks.shape[-1]
        damping = 0.03 * gradients.square().mean()
        for row in range(3):
            for piece in range(blocks.shape[1]):
                part = gradients[:, row, piece * width : (piece + 1) * width]
                dense = reference.fisher(part, damping)
                torch.testing.assert_close(blocks[row, piece, : len(dense), : len(dense)], dense)

    def test_gradients_read_row_by_row_give_the_same(self, monkeypatch):
        gradients = noise(9, 10, 6, seed=8)
        whole, _ = mfac.fisher_blocks(gradients, (10, 6))
        monkeypatch.setattr(mfac, "_CHUNK", 3 * 9 * 6)
        asked = []

        def read(start, stop):
            asked.append(stop - start)
            return gradients[:, start:stop]

        torch.testing.assert_close(mfac.fisher_blocks(read, (10, 6))[0], whole)
        assert max(asked) == 3

    def test_saliency_is_that_of_the_recursion(self):
        gradients, weight = noise(20, 4, 12, seed=9), noise(4, 12, seed=10, dtype=torch.float32)
        blocks, _ = mfac.fisher_blocks(gradients, (4, 12), block=12, damping=0.1)
        inverse = mfac.invert(gradients.transpose(0, 1), 0.1 * float(gradients.square().mean()))
        torch.testing.assert_close(brain_surgeon.saliency(weight, blocks), weight.double().square() / (2 * inverse.diagonal()))


class TestBrainSurgeon:
    def setup(self, out=3, inputs=10, block=5):
        weight = noise(out, inputs, seed=11, dtype=torch.float32)
        blocks, _ = mfac.fisher_blocks(correlated(16, out, inputs), (out, inputs), block=block, damping=0.05)
        return weight, blocks

    def test_saliency_is_the_loss_that_really_follows(self):
        weight, blocks = self.setup()
        saliency = brain_surgeon.saliency(weight, blocks)
        for row, column in [(0, 0), (1, 7), (2, 9)]:
            mask = torch.ones(3, 10, dtype=torch.bool)
            mask[row, column] = False
            pruned = brain_surgeon.compensate(weight, blocks, mask)
            assert pruned.loss_increase == pytest.approx(saliency[row, column].item(), rel=1e-9)
            piece = slice(column // 5 * 5, column // 5 * 5 + 5)
            change = (pruned.weight - weight)[row, piece].double()
            realised = 0.5 * change @ blocks[row, column // 5] @ change
            assert realised.item() == pytest.approx(saliency[row, column].item(), rel=1e-5)

    @pytest.mark.parametrize("pattern", PATTERNS, ids=str)
    def test_a_set_of_weights_goes_as_the_multipliers_say(self, pattern):
        weight, blocks = self.setup(4)
        mask = select(weight.abs(), pattern)
        pruned = brain_surgeon.compensate(weight, blocks, mask)
        total = 0.0
        for row in range(4):
            for piece in range(2):
                part = slice(5 * piece, 5 * piece + 5)
                gone = (~mask[row, part]).nonzero()[:, 0]
                expected, increase = reference.brain_surgeon(weight[row, part].double(), blocks[row, piece], gone)
                expected[gone] = 0
                torch.testing.assert_close(pruned.weight[row, part], expected.float(), rtol=1e-5, atol=1e-6)
                total += increase
        assert pruned.loss_increase == pytest.approx(total.item(), rel=1e-9)

    @pytest.mark.parametrize("steps", [1, 3])
    @pytest.mark.parametrize("pattern", PATTERNS, ids=str)
    def test_steps_end_where_their_final_mask_alone_leads(self, pattern, steps):
        weight, blocks = self.setup(8, 13, 7)
        pruned = brain_surgeon.prune(weight, blocks, pattern, steps=steps)
        assert follows(pruned.mask, pattern)
        assert (pruned.weight[~pruned.mask] == 0).all()
        alone = brain_surgeon.compensate(weight, blocks, pruned.mask)
        torch.testing.assert_close(pruned.weight, alone.weight, rtol=1e-4, atol=1e-5)
        assert pruned.loss_increase == pytest.approx(alone.loss_increase, rel=1e-9)

    def test_new_saliencies_after_each_step_find_better_masks(self):
        increases = {
            steps: sum(
                brain_surgeon.prune(
                    noise(8, 32, seed=seed, dtype=torch.float32),
                    mfac.fisher_blocks(correlated(24, 8, 32, seed), (8, 32), block=32)[0],
                    Unstructured(0.6),
                    steps=steps,
                ).loss_increase
                for seed in range(5)
            )
            for steps in (1, 8)
        }
        assert increases[8] < 0.95 * increases[1]

    @settings(deadline=None)
    @given(st.integers(0, 5), st.sampled_from(PATTERNS))
    def test_the_update_is_never_worse_than_none(self, seed, pattern):
        gradients = correlated(12, 4, 10, seed)
        weight = noise(4, 10, seed=seed + 1, dtype=torch.float32)
        blocks, _ = mfac.fisher_blocks(gradients, (4, 10), block=10)
        mask = select(weight.abs(), pattern)
        dropped = torch.where(mask, 0, weight).double()
        without = 0.5 * torch.einsum("ri,rij,rj->", dropped, blocks[:, 0], dropped)
        assert brain_surgeon.compensate(weight, blocks, mask).loss_increase <= without * (1 + 1e-12)

    def test_float32_blocks_are_good_enough(self):
        weight, blocks = self.setup(16, 64, 64)
        exact, single = (brain_surgeon.prune(weight, b, NOfM(2, 4)) for b in (blocks, blocks.float()))
        assert single.loss_increase == pytest.approx(exact.loss_increase, rel=1e-3)

    def test_singular_blocks_and_wrong_shapes_are_refused(self):
        with pytest.raises(ParedownError, match="raise the damping"):
            brain_surgeon.saliency(torch.ones(2, 4), torch.zeros(2, 1, 4, 4))
        with pytest.raises(ParedownError, match=r"cover 4 inputs, got \[2, 1, 3, 3\]"):
            brain_surgeon.saliency(torch.ones(2, 4), torch.zeros(2, 1, 3, 3))


def test_one_call_does_all_of_it():
    weight, gradients = noise(6, 20, seed=12, dtype=torch.float32), correlated(30, 6, 20, 3)
    blocks, _ = mfac.fisher_blocks(gradients, (6, 20), block=10)
    pruned, expected = mfac.prune(weight, gradients, NOfM(2, 4), block=10), brain_surgeon.prune(weight, blocks, NOfM(2, 4))
    assert torch.equal(pruned.weight, expected.weight)
    assert pruned.loss_increase == expected.loss_increase


def test_new_gradients_may_come_between_the_stages():
    weight, pattern = noise(6, 20, seed=13, dtype=torch.float32), Unstructured(0.5)
    current, kept = weight, []
    for number, stage in enumerate(stages(pattern, 3)):
        pruned = mfac.prune(current, correlated(30, 6, 20, number), stage, steps=1)
        current = pruned.weight
        kept.append(pruned.mask)
    assert follows(kept[-1], pattern)
    assert not (kept[-1] & ~kept[0]).any()


def test_less_is_lost_than_by_diagonal_fisher_and_than_by_magnitude():
    weight, gradients = noise(16, 32, seed=14, dtype=torch.float32), correlated(64, 16, 32, 5) * noise(32, seed=15).abs()
    blocks, _ = mfac.fisher_blocks(gradients, (16, 32), block=32)

    def lost(pruned):
        change = (pruned.weight - weight).double()
        return 0.5 * torch.einsum("ri,rij,rj->", change, blocks[:, 0], change).item()

    pattern = Unstructured(0.5)
    fisher = lost(prune(weight, diagonal_fisher(weight, gradients.square().mean(0)), pattern))
    assert lost(mfac.prune(weight, gradients, pattern, block=32)) < fisher < lost(prune(weight, magnitude(weight), pattern))


def test_without_gradients_weights_go_by_magnitude_and_it_is_said():
    weight = noise(5, 12, seed=16, dtype=torch.float32)
    pruned = mfac.prune(weight, torch.zeros(4, 5, 12), Unstructured(0.5))
    assert "no gradient reaches the layer" in pruned.note
    assert torch.equal(pruned.weight, prune(weight, magnitude(weight), Unstructured(0.5)).weight)


def test_dead_inputs_and_zero_weights_give_finite_answers():
    gradients = correlated(6, 4, 16, 7)
    gradients[:, :, 3] = 0
    gradients[:, 2] = 0
    for weight in (noise(4, 16, seed=17, dtype=torch.float32), torch.zeros(4, 16)):
        pruned = mfac.prune(weight, gradients, NOfM(2, 4))
        assert torch.isfinite(pruned.weight).all()
        assert follows(pruned.mask, NOfM(2, 4))


def test_gradients_that_are_not_finite_or_do_not_fit_are_refused():
    with pytest.raises(ParedownError, match="gradients hold NaN"):
        mfac.prune(torch.ones(2, 4), torch.full((3, 2, 4), float("nan")), NOfM(1, 2))
    with pytest.raises(ParedownError, match=r"expected gradients \[m, 2, 4\], got \[3, 4, 2\]"):
        mfac.prune(torch.ones(2, 4), torch.ones(3, 4, 2), NOfM(1, 2))


def test_half_precision_gradients_are_summed_in_float32():
    gradients = correlated(8, 3, 12, 9).bfloat16()
    blocks, _ = mfac.fisher_blocks(gradients, (3, 12))
    assert torch.equal(blocks, mfac.fisher_blocks(gradients.float(), (3, 12))[0])
