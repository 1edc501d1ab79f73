"""Measured refinement as a stage of a study: what it finds, keeps, resumes, and says."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from paredown import tasks
from paredown.errors import ParedownError
from paredown.evaluation.paired import compare_samples
from paredown.outcomes import Outcomes
from paredown.specs import Measurement, StudyConfig, Trial, from_json, to_json
from paredown.store import Store
from paredown.study import Study
from study_checks import figures

SCHEMES = ("int2g64sym", "int3g64sym", "int4g64sym", "int8g64sym")


@pytest.fixture
def config(llama):
    return StudyConfig(
        model=llama.id, task="austen", schemes=SCHEMES, budgets=(2.5, 3.0), hessian_seconds=0, refine_plans=8, search_samples=16, seed=3
    )


@pytest.fixture
def study_of(llama, austen, config):
    return lambda folder, **changes: Study(folder, dataclasses.replace(config, **changes), model=llama, task=austen)


@pytest.fixture(scope="module")
def refined(llama, austen, tmp_path_factory):
    config = StudyConfig(
        model=llama.id, task="austen", schemes=SCHEMES, budgets=(2.5, 3.0), hessian_seconds=0, refine_plans=8, search_samples=16, seed=3
    )
    study = Study(tmp_path_factory.mktemp("refined"), config, model=llama, task=austen)
    study.run()
    return study


def trials(study):
    return study.store.payloads(Trial)


def test_the_refined_plans_are_measured_on_held_out_data_and_keep_their_budget(refined):
    record = refined.record()
    assert record.state == "done"
    found = [plan for plan in record.plans.values() if plan.found_by.startswith("refined at")]
    assert found
    sizes = {plan.found_by: plan.bytes for plan in record.plans.values() if plan.found_by.startswith("uniform")}
    for plan in found:
        bits = float(plan.found_by.split()[2])
        most = sizes["uniform int3g64sym"] if bits == 3 else (sizes["uniform int2g64sym"] + sizes["uniform int3g64sym"]) / 2
        assert plan.bytes <= most
        assert record.measurements[plan.digest].split == "held_out"
        assert record.measurements[plan.digest].n == 8


def test_what_is_tried_is_in_the_store_under_its_split_and_is_no_result(refined, austen):
    record = refined.record()
    tried = trials(refined)
    assert {trial.split for trial in tried} == {"search"}
    assert {trial.objective for trial in tried} == {"kl"}
    assert len({(trial.plan_digest, trial.start) for trial in tried}) == len(tried)
    results = {measured.plan_digest for measured in refined.store.payloads(Measurement)}
    assert {trial.plan_digest for trial in tried} - results, "plans that were tried and lost are not among the results"
    assert set(record.measurements) == results


def test_the_search_split_has_no_sample_of_the_held_out_one_and_none_that_priced(refined, austen):
    from paredown.evaluation.search_split import SearchSplit

    split = SearchSplit(refined.session().evaluator, None, 16, "kl")
    assert split.fresh
    assert len(split) == 16
    priced = {i for batch in austen.batches("calibration") for i in batch.ids}
    assert not priced & {i for batch in split.batches for i in batch.ids}
    held_out = torch.cat([batch.inputs["input_ids"] for batch in austen.batches("held_out")])
    ours = torch.cat([batch.inputs["input_ids"] for batch in split.batches])
    assert not any(bool((row == held_out).all(1).any()) for row in ours)
    assert not SearchSplit(refined.session().evaluator, None, 10_000, "kl").fresh


def test_trials_are_the_divergences_of_the_search_samples(refined):
    from paredown.evaluation import divergence
    from paredown.evaluation.search_split import SearchSplit
    from paredown.search.refinement import Refinement

    session, record = refined.session(), refined.record()
    split = SearchSplit(session.evaluator, None, 16, "kl")
    best = next(plan for plan in record.plans.values() if plan.found_by.startswith("searched at 3"))
    trial = next(each for each in trials(refined) if each.plan_digest == best.digest)
    order = Refinement(refined.problem(), [best.bytes + 10**6], split.units, seed=3).order
    each = []
    with torch.no_grad():
        for batch in split.batches:
            before = session.task.predictions(session.loaded.model, batch)
            with session.variants.applied(best.schemes):
                after = session.task.predictions(session.loaded.model, batch)
            sums = torch.zeros(len(batch.ids), dtype=torch.float64)
            each.append(sums.index_add(0, before.sample, divergence(before.logits, after.logits)))
    torch.testing.assert_close(torch.tensor(trial.losses, dtype=torch.float64), torch.cat(each)[order], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("stop_at", [3, 9])
def test_a_cancelled_refinement_goes_on_without_trying_anything_again(refined, study_of, tmp_path, stop_at):
    study = study_of(tmp_path / "study")
    seen = []

    def listener(event):
        seen.extend(value for value in event.payload if isinstance(value, Trial))
        if len(seen) == stop_at:
            study.cancel()

    assert study.run(listener).state == "cancelled"
    assert len(trials(study)) == stop_at
    again = study_of(tmp_path / "study")
    assert again.run().state == "done"
    assert figures(again) == figures(refined)
    assert trials(again) == trials(refined)


def test_more_plans_may_be_tried_later_and_the_front_never_rises(refined, study_of, tmp_path):
    study = study_of(tmp_path / "study", refine_plans=0)
    study.run()
    assert not trials(study)
    few = figures(study)
    more = study_of(tmp_path / "study")
    more.run()
    assert figures(more) == figures(refined)
    assert set(few[1]) <= set(figures(more)[1])


def test_plans_of_a_study_are_compared_sample_by_sample(refined):
    record = refined.record()
    one, other = (next(plan for plan in record.plans.values() if plan.found_by == f"uniform int{bits}g64sym") for bits in (4, 2))
    compared = refined.compare(one, other)
    first, second = record.measurements[one.digest], record.measurements[other.digest]
    assert compared.kl.value == pytest.approx(first.kl - second.kl)
    assert compared.loss.value == pytest.approx(first.loss - second.loss)
    assert compared.kl.low <= compared.kl.value <= compared.kl.high < 0
    assert compared.kl.wide
    original = refined.compare(other)
    assert original.kl.value == pytest.approx(second.kl)
    with pytest.raises(ParedownError, match="was not measured, or by an earlier version"):
        refined.compare(dataclasses.replace(one, schemes={}, model_digest="0" * 16))


def test_where_kl_and_the_loss_disagree_it_is_said():
    ones = np.ones(40)
    draw = np.random.default_rng(0)
    lower = Outcomes(ones, draw.uniform(0.1, 0.2, 40), draw.uniform(2.0, 2.1, 40), draw.uniform(2.0, 2.1, 40), ones)
    higher = Outcomes(ones, draw.uniform(0.3, 0.4, 40), draw.uniform(1.0, 1.1, 40), draw.uniform(1.0, 1.1, 40), ones)
    words = compare_samples(lower, higher, metric="perplexity", higher_is_better=False).disagreement
    assert words.startswith("KL to the original is lower")
    assert "the loss (+" in words
    assert "the perplexity (+" in words
    assert "the accuracy" not in compare_samples(lower, higher, metric="accuracy", higher_is_better=True).disagreement
    assert not compare_samples(lower, lower, metric="perplexity", higher_is_better=False).disagreement


def test_few_samples_are_said_to_be_few(refined):
    notices = [event.message for event in refined.store.events(kinds=["notice"])]
    assert any(words.startswith("Plans are tried on 16 samples alone: differences between them are uncertain") for words in notices)


def test_the_loss_may_be_what_is_lowered(study_of, tmp_path):
    study = study_of(tmp_path / "study", refine_objective="loss", refine_plans=4, budgets=(3.0,))
    study.run()
    assert {trial.objective for trial in trials(study)} == {"loss"}
    totals: dict[str, list[float]] = {}
    for trial in trials(study):
        totals.setdefault(trial.plan_digest, []).extend(trial.losses)
    whole = {digest: sum(losses) for digest, losses in totals.items() if len(losses) == 16}
    assert min(whole, key=whole.__getitem__) in study.record().measurements


def test_a_metric_that_is_one_number_for_all_data_is_refused_in_words(llama, austen, config, tmp_path):
    batches = [{"input_ids": batch.inputs["input_ids"], "labels": batch.targets} for batch in austen.batches("held_out")]
    calibration = [{"input_ids": batch.inputs["input_ids"], "labels": batch.targets} for batch in austen.batches("calibration", 20)]
    whole = tasks.custom(lambda _: 0.5, batches=batches, calibration=calibration, higher_is_better=True, name="austen")
    asked = dataclasses.replace(config, refine_objective="metric")
    study = Study(tmp_path / "one", asked, model=llama, task=whole)
    assert study.run().state == "done"
    notices = [event.message for event in study.store.events(kinds=["notice"])]
    assert any("could not be refined" in words and "is one number for all data" in words for words in notices)


def test_a_metric_that_no_plan_changes_is_refused_in_words(study_of, austen, tmp_path):
    def never(model, batches, predictions=None):
        count = sum(len(batch.ids) for batch in batches)
        return tasks.Scores(np.ones(count), np.ones(count))

    austen.scores = never
    try:
        study = study_of(tmp_path / "study", refine_objective="metric")
        assert study.run().state == "done"
    finally:
        del austen.scores
    notices = [event.message for event in study.store.events(kinds=["notice"])]
    assert any("the metric of every plan is the same on the search split" in words for words in notices)


def test_kill_9_then_the_same_command_tries_nothing_again(config, tmp_path):
    folder = tmp_path / "study"
    command = [
        *(sys.executable, "-m", "paredown.cli", "run", config.model, "--task", "demo:lm", "--study", str(folder), "--json"),
        *("--calibration", "2", "--held-out", "2", "--schemes", "int2g64sym,int3g64sym,int4g64sym", "--budgets", "3"),
        *("--hessian-seconds", "0", "--refine", "4", "--search", "4"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None and not (folder.exists() and tried_in(folder)):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = tried_in(folder)
    assert before
    assert Study(folder).record().state != "done", "killed too late to show anything"
    subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, timeout=240)
    after = tried_in(folder)
    assert after[: len(before)] == before
    assert len({(trial.plan_digest, trial.start) for trial in after}) == len(after) > len(before)


def tried_in(folder):
    try:
        return Store(folder).payloads(Trial)
    except ParedownError:  # the file is not there yet
        return []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"refine_plans": -1}, "refine_plans must be at least 0, got -1; 0 leaves measured refinement out"),
        ({"refine_objective": "speed"}, "refine_objective must be one of kl, loss, metric, got 'speed'"),
        ({"search_samples": 0}, "search_samples must be at least 1, got 0"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ParedownError, match=message):
        StudyConfig(**changes)


def test_a_budget_at_the_smallest_plan_leaves_nothing_to_switch(study_of, tmp_path):
    study = study_of(tmp_path / "study", budgets=(2.0,))
    assert study.run().state == "done"
    assert any("at or below the smallest plan" in event.message for event in study.store.events(kinds=["notice"]))


def test_a_configuration_of_an_earlier_version_loads():
    old = to_json(StudyConfig()).replace('"refine_plans": 0, "refine_objective": "kl", "search_samples": null, ', "")
    assert "refine" not in old
    assert from_json(StudyConfig, old) == StudyConfig()
