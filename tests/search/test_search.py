import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.record import MatrixEstimates
from paredown.search import Problem, allocate, measured_front, pareto_front
from paredown.specs import KEEP, Candidate, EigenvalueEstimate, LayerRef, Scheme, TraceEstimate

SCHEMES = [KEEP, Scheme.parse("int2g64"), Scheme.parse("int4g64"), Scheme.parse("int8g64")]


def layer(name, fused=()):
    return LayerRef(name, "linear", "q", "block", (8, 8), "float32", fused_with=fused)


def problem_of(costs, *, fixed=100, fuse=True, fused=False):
    """Layers from rows of (bytes, loss) pairs."""
    names = [f"l{i}" for i in range(len(costs))]
    layers = [layer(name, tuple(n for n in names[:2] if n != name) if fused and i < 2 else ()) for i, name in enumerate(names)]
    candidates = {
        name: {
            scheme: Candidate(name, scheme, scheme, size, loss, loss / 10, loss) for scheme, (size, loss) in zip(SCHEMES, row, strict=False)
        }
        for name, row in zip(names, costs, strict=True)
    }
    return Problem.of(fixed, layers, candidates, fuse=fuse)


def every_plan(problem):
    for choices in itertools.product(*(range(len(offered)) for offered in problem.schemes)):
        schemes = problem.decide(choices)
        predicted = problem.predict(schemes)
        yield predicted.bytes, predicted.loss_increase, schemes


eighths = st.integers(0, 40).map(lambda n: n / 8)  # their sums are exact, so that equal is equal
rows = st.lists(st.lists(st.tuples(st.integers(1, 50), eighths), min_size=4, max_size=4), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(rows, st.floats(0, 1), st.booleans())
def test_allocation_and_front_equal_brute_force(costs, share, fused):
    problem = problem_of(costs, fused=fused)
    budget = int(problem.smallest_bytes + share * (problem.largest_bytes - problem.smallest_bytes))
    best = min(loss for size, loss, _ in every_plan(problem) if size <= budget)
    chosen = problem.predict(allocate(problem, budget, objective="loss_increase"))
    assert chosen.bytes <= budget
    assert chosen.loss_increase == best
    front = pareto_front(problem)
    assert front.exact
    index = front.within(budget)
    assert index is not None
    assert front.loss[index] == best


@settings(deadline=None, max_examples=60)
@given(rows)
def test_front_holds_exactly_the_undominated_sizes_and_rebuilds_its_plans(costs):
    problem = problem_of(costs)
    front = pareto_front(problem)
    plans = {index: (size, loss) for index, (size, loss, _) in enumerate(every_plan(problem))}
    expected = [plans[key] for key in measured_front(plans)]
    assert [int(size) for size in front.bytes] == [size for size, _ in expected]
    assert front.loss.tolist() == [loss for _, loss in expected]
    for index in range(len(front)):
        predicted = problem.predict(front.schemes(index))
        assert predicted.bytes == front.bytes[index]
        assert predicted.loss_increase == front.loss[index]


def test_a_thinned_front_says_so_and_never_promises_what_it_cannot_build():
    problem = problem_of([[(i * 7 % 50 + 1, 5.0 - i), (i + 1, 5.0), (2 * i + 2, 4.0), (40 + i, 1.0)] for i in range(6)])
    exact, thin = pareto_front(problem), pareto_front(problem, limit=5)
    assert exact.exact
    assert not thin.exact
    for index in range(len(thin)):
        assert problem.predict(thin.schemes(index)).bytes == thin.bytes[index]
        best = exact.within(int(thin.bytes[index]))
        assert exact.loss[best] <= thin.loss[index] + 1e-12


COSTS = [[(40, 0.0), (2, 3.0), (4, 1.0), (8, 0.1)]] * 3


def test_fused_layers_get_one_scheme():
    problem = problem_of([[(40, 0.0), (2, 3.0), (4, 1.0), (8, 0.1)], [(40, 0.0), (2, 0.1), (4, 0.0), (8, 0.0)], *COSTS], fused=True)
    assert problem.groups[0] == ("l0", "l1")
    for budget in range(problem.smallest_bytes, problem.largest_bytes, 7):
        chosen = allocate(problem, budget)
        assert chosen["l0"] == chosen["l1"]


def test_locks_are_kept_and_an_impossible_one_names_the_smallest_size():
    problem = problem_of(COSTS)
    locked = {"l1": SCHEMES[3]}
    assert allocate(problem, 112, locked=locked)["l1"] == SCHEMES[3]
    with pytest.raises(ParedownError, match=r"smallest possible has 112 bytes with l1 locked; unlock some"):
        allocate(problem, 111, locked=locked)


def test_an_impossible_budget_says_the_smallest_possible():
    with pytest.raises(ParedownError, match=r"no plan fits into 105 bytes: the smallest possible has 106 bytes; raise the budget"):
        allocate(problem_of(COSTS), 105)


@pytest.mark.parametrize(
    ("locked", "message"),
    [
        ({"nowhere": KEEP}, "problem does not have: nowhere"),
        ({"l0": Scheme.parse("int3g64")}, "l0 is locked to int3g64, which was not priced; expected one of keep, int2g64"),
        ({"l0": SCHEMES[1], "l1": SCHEMES[2]}, "locks within the fused group l0, l1 disagree"),
    ],
    ids=["unknown layer", "unpriced scheme", "disagreeing locks"],
)
def test_bad_locks(locked, message):
    with pytest.raises(ParedownError, match=message):
        allocate(problem_of(COSTS, fused=True), 1000, locked=locked)


def test_predicting_an_unpriced_scheme_lists_the_priced_ones():
    with pytest.raises(ParedownError, match=r"l0: expected one of the priced schemes keep, int2g64, int4g64, int8g64, got int3g64"):
        problem_of(COSTS).predict({"l0": Scheme.parse("int3g64")})


def test_the_guarded_loss_fears_noise_and_large_steps():
    """Two schemes of the same bytes and prediction: the one that is known better, and moves the output less, wins."""
    names = ("int4g64", "int4g32")
    for noisy, steep in [((0.5, 0.1), (0.1, 0.1)), ((0.1, 0.1), (0.3, 0.1))]:
        candidates = {
            "l0": {
                scheme: Candidate("l0", scheme, scheme, 5, 1.0, deviation, error)
                for scheme, deviation, error in zip(map(Scheme.parse, names), noisy, steep, strict=True)
            }
        }
        assert str(allocate(Problem.of(0, [layer("l0")], candidates), 10)["l0"]) == "int4g32"


def test_a_missing_layer_is_kept_and_deviations_add_up():
    predicted = problem_of(COSTS).predict({"l0": SCHEMES[1], "l1": SCHEMES[2]})
    assert predicted.bytes == 100 + 2 + 4 + 40
    assert predicted.loss_increase == pytest.approx(4.0)
    assert predicted.loss_increase_sd == pytest.approx(0.4)


def test_effective_schemes_stand_in_for_the_asked_ones():
    asked, applied = Scheme.parse("int4g128"), Scheme.parse("int4g64")
    candidates = {"l0": {asked: Candidate("l0", asked, applied, 9, 0.5, 0.1, 0.1, "64 divides the inputs, 128 does not")}}
    problem = Problem.of(0, [layer("l0")], candidates)
    assert problem.effective({"l0": asked}) == {"l0": applied}
    assert problem.predict({"l0": applied}) == problem.predict({"l0": asked})


def test_nothing_priced():
    with pytest.raises(ParedownError, match="no layer has candidates yet"):
        Problem.of(0, [layer("l0")], {})


# -- one number of curvature a layer


def known(value, samples_sd=0.0, top=(), slices=()):
    return MatrixEstimates(
        TraceEstimate("l", "hessian", value, samples_sd, 0.0, 8, 1, 0),
        EigenvalueEstimate("l", "hessian", top, (0.0,) * len(top), (), (), 8, 1, 0, slice_tops=slices) if top else None,
    )


def curved(curvature, errors=(0.0, 4.0, 1.0, 0.1)):
    """Layers that differ in nothing but their curvature; the schemes of `COSTS`."""
    layers = [layer(name) for name in curvature]
    candidates = {
        name: {
            scheme: Candidate(name, scheme, scheme, size, 1.0, 0.1, 0.1, weight_error=error)
            for scheme, (size, _), error in zip(SCHEMES, COSTS[0], errors, strict=True)
        }
        for name in curvature
    }
    return Problem.of(100, layers, candidates, curvature=curvature)


@pytest.mark.parametrize(
    ("objective", "first"),
    [
        ("trace", 0.5 * 128 / 64),  # HAWQ-V2: half the mean eigenvalue of the 8 x 8 weights
        ("top_eigenvalue", 0.5 * 3.0),
        ("slices", 0.5 * (4.0 + 2.0)),  # Q-BERT: mean 4 and deviation 2 of the slices
    ],
)
def test_costs_are_half_the_curvature_times_the_squared_change(objective, first):
    problem = curved({"l0": known(128.0, top=(3.0, 1.0), slices=(2.0, 4.0, 6.0)), "l1": known(1.0, top=(0.1,), slices=(0.1, 0.1))})
    costs, _ = problem.costs(objective)
    assert costs == pytest.approx([first * error for error in (0.0, 4.0, 1.0, 0.1)])
    chosen = allocate(problem, 100 + 2 + 8, objective=objective)
    assert chosen == {"l0": SCHEMES[3], "l1": SCHEMES[1]}  # the bits go where the curvature is
    front = pareto_front(problem, objective=objective)
    assert front.schemes(front.within(110)) == chosen


def test_a_negative_trace_counts_as_its_own_error_and_an_eigenvalue_below_zero_as_nothing():
    problem = curved({"l0": known(-64.0, samples_sd=6.4, top=(-1.0,))})
    assert problem.costs("trace")[0][1] == pytest.approx(0.5 * 0.1 * 4.0)
    assert problem.costs("top_eigenvalue")[0].tolist() == [0, 0, 0, 0]


def test_a_sensitivity_that_was_not_estimated_names_the_layer():
    problem = curved({"l0": known(1.0)})
    for objective in ("top_eigenvalue", "slices"):
        with pytest.raises(ParedownError, match=rf"'{objective}' needs an estimate that l0 does not have; .*Study.estimate"):
            allocate(problem, 200, objective=objective)


def test_candidates_of_an_earlier_version_hold_no_squared_change():
    with pytest.raises(ParedownError, match="which studies of earlier versions don't hold; run a new study"):
        curved({"l0": known(1.0)}, errors=(0.0, 0.0, 0.0, 0.0)).costs("trace")
