import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.search import Constraints, Problem, allocate, best_plan, bit_operations, distinct, narrowed, pareto_front
from paredown.specs import KEEP, Candidate, LayerRef, Scheme

TWO, FOUR, EIGHT = map(Scheme.parse, ("int2g64", "int4g64", "int8g64"))
SCHEMES = [KEEP, TWO, FOUR, EIGHT]
ROW = [(40, 0.0), (2, 3.0), (4, 1.0), (8, 0.125)]
ROLES = ("q", "k", "up", "down")


def problem_of(rows, *, fused=(), seconds=None):
    """One layer a row of (bytes, loss) pairs, roles in turn; `fused` names the places that are decided together."""
    names = [f"l{i}" for i in range(len(rows))]
    layers = [
        LayerRef(
            name, "linear", ROLES[i % 4], "b", (8, 8), "float32", fused_with=tuple(names[j] for j in fused if j != i) if i in fused else ()
        )
        for i, name in enumerate(names)
    ]
    candidates = {
        name: {scheme: Candidate(name, scheme, scheme, size, loss, 0.0, 0.0) for scheme, (size, loss) in zip(SCHEMES, row, strict=True)}
        for name, row in zip(names, rows, strict=True)
    }
    columns = seconds and {"seconds": {name: dict(zip(SCHEMES, row, strict=True)) for name, row in zip(names, seconds, strict=True)}}
    return Problem.of(100, layers, candidates, columns=columns or None)


def every_plan(problem):
    for choices in itertools.product(*(range(len(offered)) for offered in problem.schemes)):
        yield (
            problem.decide(choices),
            [sum(column[c] for column, c in zip(columns, choices, strict=True)) for columns in problem_columns(problem)],
        )


def problem_columns(problem):
    return [problem.bytes, problem.loss_increase, *([problem.columns["seconds"]] if "seconds" in problem.columns else [])]


def test_lists_by_role_are_kept():
    problem = problem_of([ROW] * 4)
    chosen = allocate(problem, 1000, constraints=Constraints(roles={"q": [TWO, FOUR], "up": [TWO]}))
    assert chosen == {"l0": FOUR, "l1": KEEP, "l2": TWO, "l3": KEEP}


def test_what_the_runtime_refuses_is_left_out_of_plans_and_fronts():
    def refusal(layer, scheme):
        return "no 2-bit kernel" if scheme == TWO and layer.role == "down" else ""

    left = narrowed(problem_of([ROW] * 4), Constraints(refusal=refusal))
    assert allocate(left, left.smallest_bytes) == {"l0": TWO, "l1": TWO, "l2": TWO, "l3": FOUR}
    front = pareto_front(left)
    assert all(front.schemes(index)["l3"] != TWO for index in range(len(front)))


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (Constraints(roles={"gate": [TWO]}), r"lists for roles that no layer has: gate; expected some of down, k, q, up"),
        (Constraints(roles={"q": []}), r"nothing is left for l0, l1: the list for role q \(empty\); priced were keep, int2g64"),
        (Constraints(roles={"q": [TWO], "k": [FOUR]}), r"l0, l1: the list for role q \(int2g64\); the list for role k \(int4g64\)"),
        (Constraints(locked={"l1": TWO}, roles={"k": [FOUR]}), r"l1 is locked to int2g64; the list for role k .* Unlock it, or widen"),
        (Constraints(refusal=lambda _, scheme: f"no kernel for {scheme}"), r"the runtime \(keep: no kernel for keep\)"),
    ],
    ids=["unknown role", "empty list", "lists of a fused group", "lock against list", "runtime takes nothing"],
)
def test_contradictions_name_what_stands_in_the_way(constraints, message):
    with pytest.raises(ParedownError, match=message):
        narrowed(problem_of([ROW] * 4, fused=(0, 1)), constraints)


def test_a_budget_that_is_too_small_names_only_what_made_it_so():
    problem = problem_of([ROW] * 4)
    constraints = Constraints(
        locked={"l0": TWO, "l1": EIGHT}, roles={"up": [FOUR], "q": [TWO]}, refusal=lambda _, scheme: "" if scheme != KEEP else "no"
    )
    with pytest.raises(
        ParedownError, match=r"smallest possible has 116 bytes with l1 locked; unlock some and with the lists for up; add smaller"
    ) as error:
        allocate(problem, 110, constraints=constraints)
    assert "runtime" not in str(error.value)
    with pytest.raises(ParedownError, match="with what the runtime takes; choose another one"):
        allocate(problem, 110, constraints=Constraints(refusal=lambda _, scheme: "" if scheme != TWO else "no kernel"))


def test_locks_on_one_fused_group_are_named_together():
    problem = problem_of([ROW] * 3, fused=(0, 1))
    with pytest.raises(ParedownError, match="with l0, l1 locked; unlock some"):
        allocate(problem, 110, constraints=Constraints(locked={"l0": EIGHT, "l1": EIGHT}))


# -- few schemes

rows = st.lists(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40).map(lambda n: n / 8)), min_size=4, max_size=4), min_size=1, max_size=4
)


@pytest.mark.parametrize("subsets", [distinct.SUBSETS, 0], ids=["tried one by one", "integer program"])
def test_few_schemes_equal_brute_force(subsets, monkeypatch):
    monkeypatch.setattr(distinct, "SUBSETS", subsets)

    @settings(deadline=None, max_examples=60 if subsets else 25)
    @given(rows, st.integers(1, 3), st.floats(0, 1))
    def check(costs, count, share):
        problem = problem_of(costs, fused=(0, 1) if len(costs) > 1 else ())
        fitting = [(sums, schemes) for schemes, sums in every_plan(problem) if len({*schemes.values()} - {KEEP}) <= count]
        low, high = min(size for (size, _), _ in fitting), max(size for (size, _), _ in fitting)
        budget = int(low + share * (high - low))
        best = min(loss for (size, loss), _ in fitting if size <= budget)
        found = best_plan(problem, 100 + budget, objective="loss_increase", constraints=Constraints(distinct=count))
        assert len({*found.schemes.values()} - {KEEP}) <= count
        assert problem.predict(found.schemes).bytes <= 100 + budget
        assert found.cost == best
        assert found.bound == pytest.approx(best, abs=1e-6)

    check()


def test_no_two_schemes_that_fit():
    problem = problem_of([[(9, 0.0), (1, 1.0), (5, 1.0), (5, 1.0)], [(9, 0.0), (5, 1.0), (1, 1.0), (5, 1.0)]])
    assert allocate(problem, 102, constraints=Constraints(distinct=2)) == {"l0": TWO, "l1": FOUR}
    with pytest.raises(
        ParedownError, match="no plan of at most 1 schemes fits: the smallest takes 6 of 2; raise the budget, or allow more schemes"
    ):
        allocate(problem, 102, constraints=Constraints(distinct=1))
    with pytest.raises(ParedownError, match="at least one scheme, got distinct=0"):
        Constraints(distinct=0)


# -- other resources


@settings(deadline=None, max_examples=40)
@given(rows, st.data())
def test_two_budgets_at_once_equal_brute_force(costs, data):
    seconds = [data.draw(st.lists(st.integers(1, 20), min_size=4, max_size=4)) for _ in costs]
    problem = problem_of(costs, seconds=seconds)
    plans = list(every_plan(problem))
    _, (size, _, time) = data.draw(st.sampled_from(plans))  # some plan fits
    best = min(loss for _, (other, loss, slow) in plans if other <= size and slow <= time)
    found = best_plan(problem, 100 + size, objective="loss_increase", limits={"seconds": time})
    assert problem.predict(found.schemes).bytes <= 100 + size
    assert found.cost == best
    assert found.bound <= best + 1e-6
    alone = best_plan(problem, time, objective="loss_increase", resource="seconds")
    assert alone.cost == min(loss for _, (_, loss, slow) in plans if slow <= time)
    front = pareto_front(problem, resource="seconds")
    assert front.loss[front.within(time)] == alone.cost
    assert front.bytes[-1] == problem.predict(front.schemes(len(front) - 1)).bytes


def test_latency_that_nobody_measured_is_refused_with_a_remedy():
    with pytest.raises(ParedownError, match=r"latency is not known: nothing has timed the candidates; give the study latency_tokens"):
        allocate(problem_of([ROW]), 1.0, resource="seconds")
    with pytest.raises(ParedownError, match="expected a resource out of bytes, bit_operations, seconds, got 'joules'"):
        allocate(problem_of([ROW]), 1.0, resource="joules")
    with pytest.raises(ParedownError, match="no plan fits into 100 bit operations: the least possible is 2048"):
        allocate(problem_of([ROW]), 100, resource="bit_operations")
    with pytest.raises(ParedownError, match="'seconds' needs a finite value for int4g64 on l0, got None"):
        Problem.of(
            0,
            [LayerRef("l0", "linear", "q", "b", (8, 8), "float32")],
            {"l0": {FOUR: Candidate("l0", FOUR, FOUR, 1, 0, 0, 0)}},
            columns={"seconds": {}},
        )


def test_seconds_of_the_candidates_are_a_budget_and_a_prediction():
    seconds = {KEEP: 4.0, TWO: 1.0, FOUR: 2.0, EIGHT: 3.0}
    plain = problem_of([ROW] * 3)
    timed = {
        name: {scheme: replace(each, seconds_per_token=seconds[scheme]) for scheme, each in of.items()}
        for name, of in ((choices[0][0].layer, {c[0].scheme: c[0] for c in choices}) for choices in plain.candidates)
    }
    problem = Problem.of(100, list(plain.layers.values()), timed)
    chosen = allocate(problem, 7.0, resource="seconds", objective="loss_increase")
    predicted = problem.predict(chosen)
    assert predicted.seconds_per_token == sum(seconds[scheme] for scheme in chosen.values()) <= 7.0
    assert plain.predict(chosen).seconds_per_token is None
    assert plain.predict(chosen).loss_increase == predicted.loss_increase
    timed["l1"][TWO] = replace(timed["l1"][TWO], seconds_per_token=None)
    with pytest.raises(ParedownError, match="latency is not known"):
        allocate(Problem.of(100, list(plain.layers.values()), timed), 7.0, resource="seconds")


@pytest.mark.parametrize(
    ("scheme", "operations"),
    [
        ("keep", 64 * 128 * 16 * 16),
        ("int4g64", 64 * 128 * 4 * 16),
        ("int8a8", 64 * 128 * 8 * 8),
        ("int4g64a8+2:4", 64 * 128 // 2 * 4 * 8),
        ("int4g64+eora8", (64 * 128 * 4 + 8 * 192 * 16) * 16),
        ("svd8", 8 * 192 * 16 * 16),
    ],
)
def test_bit_operations(scheme, operations):
    layer = LayerRef("l", "linear", "q", "b", (64, 128), "float32")
    assert bit_operations(layer, Scheme.parse(scheme)) == operations
    assert bit_operations(LayerRef("e", "embedding", "embedding", "", (64, 128), "float32"), Scheme.parse(scheme)) == 0


def test_a_problem_with_fewer_choices_keeps_its_columns_in_step():
    problem = problem_of([ROW] * 2, seconds=[[4, 1, 2, 3]] * 2)
    left = problem.narrowed([np.array([False, True, True, False])] * 2)
    assert left.schemes == ((TWO, FOUR),) * 2
    assert [values.tolist() for values in left.amounts("seconds")] == [[1, 2]] * 2
    assert left.predict({"l0": TWO, "l1": FOUR}) == problem.predict({"l0": TWO, "l1": FOUR})
