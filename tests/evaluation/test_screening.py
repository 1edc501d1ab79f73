from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from paredown.apply import Variants
from paredown.errors import ParedownError
from paredown.evaluation import Evaluator, Screen, compare, front_at
from paredown.layers import find_layers
from paredown.search.paired import lower_bound
from paredown.specs import Measurement, Metric, Plan, Scheme
from paredown.tasks import Batch, custom
from tiny_models import CASES, VOCABULARY

INT2, INT3, INT8 = map(Scheme.parse, ("int2g32", "int3g32", "int8g32"))


def texts(batches, rows=25, length=9):
    generator = torch.Generator().manual_seed(3)
    for start in range(batches):
        ids = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
        yield Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, None, tuple(range(start * rows, (start + 1) * rows)))


@pytest.fixture(scope="module")
def evaluator():
    model = CASES["bert"].build()
    made = list(texts(8))
    task = custom(lambda model: 1.0, batches=made, calibration=made, higher_is_better=True)
    layers = find_layers(model)
    return Evaluator(model, layers, task, task.batches("held_out"), Variants(model, layers))


def uniform(evaluator, scheme):
    return {layer.name: scheme for layer in evaluator.layers}


def test_a_plan_that_is_clearly_worse_is_stopped_at_the_first_look(evaluator):
    verdict = Screen(evaluator).verdict(uniform(evaluator, INT2), uniform(evaluator, INT8))
    assert verdict.worse
    assert verdict.samples == 25
    assert 0 < verdict.bound < verdict.difference


def test_a_plan_is_not_worse_than_itself_or_than_a_worse_one(evaluator):
    screen = Screen(evaluator)
    for plan, reference in ((INT3, INT3), (INT8, INT2)):
        verdict = screen.verdict(uniform(evaluator, plan), uniform(evaluator, reference))
        assert not verdict.worse
        assert verdict.samples == 50


def test_the_difference_is_that_of_the_measured_divergences_where_all_samples_are_looked_at(evaluator):
    screen = Screen(evaluator, shares=[0.9999])
    plan, reference = uniform(evaluator, INT3), uniform(evaluator, INT2)
    original = evaluator.observe({})
    ours, theirs = (
        compare(original, evaluator.observe(each), evaluator.task, Plan("m", "d", each, 1), split="held_out", data_digest="").kl
        for each in (plan, reference)
    )
    verdict = screen.verdict(plan, reference)
    assert verdict.samples == 200
    assert verdict.difference == pytest.approx(ours - theirs, rel=1e-4)
    assert verdict.bound == pytest.approx(verdict.difference)  # nothing is left to chance


def test_mutations_of_the_reference_share_its_blocks(evaluator):
    before, reference = evaluator.blocks_given_back, uniform(evaluator, INT3)
    Screen(evaluator, seed=5).verdict(reference | {evaluator.layers[-1].name: INT2}, reference)
    assert evaluator.blocks_given_back > before


def test_with_few_samples_nothing_is_stopped():
    model = CASES["bert"].build()
    made = list(texts(2))
    task = custom(lambda model: 1.0, batches=made, calibration=made, higher_is_better=True)
    layers = find_layers(model)
    few = Evaluator(model, layers, task, made, Variants(model, layers))
    verdict = Screen(few).verdict(uniform(few, INT2), uniform(few, INT8))
    assert (verdict.worse, verdict.samples) == (False, 0)


def test_the_bound_is_that_of_students_t_without_units_and_replacement():
    values = np.array([0.3, 0.1, 0.8, 0.4, 0.5])  # not skewed to the left
    mean, bound = lower_bound(values, np.ones(5), 10**12, 0.975)
    assert mean == pytest.approx(values.mean())
    assert bound == pytest.approx(values.mean() - student.ppf(0.975, 4) * values.std(ddof=1) / np.sqrt(5))


@pytest.mark.parametrize("shape", ["normal", "skewed", "skewed the other way"])
def test_a_plan_that_is_no_worse_is_stopped_no_more_often_than_stated(shape):
    """2000 repetitions at α = 5 %, two looks: at most 5 % and three of its standard errors; skewed to the left, up to 8 % and as much."""
    draw, stopped, repetitions = np.random.default_rng(0), 0, 2000
    for _ in range(repetitions):
        values = draw.standard_normal(480) if shape == "normal" else np.exp(draw.standard_normal(480))
        values = (values - values.mean()) * (-1 if shape.endswith("way") else 1)
        order = draw.permutation(480)
        stopped += any(lower_bound(values[order[:n]], np.ones(n), 480, 0.975)[1] > 0 for n in (60, 120))
    share = 0.08 if shape.endswith("way") else 0.05
    assert stopped / repetitions <= share + 3 * np.sqrt(share * (1 - share) / repetitions)
    assert stopped > 0


def test_what_can_not_be_screened_is_refused(evaluator):
    made = list(texts(2))
    task = custom(lambda model: 1.0, batches=made, calibration=made, higher_is_better=True, loss=lambda model, batch: torch.zeros(25))
    blind = Evaluator(evaluator.model, evaluator.layers, task, made, evaluator.variants)
    with pytest.raises(ParedownError, match="offers none; measure each plan in full"):
        Screen(blind)
    for options in ({"error_probability": 0}, {"shares": (0.5, 0.2)}, {"shares": (1.5,)}):
        with pytest.raises(ParedownError, match="growing shares"):
            Screen(evaluator, **options)


def test_the_front_at_a_size_is_the_best_that_is_no_larger():
    def measured(name, size, kl):
        return Measurement(name, "", "held_out", 1, Metric("m", 1, None, None, True), None, None, kl, 0.0, 0.0, size, 0.0, "cpu", "")

    plans = [measured("a", 10, 0.5), measured("b", 20, 0.1), measured("c", 20, 0.2), measured("d", 30, None)]
    assert front_at(9, plans) is None
    assert [front_at(size, plans).plan_digest for size in (10, 19, 20, 99)] == ["a", "a", "b", "b"]
