"""Every mishap that a run can meet: what is said, and that the same command ends as if nothing had happened."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from paredown import tasks
from paredown.apply import Variants
from paredown.errors import ParedownError
from paredown.evaluation import observe
from paredown.specs import KEEP, Scheme, StudyConfig
from paredown.store import Store
from paredown.study import Study
from paredown.study.steps import UniformSizes
from paredown.tasks import Scores
from study_checks import assert_fails_and_says, figures

INT2 = Scheme.parse("int2g64sym")


def stopped_after(study, layers):
    """A study whose run was cancelled after so many priced layers."""
    study.run(lambda event: study.cancel() if event.kind == "candidates" and event.done == layers else None)
    assert len(study.record().candidates) == layers
    return study


# -- unknown model or task


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "nobody/nothing"}, r"cannot get nobody/nothing: .*Check the name and the network"),
        ({"model": "demo:nope"}, "expected one of the demos demo:sentiment, .*, got demo:nope"),
        ({"task": "demo:nope"}, "expected one of the tasks demo:sentiment, .*, got 'demo:nope'; make other tasks with"),
        (
            {"task": "demo:sentiment"},
            r"expected a model \.\.\.ForSequenceClassification for demo:sentiment, .* is a LlamaForCausalLM; load",
        ),
    ],
    ids=["hub", "demo model", "demo task", "task of another kind"],
)
def test_a_mistyped_name_can_be_mended_in_the_same_folder(finished, study_of, config, tmp_path, changes, message):
    assert_fails_and_says(Study(tmp_path / "study", dataclasses.replace(config, **changes)), message)
    study = study_of(tmp_path / "study")
    assert study.run().state == "done"
    assert study.record().config == config
    assert figures(study) == figures(finished)


# -- what the model or the task lacks


def test_a_model_without_compressible_layers(finished, study_of, llama, austen, config, tmp_path):
    bare = dataclasses.replace(llama, model=nn.Sequential(nn.LayerNorm(8)))
    study = Study(tmp_path / "study", config, model=bare, task=austen)
    record = assert_fails_and_says(study, "got Sequential without any that can be compressed; load a transformers model")
    assert record.info is None
    again = study_of(tmp_path / "study")
    again.run()
    assert figures(again) == figures(finished)


def test_missing_evaluation_labels(finished, study_of, austen, tmp_path, monkeypatch):
    study = study_of(tmp_path / "study")
    real = austen.batches

    def unlabelled(split, limit=None):
        return [dataclasses.replace(batch, targets=None) for batch in real(split, limit)]

    with monkeypatch.context() as patch:
        patch.setattr(austen, "batches", unlabelled)
        record = assert_fails_and_says(
            study, "expected labels for perplexity, the batch of samples .* has none; give the labels of this split"
        )
    assert record.layers == finished.record().layers
    again = study_of(tmp_path / "study")
    again.run()
    assert figures(again) == figures(finished)


# -- NaN and infinite values


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_keep_what_was_priced(finished, study_of, llama, austen, config, tmp_path, value):
    stopped_after(study_of(tmp_path / "study"), 5)
    broken = copy.deepcopy(llama.model)
    with torch.no_grad():
        broken.get_submodule("model.layers.3.mlp.down_proj").weight[0, 0] = value
    study = Study(tmp_path / "study", config, model=dataclasses.replace(llama, model=broken), task=austen)
    record = assert_fails_and_says(
        study, "NaN or infinite logits for the batch of samples .*; look for such values in its weights or inputs"
    )
    assert len(record.candidates) == 5
    again = study_of(tmp_path / "study")
    again.run()
    assert figures(again) == figures(finished)


def test_a_plan_whose_outputs_are_infinite_does_not_stop_the_others(finished, study_of, tmp_path, monkeypatch):
    study = study_of(tmp_path / "study")
    real = Variants.variant

    def infinite(self, name, scheme):
        made = real(self, name, scheme)
        return dataclasses.replace(made, weight=made.weight * float("inf")) if scheme == INT2 else made

    with monkeypatch.context() as patch:
        patch.setattr(Variants, "variant", infinite)
        record = assert_fails_and_says(
            study,
            r"\d+ of \d+ plans could not be measured, and the others are kept; the same command tries again\. "
            r"(uniform int2g64sym|searched at \S+ bits): the model returned NaN or infinite logits .* or for a scheme with too few bits",
        )
    missing = [plan for digest, plan in record.plans.items() if digest not in record.measurements]
    assert missing
    assert all(INT2 in plan.schemes.values() for plan in missing)
    assert all(INT2 in plan.schemes.values() for plan in record.plans.values() if plan in missing)
    assert len(record.plans) - len(missing) >= 3  # the original, uniform 4 and 8 bits
    again = study_of(tmp_path / "study")
    again.run()
    assert figures(again) == figures(finished)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_losses_that_are_not_finite(llama, config, tmp_path, value):
    """A task without probabilities, whose loss breaks on the calibration data."""
    good = [True]
    batches = [{"input_ids": torch.arange(8).reshape(2, 4)}]

    def loss(model, batch):
        logits = model(**batch.inputs).logits.logsumexp(-1).sum(-1)
        return logits if good[0] else logits * value

    task = tasks.custom(lambda model: 1.0, batches=batches, calibration=batches, higher_is_better=True, loss=loss, name="own")
    asked = dataclasses.replace(config, task="own")
    good[0] = False
    study = Study(tmp_path / "study", asked, model=llama, task=task)
    record = assert_fails_and_says(study, r"NaN or infinite losses for the batch of samples 0, 1; look for such values")
    assert record.baseline is not None
    good[0] = True
    again = Study(tmp_path / "study", asked, model=llama, task=task).run()
    assert again.state == "done"
    assert again.baseline == record.baseline


def test_a_metric_that_overflows_is_said_in_words(austen, llama, monkeypatch):
    monkeypatch.setattr(austen, "scores", lambda *_: Scores(np.array([800.0]), np.ones(1), "exp"))
    with pytest.raises(ParedownError, match="the perplexity of Austen is NaN or infinite; look for a scheme with too few bits"):
        observe(llama.model, austen, austen.batches("held_out", 1))


# -- budgets


@pytest.mark.parametrize(("budget", "said"), [(1.5, "1.5"), (9, "9"), (float("nan"), "nan"), (float("-inf"), "-inf")])
def test_an_impossible_budget_says_the_smallest_possible_before_anything_runs(config, budget, said):
    with pytest.raises(ParedownError, match=rf"got {said} bits: the smallest possible is 2 bits, the largest 8; change the budget"):
        dataclasses.replace(config, budgets=(3, budget))


def test_budgets_reach_up_to_keeping_everything_where_that_is_offered(config):
    assert dataclasses.replace(config, schemes=("int4g64", "keep"), budgets=(4, 32)).budgets == (4, 32)


def test_a_plan_of_fewer_bits_than_any_says_the_smallest_possible(finished):
    smallest = min(plan.bytes for plan in finished.record().plans.values() if plan.found_by.startswith("uniform"))
    with pytest.raises(
        ParedownError, match=rf"expected 2 to 8 bits, .*, got 1.9: the smallest possible is {smallest:,} bytes at 2 bits; raise or lower"
    ):
        finished.choose(bits=1.9)


def test_bits_of_a_study_without_plans():
    with pytest.raises(ParedownError, match="there is none yet; let the run go on to its search"):
        UniformSizes.of([]).at(4)


# -- a group size that does not divide


def test_a_group_size_that_does_not_divide_is_said_in_candidates_and_applied_in_plans(llama, austen, tmp_path):
    asked = StudyConfig(
        model=llama.id,
        task="austen",
        schemes=("int4g128sym",),
        export_format="paredown",
        held_out_samples=1,
        calibration_samples=2,
        hessian_seconds=0,
    )
    record = Study(tmp_path / "study", asked, model=llama, task=austen).run()
    (plan,) = (plan for plan in record.plans.values() if plan.found_by == "uniform int4g128sym")
    replaced = 0
    for layer in record.layers:
        candidate = record.candidates[layer.name][Scheme.parse("int4g128sym")]
        assert plan.schemes.get(layer.name, KEEP) == candidate.effective
        if layer.shape[1] % 128:
            replaced += 1
            assert candidate.note == f"the group size 128 does not divide the {layer.shape[1]} inputs; 64 is used"
            assert str(candidate.effective) == "int4g64sym"
        else:
            assert candidate.note == ""
    assert replaced


# -- plans of other models


def test_plans_of_other_models_and_unknown_layers_are_not_exported(finished, tmp_path):
    plan = finished.choose(bits=4)
    events = len(Store(finished.folder).events())
    with pytest.raises(ParedownError, match=r"with digest ffff, the model that was loaded has digest .*; load the plan's model"):
        finished.export(dataclasses.replace(plan, model_digest="ffff"), tmp_path / "out")
    with pytest.raises(ParedownError, match=r"did you mean model\.embed_tokens\?"):
        finished.export(dataclasses.replace(plan, schemes={"model.embed_token": INT2}), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert len(Store(finished.folder).events()) == events
