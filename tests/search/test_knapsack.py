import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.search import sweep as sweep_module
from paredown.search.knapsack import Table, best_price, solve
from paredown.search.sweep import sweep
from reference.knapsack import best_cost, by_highs, every_selection, undominated

eighths = st.integers(0, 80).map(lambda n: n / 8)  # their sums are exact, so that equal is equal


@st.composite
def problems(draw, groups=5, choices=4):
    sizes = draw(st.lists(st.integers(1, choices), min_size=1, max_size=groups))
    weight = st.integers(1, 30) if draw(st.booleans()) else st.integers(1, 4).map(lambda n: 12 * n)
    costs = [np.array(draw(st.lists(eighths, min_size=size, max_size=size))) for size in sizes]
    weights = [np.array(draw(st.lists(weight, min_size=size, max_size=size))) for size in sizes]
    return costs, weights


def transformer_like(seed, groups=40, choices=8):
    """Sensitivities that differ a thousandfold, errors that fall fourfold a bit, four shapes."""
    draw = np.random.default_rng(seed)
    bits = np.linspace(2, 8, choices)
    sizes = draw.choice([1000, 1400, 4000, 4004], groups)
    weights = [np.round(size * bits / 8 + draw.integers(0, 9, choices)).astype(int) for size in sizes]
    return [size / 1000 * draw.lognormal(sigma=1.5) * 4.0**-bits * draw.lognormal(sigma=0.2, size=choices) for size in sizes], weights


def total(values, choices):
    return sum(value[choice] for value, choice in zip(values, choices, strict=True))


# -- one budget


@settings(deadline=None, max_examples=150)
@given(problems(), st.floats(0, 1))
def test_the_best_selection_equals_brute_force(problem, share):
    costs, weights = problem
    low, high = (sum(int(ends(weight)) for weight in weights) for ends in (np.min, np.max))
    budget = low + int(share * (high - low))
    found = solve(costs, weights, budget)
    assert total(weights, found.choices) <= budget
    assert total(costs, found.choices) == found.cost == found.bound == best_cost(costs, weights, budget)


@settings(deadline=None, max_examples=60)
@given(problems(), st.floats(0, 1), st.floats(0.001, 1000))
def test_weights_need_not_be_whole(problem, share, unit):
    costs, weights = problem
    weights = [weight * unit for weight in weights]
    sums = sorted(weight for weight, _, _ in every_selection(costs, weights))
    budget = sums[int(share * (len(sums) - 1))]  # exactly what some selection weighs
    found = solve(costs, weights, budget)
    assert total(weights, found.choices) <= budget * (1 + 1e-12)
    assert found.cost <= best_cost(costs, weights, budget)


@pytest.mark.parametrize("seed", range(4))
def test_middling_problems_agree_with_highs(seed):
    costs, weights = transformer_like(seed)
    low, high = (sum(int(ends(weight)) for weight in weights) for ends in (np.min, np.max))
    for share in (0.1, 0.3, 0.6):
        budget = int(low + share * (high - low))
        found = solve(costs, weights, budget)
        rival, bound = by_highs(costs, weights, budget)
        assert found.bound == found.cost
        assert total(weights, found.choices) <= budget
        assert found.cost <= rival * (1 + 1e-6)
        assert found.cost >= bound * (1 - 1e-6)


@settings(deadline=None, max_examples=60)
@given(problems(), st.floats(0, 1), st.integers(1, 3))
def test_with_too_little_room_for_partial_selections_the_bound_still_holds(problem, share, states):
    costs, weights = problem
    low, high = (sum(int(ends(weight)) for weight in weights) for ends in (np.min, np.max))
    budget = low + int(share * (high - low))
    found = solve(costs, weights, budget, states=states)
    best = best_cost(costs, weights, budget)
    assert total(weights, found.choices) <= budget
    assert found.bound - 1e-9 <= best <= found.cost


@pytest.mark.parametrize("seed", range(3))
def test_within_a_tolerance_of_the_optimum_and_no_better_than_the_bound_says(seed):
    costs, weights = transformer_like(seed)
    low, high = (sum(int(ends(weight)) for weight in weights) for ends in (np.min, np.max))
    for share in (0.1, 0.3, 0.6):
        budget = int(low + share * (high - low))
        best, near = solve(costs, weights, budget), solve(costs, weights, budget, tolerance=0.01)
        assert total(weights, near.choices) <= budget
        assert near.bound <= best.cost <= near.cost <= best.cost * 1.01


@settings(deadline=None, max_examples=60)
@given(problems(), st.floats(0, 1))
def test_no_price_has_a_higher_bound_than_the_best_one(problem, share):
    costs, weights = problem
    table = Table.of(costs, weights)
    limit = np.floor(share * table.weights.max(1).sum())
    price, light = best_price(table, limit)

    def bound(at):
        return table.priced(at)[0].min(1).sum() - at * limit

    assert table.total(light)[0] <= limit
    others = [0.0, price / 2, price * 0.999, price * 1.001, 2 * price, 1.0]
    assert bound(price) >= max(map(bound, others)) - 1e-9


def test_a_budget_below_the_lightest_selection_says_what_that_weighs():
    with pytest.raises(ParedownError, match="expected a budget of at least 7, what the lightest choices weigh, got 6"):
        solve([np.array([1.0, 0.0]), np.array([0.0])], [np.array([3, 9]), np.array([4])], 6)


# -- all budgets


@pytest.fixture(params=[0, 30], ids=["stretch by stretch", "at once"])
def few(request, monkeypatch):
    monkeypatch.setattr(sweep_module, "FEW", request.param)


@pytest.mark.usefixtures("few")
def test_the_whole_front_equals_brute_force():
    @settings(deadline=None, max_examples=120)
    @given(problems())
    def check(problem):
        costs, weights = problem
        found = sweep(costs, weights)
        points = [(weight, cost) for weight, cost, _ in every_selection(costs, weights)]
        assert list(zip(found.weights.tolist(), found.costs.tolist(), strict=True)) == undominated(points)
        assert not found.gaps.any()
        for weight, cost, choices in zip(found.weights, found.costs, found.choices, strict=True):
            assert (total(weights, choices), total(costs, choices)) == (weight, cost)

    check()


@pytest.mark.parametrize("seed", range(2))
def test_the_front_of_a_middling_problem_is_best_at_every_budget_that_is_tried(seed, monkeypatch):
    monkeypatch.setattr(sweep_module, "FEW", 0)
    costs, weights = transformer_like(seed, groups=24, choices=6)
    found = sweep(costs, weights)
    assert not found.gaps.any()
    for budget in np.linspace(found.weights[0], found.weights[-1], 25).astype(int):
        index = np.searchsorted(found.weights, budget, side="right") - 1
        assert found.costs[index] == pytest.approx(solve(costs, weights, budget).cost, rel=1e-12)


@pytest.mark.parametrize("tolerance", [0.1, 0.01])
def test_a_tolerance_is_kept_at_every_budget(tolerance, monkeypatch):
    monkeypatch.setattr(sweep_module, "FEW", 0)
    costs, weights = transformer_like(3, groups=40)
    thin, exact = sweep(costs, weights, tolerance=tolerance), sweep(costs, weights)
    assert len(thin.weights) < len(exact.weights)
    assert not exact.gaps.any()
    assert thin.gaps.max() <= tolerance
    for weight, cost, choices in zip(thin.weights[::50], thin.costs[::50], thin.choices[::50], strict=True):
        assert total(weights, choices) == weight
        assert total(costs, choices) == pytest.approx(cost, rel=1e-12)
    at = np.searchsorted(thin.weights, exact.weights, side="right") - 1
    large = exact.costs > exact.costs[0] * 1e-5
    assert (exact.costs >= thin.costs[at] * (1 - thin.gaps[at]) * (1 - 1e-9))[large].all()


def test_too_little_room_shows_in_the_gaps_and_these_are_true(monkeypatch):
    monkeypatch.setattr(sweep_module, "FEW", 0)
    costs, weights = transformer_like(4, groups=24)
    rough, exact = sweep(costs, weights, states=20), sweep(costs, weights)
    assert rough.gaps.any()
    at = np.searchsorted(rough.weights, exact.weights, side="right") - 1
    large = exact.costs > exact.costs[0] * 1e-5
    assert (exact.costs >= rough.costs[at] * (1 - rough.gaps[at]) * (1 - 1e-9))[large].all()


def test_a_range_of_budgets_holds_all_of_the_front_that_lies_within(monkeypatch):
    monkeypatch.setattr(sweep_module, "FEW", 0)
    costs, weights = transformer_like(5, groups=24)
    whole = sweep(costs, weights)
    low, high = whole.weights[len(whole.weights) // 3], whole.weights[len(whole.weights) // 2]
    part = sweep(costs, weights, between=(low, high))
    inside = (whole.weights >= low) & (whole.weights <= high)
    found = (part.weights >= low) & (part.weights <= high)
    assert part.weights[found].tolist() == whole.weights[inside].tolist()
    assert len(part.weights) < len(whole.weights)
    assert not part.gaps[found].any()
