"""Measured refinement against brute force, on small problems whose plans are measured by a formula."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paredown.errors import ParedownError
from paredown.search import Constraints, Problem, best_plan
from paredown.search.refinement import Refinement
from paredown.specs import Candidate, LayerRef, Scheme

BITS = {Scheme.parse(f"int{bits}g64"): bits for bits in (2, 3, 4, 8)}
SCHEMES = list(BITS)


class Measured:
    """Layers whose perturbations have random directions: loss of sample s is ½ |Σ_i J_si Δ_i|², so that interactions are known.

    Where samples are alike they leave nothing open, and the best plan is the one that was measured best."""

    def __init__(self, seed, layers=5, samples=24, interacting=True, fuse=False, alike=False):
        draw = np.random.default_rng(seed)
        self.names = [f"l{i}" for i in range(layers)]
        sizes = draw.integers(1, 4, layers) * 64
        outputs = 2 if interacting else layers
        self.effects = draw.normal(size=(samples, layers, outputs)) * draw.lognormal(sigma=0.4, size=(layers, 1)) + draw.normal(
            size=(layers, outputs)
        )
        if not interacting:
            self.effects = np.abs(self.effects[:, :, :1]) * np.eye(layers)
        self.alike = alike
        refs = [
            LayerRef(
                n,
                "linear",
                "q",
                "b",
                (int(s), 64),
                "float32",
                fused_with=tuple(m for m in self.names[:2] if m != n) if fuse and i < 2 else (),
            )
            for i, (n, s) in enumerate(zip(self.names, sizes, strict=True))
        ]
        predicted = 0.5 * np.square(self.effects).sum(2).mean(0)
        candidates = {
            n: {
                scheme: Candidate(
                    n, scheme, scheme, int(size) * bits, float(loss) * 4.0 ** (2 - bits), float(loss) * 4.0 ** (2 - bits) / 10, 0.1
                )
                for scheme, bits in BITS.items()
            }
            for n, size, loss in zip(self.names, sizes, predicted, strict=True)
        }
        self.layers, self.candidates = refs, candidates
        self.problem = Problem.of(100, refs, candidates, fuse=fuse)
        self.units = np.ones(samples)

    def losses(self, schemes):
        steps = np.array([2.0 ** (2 - BITS[schemes[name]]) for name in self.names])
        found = 0.5 * np.square(np.einsum("slo,l->so", self.effects, steps)).sum(1)
        return np.full(len(found), found.mean()) if self.alike else found

    def every(self):
        for choices in itertools.product(*(range(len(offered)) for offered in self.problem.schemes)):
            schemes = self.problem.decide(choices)
            yield self.problem.predict(schemes).bytes, float(self.losses(schemes).mean()), schemes

    def budget(self, share):
        low, high = self.problem.smallest_bytes, self.problem.largest_bytes
        return int(low + share * (high - low))

    def run(self, search, shuffled=None):
        found = []
        while requests := search.ask():
            order = list(requests) if shuffled is None else [requests[i] for i in shuffled.permutation(len(requests))]
            for request in order:
                found += search.tell(request, self.losses(request.schemes)[search.order[request.start : request.stop]])
        return found


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0.02, 0.7), st.booleans())
def test_the_best_plan_is_believed_to_be_no_worse_than_any_and_measured_no_worse_than_uniform(seed, share, fuse):
    world = Measured(seed, fuse=fuse)
    budget = world.budget(share)
    search = Refinement(world.problem, [budget], world.units, plans=6, width=3)
    world.run(search)
    best = search.best(budget)
    assert world.problem.predict(best.schemes).bytes <= budget
    assert search.loss(best.choices) == pytest.approx(world.losses(best.schemes).mean())
    seen = {tuple(each.schemes.values()): each for each in search.whole()}
    for objective in ("guarded_loss", "loss_increase"):
        assert tuple(best_plan(world.problem, budget, objective=objective).schemes.values()) in seen
    for schemes, each in seen.items():
        if search.amount(each.choices) <= budget and len(set(schemes)) == 1:
            assert search.loss(best.choices) <= search.loss(each.choices)
        if search.amount(each.choices) <= budget and search.loss(each.choices) <= search.loss(best.choices):
            assert search.believed(best.choices) <= search.believed(each.choices)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000), st.floats(0.02, 0.7))
def test_where_samples_agree_the_best_plan_is_the_one_measured_best(seed, share):
    world = Measured(seed, alike=True)
    budget = world.budget(share)
    search = Refinement(world.problem, [budget], world.units, plans=6, width=3)
    world.run(search)
    losses = [search.loss(each.choices) for each in search.whole() if search.amount(each.choices) <= budget]
    assert search.loss(search.best(budget).choices) == min(losses)
    assert search.believed(search.best(budget).choices) == pytest.approx(min(losses))


def test_it_finds_the_measured_optimum_where_layers_interact_after_measuring_a_twentieth_of_the_plans():
    found = 0
    for seed in range(12):
        world = Measured(seed, alike=True)
        budget = world.budget(0.2)
        search = Refinement(world.problem, [budget], world.units, plans=48)
        world.run(search)
        best = min(loss for size, loss, _ in world.every() if size <= budget)
        found += search.loss(search.best(budget).choices) <= best * (1 + 1e-9)
    assert found >= 11


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.floats(0.02, 0.7))
def test_where_the_additive_model_is_exact_its_optimum_stays(seed, share):
    world = Measured(seed, interacting=False, alike=True)
    budget = world.budget(share)
    search = Refinement(world.problem, [budget], world.units, plans=16)
    optimum = best_plan(world.problem, budget, objective="loss_increase")
    improvements = world.run(search)
    assert search.loss(search.best(budget).choices) == pytest.approx(optimum.cost)
    assert all(each.request.origin == "start" for each in improvements)


def test_several_budgets_share_what_was_learned_and_the_front_falls():
    world = Measured(3, layers=6, alike=True)
    budgets = [world.budget(share) for share in (0.1, 0.2, 0.35)]
    search = Refinement(world.problem, budgets, world.units, plans=60)
    improvements = world.run(search)
    front = search.front()
    amounts = [search.amount(each.choices) for each in front]
    losses = [search.loss(each.choices) for each in front]
    assert amounts == sorted(amounts)
    assert losses == sorted(losses, reverse=True)
    for budget in budgets:
        chain = [each for each in improvements if each.budget == budget]
        assert [each.loss for each in chain] == sorted((each.loss for each in chain), reverse=True)
        assert chain[0].before is None
        assert all(later.before == earlier.request.choices for earlier, later in itertools.pairwise(chain))
        assert chain[-1].loss == pytest.approx(search.loss(search.best(budget).choices))
    assert {each.request.origin for each in improvements} > {"start"}
    assert search.tried <= 60


def test_the_same_answers_give_the_same_search_in_whatever_order_a_batch_is_answered():
    def trace(shuffled):
        world = Measured(5)
        search = Refinement(world.problem, [world.budget(0.2)], world.units, plans=24, seed=7)
        world.run(search, shuffled)
        return [each.choices for each in search.front()], search.tried, search.evaluated

    assert trace(None) == trace(np.random.default_rng(1)) == trace(np.random.default_rng(2))


def test_a_budget_that_counts_more_is_tried_first():
    def tried(weights):
        world = Measured(3, layers=6)
        budgets = [world.budget(share) for share in (0.1, 0.2, 0.35)]
        search = Refinement(world.problem, budgets, world.units, plans=24)
        search.weights = {budgets[at]: weight for at, weight in weights.items()}
        asked = set()
        while requests := search.ask():
            for request in requests:
                if request.origin != "start":
                    asked.add((request.budget, request.choices))
                search.tell(request, world.losses(request.schemes)[search.order[request.start : request.stop]])
        return [sum(budget == each for budget, _ in asked) for each in budgets]

    plain, first, last = tried({}), tried({0: 100.0}), tried({2: 100.0})
    assert first[0] > plain[0]
    assert last[2] > plain[2]
    assert tried(dict.fromkeys(range(3), 7.0)) == plain


def test_halving_spares_samples_and_only_whole_measurements_count():
    world = Measured(1, samples=64)
    budget = world.budget(0.2)
    search = Refinement(world.problem, [budget], world.units, plans=32)
    asked = []
    while requests := search.ask():
        for request in requests:
            asked.append(request)
            search.tell(request, world.losses(request.schemes)[search.order[request.start : request.stop]])
    begun = len({r.choices for r in asked if r.origin == "start"})
    assert {r.stop for r in asked if r.origin != "start"} == {16, 32, 64}
    assert search.evaluated < 64 * (begun + 0.6 * search.tried)
    whole = {r.choices for r in asked if r.stop == 64}
    assert {each.choices for each in search.front()} <= whole


def test_where_schemes_correct_too_it_begins_with_the_optimum_of_number_formats_alone_as_well():
    model, corrected = Measured(4), Scheme.parse("int2g64+eora8")
    budget = model.budget(0.4)
    offered = {
        name: {
            **known,
            corrected: replace(known[SCHEMES[0]], scheme=corrected, effective=corrected, loss_increase=1e-6, loss_increase_sd=0.0),
        }
        for name, known in model.candidates.items()
    }  # said to lose next to nothing at the least size
    joint = Problem.of(100, model.layers, offered)
    begun = [dict(request.schemes) for request in Refinement(joint, [budget], model.units).ask()]
    assert set(best_plan(joint, budget).schemes.values()) == {corrected}
    assert dict(best_plan(joint, budget).schemes) in begun
    assert dict(best_plan(model.problem, budget).schemes) in begun


def test_locks_lists_and_the_number_of_schemes_are_held_to():
    world = Measured(2)
    locked = {"l1": SCHEMES[1]}
    constraints = Constraints(locked=locked, roles={"q": SCHEMES[:3]}, distinct=2)
    budget = world.budget(0.2)
    search = Refinement(world.problem, [budget], world.units, constraints=constraints, plans=24)
    seen = []
    while requests := search.ask():
        for request in requests:
            seen.append(request.schemes)
            search.tell(request, world.losses(request.schemes)[search.order[request.start : request.stop]])
    assert len(seen) > 10
    for schemes in seen:
        assert schemes["l1"] == SCHEMES[1]
        assert SCHEMES[3] not in schemes.values()
        assert len(set(schemes.values())) <= 2
        assert world.problem.predict(schemes).bytes <= budget


def test_another_resource_may_be_what_is_spent():
    world = Measured(4)
    operations = sum(amounts.min() for amounts in world.problem.amounts("bit_operations")) * 2
    search = Refinement(world.problem, [operations], world.units, resource="bit_operations", plans=16)
    world.run(search)
    assert search.amount(search.best(operations).choices) <= operations


def test_a_plan_that_cannot_be_measured_is_left_out():
    world = Measured(6)
    budget = world.budget(0.2)
    search = Refinement(world.problem, [budget], world.units, plans=8)
    broken = search.ask()[0]
    search.drop(broken)
    world.run(search)
    assert all(each.choices != broken.choices for each in search.front())
    assert search.best(budget) is not None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: Refinement(w.problem, [w.problem.smallest_bytes - 1], w.units), "no plan fits into .* the smallest possible has"),
        (
            lambda w: Refinement(w.problem, [w.budget(0.1)], w.units, constraints=Constraints(locked=dict.fromkeys(w.names, SCHEMES[3]))),
            "with l0, l1, l2, l3, l4 locked; unlock some",
        ),
        (lambda w: Refinement(w.problem, [], w.units), "expected budgets, samples"),
        (lambda w: Refinement(w.problem, [w.budget(0.5)], w.units[:0]), "expected budgets, samples"),
    ],
    ids=["budget too small", "locked", "no budgets", "no samples"],
)
def test_what_is_impossible_is_refused_in_words(make, message):
    with pytest.raises(ParedownError, match=message):
        make(Measured(0))


def test_answers_are_checked():
    world = Measured(0)
    search = Refinement(world.problem, [world.budget(0.2)], world.units)
    request = search.ask()[0]
    with pytest.raises(ParedownError, match=r"expected 24 finite losses, got .* 1 that are not"):
        search.tell(request, np.append(np.ones(23), np.nan))
    search.tell(request, np.ones(24))
    with pytest.raises(ParedownError, match="asked and not yet told"):
        search.tell(request, np.ones(24))
