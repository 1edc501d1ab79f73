import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.search.bisection import lower_to_target
from paredown.search.integer_program import Budget
from paredown.search.interactions import augmented_order, measure_interactions
from paredown.search.pairwise import allocate_pairs


class Quadratic:
    """Per-sample losses ½ wᵀ H_s w around w = 0, and changes of layers of `width` weights each."""

    def __init__(self, seed, changes=5, width=3, samples=7, diagonal=False, definite=True):
        draw = np.random.default_rng(seed)
        size = changes * width
        self.hessians = draw.standard_normal((samples, size, size))
        self.hessians = self.hessians @ self.hessians.swapaxes(1, 2) if definite else self.hessians + self.hessians.swapaxes(1, 2)
        if diagonal:
            self.hessians *= np.kron(np.eye(changes), np.ones((width, width)))
        self.changes = np.zeros((changes, size))
        for i in range(changes):
            self.changes[i, i * width : (i + 1) * width] = draw.standard_normal(width)
        self.names = [f"layer {i}" for i in range(changes)]
        self.evaluations = 0

    def __call__(self, chosen):
        self.evaluations += 1
        step = self.changes[sorted(chosen)].sum(0)
        return 3.0 + 0.5 * np.einsum("sij,i,j->s", self.hessians, step, step)


# -- terms


@pytest.mark.parametrize("seed", range(3))
def test_pair_terms_of_a_quadratic_are_exactly_its_off_diagonal_blocks(seed):
    loss = Quadratic(seed, definite=False)
    found = measure_interactions(loss, loss.names)
    each = np.einsum("ai,sij,bj->sab", loss.changes, loss.hessians, loss.changes)  # [samples, n, n]
    off = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(found.pairs[off], each.mean(0)[off], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found.pairs_sd[off], (each.std(0, ddof=1) / np.sqrt(7))[off], rtol=1e-7)
    np.testing.assert_allclose(2 * found.single, np.diag(each.mean(0)), rtol=1e-9)
    np.testing.assert_array_equal(found.pairs, found.pairs.T)
    assert loss.evaluations == 1 + 5 + 10
    for chosen in ([], [2], [0, 3], [0, 1, 2, 3, 4]):
        assert found.predict(chosen) == pytest.approx((loss(chosen) - loss([])).mean(), abs=1e-9)
        x = np.isin(np.arange(5), chosen).astype(float)
        assert found.predict(chosen) == pytest.approx(0.5 * x @ found.matrix @ x, abs=1e-12)


def test_pair_terms_of_a_block_diagonal_hessian_are_zero():
    loss = Quadratic(0, diagonal=True)
    found = measure_interactions(loss, loss.names)
    np.testing.assert_allclose(found.pairs, 0, atol=1e-12 * found.single.max())


def test_choices_of_one_group_are_never_made_together():
    loss = Quadratic(1, changes=4)
    found = measure_interactions(loss, loss.names, groups=[0, 0, 1, 1])
    assert loss.evaluations == 1 + 4 + 4
    assert found.pairs[0, 1] == found.pairs[2, 3] == 0
    assert found.pairs[0, 2] != 0


def test_one_sample_leaves_the_standard_errors_unknown():
    found = measure_interactions(lambda chosen: float(len(chosen) ** 2), ["a", "b"])
    assert found.pairs[0, 1] == 4 - 1 - 1
    assert math.isnan(found.pairs_sd[0, 1])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            lambda chosen: np.array([1.0, np.nan if 1 in chosen else 2.0]),
            "the loss with b is not finite on 1 samples; leave that change out",
        ),
        (lambda chosen: np.ones(3 - len(chosen)), "expected the loss of the same 3 samples each time, got 2 with a"),
    ],
    ids=["nan", "other samples"],
)
def test_bad_losses(loss, message):
    with pytest.raises(ParedownError, match=message):
        measure_interactions(loss, ["a", "b"])


def test_the_projection_leaves_a_hessian_of_a_minimum_alone_and_is_the_nearest_one():
    definite = measure_interactions(loss := Quadratic(2), loss.names)
    np.testing.assert_allclose(definite.projected().matrix, definite.matrix, atol=1e-10)
    indefinite = measure_interactions(loss := Quadratic(3, definite=False), loss.names)
    projected = indefinite.projected().matrix
    assert np.linalg.eigvalsh(indefinite.matrix).min() < -1
    assert np.linalg.eigvalsh(projected).min() > -1e-9
    away = projected - indefinite.matrix
    assert np.sum(away * projected) == pytest.approx(0, abs=1e-8)  # what the nearest point of a cone is
    assert np.linalg.eigvalsh(away).min() > -1e-9


def test_without_interactions_the_augmented_order_is_that_of_the_single_terms():
    draw = np.random.default_rng(0)
    single, pairs = draw.random(6), draw.random((6, 6))
    pairs = pairs + pairs.T
    assert augmented_order(single, pairs, beta=0).tolist() == np.argsort(single).tolist()
    lonely = pairs.copy()
    lonely[4] = lonely[:, 4] = 0
    assert augmented_order(np.ones(6), lonely)[0] == 4
    assert augmented_order(np.ones(6), -pairs).tolist() == list(range(6))  # what cancels is no sensitivity


# -- allocation


@st.composite
def quadratic_problems(draw):
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    count, number = sum(sizes), st.integers(-24, 24).map(lambda n: n / 8)
    flat = np.array(draw(st.lists(number, min_size=count, max_size=count)))
    pairs = np.array(draw(st.lists(number, min_size=count**2, max_size=count**2))).reshape(count, count)
    amounts = np.array(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count)))
    cuts = np.cumsum(sizes)[:-1]
    return np.split(flat, cuts), pairs + pairs.T, np.split(amounts, cuts)


def every(costs, pairs, amounts):
    starts = np.cumsum([0, *map(len, costs)])[:-1]
    for choices in itertools.product(*map(range, map(len, costs))):
        picked = starts + choices
        cost = sum(c[i] for c, i in zip(costs, choices, strict=True)) + sum(pairs[i, j] for i, j in itertools.combinations(picked, 2))
        yield sum(a[i] for a, i in zip(amounts, choices, strict=True)), cost


@settings(deadline=None, max_examples=60)
@given(quadratic_problems(), st.floats(0, 1))
def test_the_best_plan_with_pair_terms_equals_brute_force(problem, share):
    costs, pairs, amounts = problem
    plans = list(every(*problem))
    low, high = (ends(size for size, _ in plans) for ends in (min, max))
    budget = Budget(amounts, low + int(share * (high - low)))
    best = min(cost for size, cost in plans if size <= budget.most)
    exact, searched = allocate_pairs(costs, pairs, budget), allocate_pairs(costs, pairs, budget, products=-1)
    assert exact.cost == best
    assert exact.bound == pytest.approx(best, abs=1e-5)
    for found in (exact, searched):
        assert budget.total(found.choices) <= budget.most
        assert found.bound - 1e-9 <= best <= found.cost


def test_without_pair_terms_the_search_is_the_additive_optimum():
    draw = np.random.default_rng(0)
    costs = [draw.random(4) for _ in range(12)]
    amounts = [np.sort(draw.integers(1, 90, 4))[::-1] for _ in range(12)]
    budget = Budget(amounts, 500)
    found = allocate_pairs(costs, np.zeros((48, 48)), budget)
    assert found.bound == pytest.approx(found.cost)


def test_the_search_is_never_worse_than_the_additive_plan():
    draw = np.random.default_rng(1)
    pairs = 0.1 * draw.standard_normal((120, 120))
    pairs = pairs + pairs.T
    costs = [np.sort(draw.random(4)) for _ in range(30)]
    amounts = [np.sort(draw.integers(1, 90, 4))[::-1] for _ in range(30)]
    budget = Budget(amounts, 1000)
    found = allocate_pairs(costs, pairs, budget)
    additive = allocate_pairs(costs, np.zeros_like(pairs), budget)
    picked = additive.choices + 4 * np.arange(30)
    block = np.kron(np.eye(30), np.ones((4, 4))) == 0
    assert found.bound < found.cost < additive.cost + (pairs * block)[np.ix_(picked, picked)].sum() / 2


# -- bisection


@settings(deadline=None, max_examples=80)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(1, 3), st.floats(0, 3), st.integers(0, 99), st.booleans())
def test_bisection_meets_the_target_within_its_evaluations(harms, levels, target, seed, higher):
    draw = np.random.default_rng(seed)
    noise = {}
    sign = -1 if higher else 1
    tried = {}

    def evaluate(plan):  # monotone but for noise
        value = sign * (sum(h * level for h, level in zip(harms, plan, strict=True)) + noise.setdefault(plan, 0.1 * draw.random()))
        tried[plan] = value
        return value

    order = sorted(range(len(harms)), key=harms.__getitem__)
    found = lower_to_target(order, levels, evaluate, baseline=0.0, target=sign * target, higher_is_better=higher)
    assert sign * found.value <= target
    assert found.value == tried.get(found.levels, 0.0)
    assert len(found.evaluations) == levels
    assert max(found.evaluations) <= math.ceil(math.log2(len(harms) + 1))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=12), st.integers(0, 60))
def test_bisection_of_a_monotone_metric_lowers_the_longest_prefix(harms, target):
    harms = sorted(harms)
    found = lower_to_target(
        range(len(harms)), 1, lambda plan: sum(h * level for h, level in zip(harms, plan, strict=True)), baseline=0, target=target
    )
    lowered = sum(found.levels)
    assert found.levels == (1,) * lowered + (0,) * (len(harms) - lowered)
    assert lowered == max(n for n in range(len(harms) + 1) if sum(harms[:n]) <= target)


def test_a_plan_that_breaks_the_metric_does_not_meet_the_target():
    found = lower_to_target([1, 0], 1, lambda plan: math.nan if plan[0] else 0.5, baseline=0.0, target=1.0)
    assert found.levels == (0, 1)


def test_a_constant_metric_is_pointed_out():
    assert "may not tell plans apart" in lower_to_target([0, 1], 1, lambda plan: 0.5, baseline=0.5, target=0.5).note


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": 0.95, "higher_is_better": True}, "the target 0.95 is above what the original reaches, 0.9; ask for no more"),
        ({"baseline": math.nan}, "the metric of the original is nan; look for missing labels"),
        ({"order": [0, 0]}, r"expected each layer 0 to 1 once in the order, got \[0, 0\]"),
    ],
)
def test_bad_targets(change, message):
    arguments = {"order": [0, 1], "levels": 1, "evaluate": lambda plan: 0.9, "baseline": 0.9, "target": 0.9} | change
    with pytest.raises(ParedownError, match=message):
        lower_to_target(**arguments)
