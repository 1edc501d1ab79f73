import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from paredown.errors import ParedownError
from paredown.record import MatrixEstimates
from paredown.search import Problem, allocate
from paredown.search.classics import CLASSICS, compare
from paredown.search.mixes import trade_offs
from paredown.search.monotone import monotone_front
from paredown.search.ranks import agreement_table, rank_agreement
from paredown.specs import KEEP, Candidate, EigenvalueEstimate, LayerRef, Scheme, TraceEstimate

LADDER = tuple(map(Scheme.parse, ("int8g64", "int4g64", "int2g64")))
SCORES = ("fisher", "kfac", "ekfac", "modelopt", "delta_loss", "measured_loss")


def problem_of(traces, *, seed=0, scores=SCORES, seconds=True):
    """Layers of 64 weights and the given traces; errors that fall with the bits; scores at random."""
    draw = np.random.default_rng(seed)
    names = [f"l{i}" for i in range(len(traces))]
    layers = [LayerRef(name, "linear", "q", "b", (8, 8), "float32") for name in names]
    errors = {name: {s: float(4.0**-s.weight.bits * draw.uniform(0.5, 2)) for s in LADDER} for name in names}
    candidates = {
        name: {
            KEEP: Candidate(name, KEEP, KEEP, 160, 0.0, 0.0, 0.0),
            **{
                s: Candidate(
                    name,
                    s,
                    s,
                    int(8 * s.weight.bits + draw.integers(0, 3)),
                    errors[name][s] * trace,
                    0.0,
                    0.1,
                    weight_error=errors[name][s],
                )
                for s in LADDER
            },
        }
        for name, trace in zip(names, traces, strict=True)
    }
    known = {
        name: MatrixEstimates(
            TraceEstimate(name, "hessian", float(trace), 0.0, 0.0, 8, 1, 0),
            EigenvalueEstimate(name, "hessian", (float(trace) / 2,), (0.0,), (), (), 8, 1, 0, slice_tops=(float(trace) / 3, float(trace))),
        )
        for name, trace in zip(names, traces, strict=True)
    }
    columns = {
        score: {n: {s: 0.0 if s == KEEP else errors[n][s] * float(draw.uniform(0.5, 2)) for s in (KEEP, *LADDER)} for n in names}
        for score in scores
    }
    if seconds:
        columns["seconds"] = {n: {s: float(draw.uniform(1, 5)) for s in (KEEP, *LADDER)} for n in names}
    return Problem.of(0, layers, candidates, curvature=known, columns=columns)


# -- HAWQ-V2


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=5, unique=True), st.integers(0, 9))
def test_the_monotone_front_equals_brute_force(traces, seed):
    problem = problem_of(traces, seed=seed)
    found = monotone_front(problem, LADDER)
    assert found.enumerated == comb(len(traces) + 2, 2)
    order = np.argsort(-np.array(traces), kind="stable")
    assert found.order.tolist() == order.tolist()
    costs = problem.costs("trace")
    plans = []
    for levels in itertools.product(range(3), repeat=len(traces)):
        if all(levels[a] <= levels[b] for a, b in itertools.pairwise(order)):  # a lower level has more bits
            places = [offered.index(LADDER[level]) for offered, level in zip(problem.schemes, levels, strict=True)]
            plans.append(
                (sum(int(b[p]) for b, p in zip(problem.bytes, places, strict=True)), sum(c[p] for c, p in zip(costs, places, strict=True)))
            )
    assert len(plans) == found.enumerated
    best = {size: min(cost for other, cost in plans if other <= size) for size, _ in plans}
    for size, cost in best.items():
        assert found.front.loss[found.front.within(size)] == pytest.approx(cost, rel=1e-9)
    for index in range(len(found.front)):
        predicted = problem.predict(found.front.schemes(index))
        assert predicted.bytes == found.front.amounts[index]


def test_the_count_is_that_of_the_paper_and_too_many_plans_are_refused():
    problem = problem_of(np.linspace(1, 9, 50))
    assert monotone_front(problem, LADDER).enumerated == comb(52, 2)
    assert comb(50 + 4 - 1, 4 - 1) == 23_426  # fifty layers and four widths
    with pytest.raises(ParedownError, match=r"3 schemes for 2500 groups make 3,128,751 monotone plans, .* objective='trace'"):
        monotone_front(problem_of(np.linspace(1, 9, 2500), scores=(), seconds=False), LADDER)
    with pytest.raises(ParedownError, match="l0 is not offered int3g64; leave it out of the ladder, or price it there too"):
        monotone_front(problem, (Scheme.parse("int3g64"),))


def test_a_group_without_a_choice_keeps_what_it_has_and_takes_no_part_in_the_order():
    whole = problem_of([3.0, 1.0, 2.0])
    masks = [np.ones(len(whole.schemes[0]), bool)] * 3
    masks[2] = np.arange(len(whole.schemes[2])) == whole.schemes[2].index(LADDER[0])
    problem = whole.narrowed(masks)
    found = monotone_front(problem, LADDER)
    assert found.order.tolist() == [0, 1]
    for index in range(len(found.front)):
        schemes = found.front.schemes(index)
        assert schemes["l2"] == LADDER[0]
        assert problem.predict(schemes).bytes == found.front.amounts[index]
        assert cost_of(problem, schemes, "trace") == pytest.approx(found.front.loss[index])
    table = compare(problem, 300, ladder=LADDER[1:])  # l2 does not offer it
    assert table.schemes["HAWQ-V2"]["l2"] == LADDER[0]
    with pytest.raises(ParedownError, match="every group has a single choice"):
        monotone_front(whole.narrowed([masks[2]] * 3), LADDER)


# -- side by side


def test_the_program_is_never_worse_than_the_monotone_plan_nor_that_than_uniform():
    problem = problem_of(np.geomspace(0.1, 50, 12))
    for level, scheme in enumerate(LADDER):
        uniform = problem.decide([offered.index(scheme) for offered in problem.schemes])
        table = compare(problem, problem.predict(uniform).bytes, ladder=LADDER)
        costs = {name: cost_of(problem, table.schemes[name], "trace") for name in ("HAWQ-V2", "HAWQ-V3")}
        assert costs["HAWQ-V3"] <= costs["HAWQ-V2"] <= cost_of(problem, uniform, "trace"), level


def cost_of(problem, schemes, objective):
    places = [offered.index(schemes[group[0]]) for offered, group in zip(problem.schemes, problem.groups, strict=True)]
    return sum(c[p] for c, p in zip(problem.costs(objective), places, strict=True))


def test_every_classic_has_the_least_of_its_own_score():
    problem = problem_of(np.geomspace(0.1, 50, 10))
    table = compare(problem, 400, ladder=LADDER)
    assert list(table.index) == [classic.name for classic in CLASSICS]
    assert (table.refused == "").all()
    assert (table.bytes <= 400).all()
    for classic in CLASSICS:
        own = cost_of(problem, table.schemes[classic.name], classic.objective)
        if not classic.monotone:
            assert own <= min(cost_of(problem, schemes, classic.objective) for schemes in table.schemes) + 1e-15


def test_what_is_missing_is_said_for_each_classic():
    problem = problem_of([1.0, 2.0, 3.0], scores=("fisher",))
    table = compare(problem, 300)
    assert table.refused["LQ-LoRA"] == ""
    assert "the score 'modelopt' was not asked for; give the study scores=('modelopt',)" in table.refused["AutoQuantize"]
    assert "name the ladder" in table.refused["HAWQ-V2"]
    assert "the smallest has" in compare(problem, 40, ladder=LADDER).refused["HAWQ-V2"]
    with pytest.raises(ParedownError, match="expected an objective such as guarded_loss, loss_increase or trace, got 'gut_feeling'"):
        allocate(problem, 300, objective="gut_feeling")


# -- rank agreement


def test_spearman_is_scipys_with_an_interval_around_it():
    draw = np.random.default_rng(0)
    first = draw.standard_normal(40)
    second = np.round(first + 0.5 * draw.standard_normal(40), 1)  # with ties
    found = rank_agreement(first, second, seed=1)
    assert found.spearman == pytest.approx(spearmanr(first, second).statistic)
    assert found.low < found.spearman < found.high
    assert found == rank_agreement(first, second, seed=1)
    assert rank_agreement(first, np.exp(first)).low == pytest.approx(1)
    assert rank_agreement(first, -first).high == pytest.approx(-1)
    assert np.isnan(rank_agreement(first, np.ones(40)).spearman)
    with pytest.raises(ParedownError, match=r"expected two scores of the same 3 or more values, got \[2\] and \[2\]"):
        rank_agreement(first[:2], second[:2])


def test_intervals_hold_the_true_correlation_as_often_as_they_say():
    draw = np.random.default_rng(2)
    true = 6 / np.pi * np.arcsin(0.8 / 2)  # of a normal pair with correlation 0.8
    held = 0
    for seed in range(60):
        first = draw.standard_normal(50)
        second = 0.8 * first + 0.6 * draw.standard_normal(50)
        found = rank_agreement(first, second, resamples=200, seed=seed)
        held += found.low <= true <= found.high
    assert held >= 60 * 0.95 - 3 * np.sqrt(60 * 0.95 * 0.05) - 2  # three deviations, and what a percentile interval is short of


def test_groups_that_are_drawn_whole_widen_the_interval():
    draw = np.random.default_rng(3)
    first, second = np.repeat(draw.standard_normal((2, 12)), 8, axis=1) + 0.01 * draw.standard_normal((2, 96))
    groups = np.repeat(np.arange(12), 8)
    alone, whole = rank_agreement(first, second), rank_agreement(first, second, groups=groups)
    assert whole.high - whole.low > 1.5 * (alone.high - alone.low)


def test_the_table_compares_any_two_objectives():
    problem = problem_of(np.geomspace(0.1, 50, 20))
    table = agreement_table(problem, ["trace", "top_eigenvalue", "fisher", "measured_loss"], scheme=LADDER[1])
    assert len(table) == 6
    assert (table.n == 20).all()
    assert table.spearman[0] == pytest.approx(1)  # the eigenvalues are half the traces here
    assert len(set(agreement_table(problem, ["trace", "fisher"]).n)) == 1
    assert agreement_table(problem, ["trace", "fisher"]).n[0] == 60
    with pytest.raises(ParedownError, match="0 groups offer int3g64; name another scheme"):
        agreement_table(problem, ["trace", "fisher"], scheme=Scheme.parse("int3g64"))


# -- three objectives


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 99), st.integers(1, 4))
def test_no_trade_off_is_beaten_by_another_and_the_mixed_optima_are_among_them(seed, layers):
    problem = problem_of(np.linspace(1, 9, layers), seed=seed)
    found = trade_offs(problem, mixes=5, tolerance=0.0)
    points = np.column_stack([found.loss, found.amounts])
    for place, point in enumerate(points):
        others = np.delete(points, place, 0)
        assert not ((others <= point).all(1)).any()
        predicted = problem.predict(found.schemes(place))
        assert predicted.bytes == found.amounts[place, 0]
        assert predicted.loss_increase == pytest.approx(found.loss[place])
    for budget in (problem.smallest_bytes, (problem.smallest_bytes + problem.largest_bytes) // 2):
        best = cost_of(problem, allocate(problem, budget, objective="loss_increase"), "loss_increase")
        assert found.loss[found.amounts[:, 0] <= budget].min() == pytest.approx(best)
