from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.methods import kfac_pruning
from paredown.methods.masks import NOfM, Rows, Unstructured, select
from paredown.methods.pruning import prune
from paredown.methods.saliency import magnitude
from reference import mfac as reference

OUT, IN = 4, 6


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moment(width, seed, tokens=40):
    x = noise(tokens, width, seed=seed).double() @ noise(width, width, seed=seed + 1).double()
    return x.T @ x / tokens


WEIGHT, A, G = noise(OUT, IN, seed=1), moment(IN, 2), moment(OUT, 4)


def dense(damping):
    """G ⊗ A with its damping, [out in, out in]."""
    matrix = torch.kron(G, A)
    return matrix + damping * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=torch.float64)


def test_brain_damage_is_half_the_curvature_of_each_weight():
    values = kfac_pruning.brain_damage(WEIGHT, A, G).values
    torch.testing.assert_close(values.double().flatten(), WEIGHT.double().flatten().square() * dense(0).diagonal() / 2, rtol=1e-5, atol=0)


@pytest.mark.parametrize("damping", [1e-3, 0.1, 10.0])
def test_brain_surgeon_is_the_loss_that_really_follows(damping):
    values = kfac_pruning.brain_surgeon(WEIGHT, A, G, damping=damping).values
    for index in (0, 7, OUT * IN - 1):
        _, increase = reference.brain_surgeon(WEIGHT.double().flatten(), dense(damping), torch.tensor([index]))
        assert values.flatten()[index].item() == pytest.approx(increase.item(), rel=1e-5)
        mask = torch.ones(OUT, IN, dtype=torch.bool)
        mask.view(-1)[index] = False
        pruned = kfac_pruning.compensate(WEIGHT, mask, A, G, damping=damping, steps=300, tolerance=1e-6)
        assert pruned.loss_increase == pytest.approx(increase.item(), rel=1e-4)


@pytest.mark.parametrize("pattern", [Unstructured(0.5), NOfM(1, 3), Rows(0.5)], ids=str)
def test_the_kept_weights_are_those_of_the_constrained_minimum(pattern):
    mask = select(WEIGHT.abs(), pattern)
    pruned = kfac_pruning.compensate(WEIGHT, mask, A, G, steps=300, tolerance=1e-6)
    expected, increase = reference.brain_surgeon(WEIGHT.double().flatten(), dense(0.1), (~mask.flatten()).nonzero()[:, 0])
    torch.testing.assert_close(pruned.weight, torch.where(mask, expected.reshape(OUT, IN).float(), 0), rtol=1e-4, atol=1e-5)
    assert pruned.loss_increase == pytest.approx(increase.item(), rel=1e-5)
    assert (pruned.weight[~mask] == 0).all()


@settings(deadline=None)
@given(st.integers(0, 8), st.integers(0, 30))
def test_every_step_of_the_update_lowers_the_loss(seed, tokens):
    weight, a, g = noise(OUT, IN, seed=seed), moment(IN, seed + 1, tokens + 1), moment(OUT, seed + 3, tokens + 1)
    mask = select(weight.abs(), Unstructured(0.5))
    losses = [kfac_pruning.compensate(weight, mask, a, g, steps=steps, tolerance=0).loss_increase for steps in range(6)]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(losses))
    plain = torch.where(mask, 0, -weight).double()
    ridge = 0.1 * a.diagonal().mean() * g.diagonal().mean()
    assert losses[0] == pytest.approx(0.5 * (plain * (g @ plain @ a + ridge * plain)).sum().item())


def test_without_any_signal_weights_go_by_magnitude_and_it_is_said():
    for criterion in (kfac_pruning.brain_damage, kfac_pruning.brain_surgeon):
        pruned = prune(WEIGHT, criterion(WEIGHT, torch.zeros(IN, IN), torch.zeros(OUT, OUT)), Unstructured(0.5))
        assert torch.equal(pruned.mask, prune(WEIGHT, magnitude(WEIGHT), Unstructured(0.5)).mask)
        assert pruned.note
    assert "no gradient reaches" in kfac_pruning.brain_damage(WEIGHT, A, torch.zeros(OUT, OUT)).note


def test_odd_input_gives_finite_answers_and_mistakes_are_explained():
    dead = A.clone()
    dead[2], dead[:, 2] = 0, 0
    mask = select(WEIGHT.abs(), NOfM(1, 2))
    for weight, a, g in ((WEIGHT, dead, G), (WEIGHT, moment(IN, 5, 2), moment(OUT, 6, 1)), (torch.zeros(OUT, IN), A, G)):
        assert torch.isfinite(kfac_pruning.compensate(weight, mask, a, g).weight).all()
        assert torch.isfinite(kfac_pruning.brain_surgeon(weight, a, g).values).all()
    nothing = kfac_pruning.compensate(WEIGHT, torch.ones_like(mask), A, G)
    assert torch.equal(nothing.weight, WEIGHT)
    assert nothing.loss_increase == 0
    with pytest.raises(ParedownError, match="damping above 0, got 0"):
        kfac_pruning.brain_surgeon(WEIGHT, A, G, damping=0)
