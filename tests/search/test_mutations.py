import itertools

import numpy as np
import pytest

from paredown.search import mutations
from paredown.search.mutations import crossovers, switches

OWNER = np.repeat(np.arange(4), 3)


@pytest.mark.parametrize("seed", range(5))
def test_switches_are_the_best_changes_of_one_or_two_groups_that_fit(seed):
    draw = np.random.default_rng(seed)
    costs, amounts = draw.random(12), draw.integers(1, 9, 12).astype(float)
    plan = np.arange(4) * 3 + draw.integers(0, 3, 4)
    found = switches(plan, costs, amounts, OWNER, 2.0, 15)
    every = [np.array(each) for each in itertools.product(*(range(3 * g, 3 * g + 3) for g in range(4)))]
    changed = [each for each in every if 1 <= (each != plan).sum() <= 2 and amounts[each].sum() - amounts[plan].sum() <= 2.0]
    best = sorted(costs[each].sum() for each in changed)[:15]
    np.testing.assert_allclose(costs[found].sum(1), best)
    assert len({tuple(each) for each in found}) == len(found)


def test_switches_of_many_choices_are_made_of_those_worth_their_amount(monkeypatch):
    monkeypatch.setattr(mutations, "MOST_CHOICES", 5)
    draw = np.random.default_rng(0)
    found = switches(np.array([0, 3, 6, 9]), draw.random(12), np.ones(12), OWNER, 0.0, 100)
    assert len({int(choice) for plan in found for choice in plan} - {0, 3, 6, 9}) <= 5
    assert len(found)


def test_a_plan_without_another_choice_has_no_switches():
    assert switches(np.array([0, 1]), np.ones(2), np.ones(2), np.array([0, 1]), 5.0, 9).shape == (0, 2)


def test_crossovers_take_each_group_from_one_of_the_two_and_fit():
    draw = np.random.default_rng(0)
    amounts = draw.integers(1, 9, 12).astype(float)
    one, other = np.array([0, 3, 6, 9]), np.array([2, 5, 6, 11])
    room = float(amounts[one].sum())
    made = crossovers(one, other, amounts, room, 50, draw)
    assert len(made)
    assert ((made == one) | (made == other)).all()
    assert (amounts[made].sum(1) <= room).all()
    assert not (made == one).all(1).any()
    assert not (made == other).all(1).any()
    assert len(crossovers(one, one, amounts, room, 50, draw)) == 0
