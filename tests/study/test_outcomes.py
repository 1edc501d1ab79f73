"""What plans did to each held-out sample: as the models answer, kept with the measurement, and there again when a run goes on."""

import dataclasses

import numpy as np
import pytest
import torch

from paredown.apply import Variants
from paredown.specs import Measurement
from paredown.study import Study
from study_checks import figures


def uniform(study, bits):
    return next(plan for plan in study.record().plans.values() if plan.found_by == f"uniform int{bits}g64sym")


def test_answers_are_those_of_the_compressed_model_unit_by_unit(finished, llama, austen):
    plan, found = uniform(finished, 2), finished.outcomes(uniform(finished, 2))
    record, at = finished.record(), 0
    with Variants(llama.model, record.layers).applied(plan.schemes), torch.no_grad():
        for batch in austen.batches("held_out"):
            made = austen.predictions(llama.model, batch)
            for logits, target in zip(made.logits, made.targets, strict=True):
                odds = logits.double().softmax(-1)
                assert found.answers[at] == int(odds.argmax())
                assert found.probabilities[at] == pytest.approx(float(odds.max()), rel=1e-4)
                assert found.right[at] == (int(odds.argmax()) == int(target))
                at += 1
    assert at == len(found.answers) == found.units.sum()
    assert found.words == dict(zip(found.words, austen.words(list(found.words)), strict=True))
    assert set(found.words) == set(found.answers.tolist())


def test_changed_answers_are_the_flips_of_the_measurement(finished):
    original = finished.outcomes()
    for plan in finished.record().plans.values():
        found, measured = finished.outcomes(plan), finished.record().measurements[plan.digest]
        assert found.changed(original).sum() / found.units.sum() == pytest.approx(measured.flips)
        assert found.kl.sum() / found.units.sum() == pytest.approx(measured.kl)
        assert found.loss.sum() / found.units.sum() == pytest.approx(measured.loss)
    assert original.changed(original).sum() == 0


def test_the_samples_are_kept_as_a_person_sees_them_in_the_order_of_the_outcomes(finished, austen):
    indices = [index for batch in austen.batches("held_out") for index in batch.ids]
    assert finished.shown() == tuple(austen.shown("held_out", index) for index in indices)
    assert [len(sample.labels) for sample in finished.shown()] == finished.outcomes().units.tolist()


def test_an_opened_study_has_them_without_a_model(finished):
    opened = Study(finished.folder)
    assert opened.outcomes().answered
    assert opened.shown() == finished.shown()
    assert opened._session is None


def test_a_task_that_can_not_show_its_samples_is_measured_all_the_same(study_of, austen, tmp_path, monkeypatch):
    def broken(self, split, index):
        raise RuntimeError("no picture")

    monkeypatch.setattr(type(austen), "shown", broken)
    study = study_of(tmp_path)
    study.run()
    assert study.record().state == "done"
    assert study.shown() == ()
    assert study.outcomes().answered
    assert any("can't be shown, and the run goes on: no picture" in event.message for event in study.record().log)


def test_a_study_of_an_earlier_version_gets_its_answers_when_a_plan_is_measured_again(study_of, finished, tmp_path):
    study = study_of(tmp_path)
    for event in finished.store.events():
        study.store.append(event.run, event.stage, event.kind, layer=event.layer, done=event.done, total=event.total, payload=event.payload)
    for digest in finished.record().measurements:
        arrays = finished.store.load_arrays(f"samples-{digest}")
        study.store.save_arrays(f"samples-{digest}", {name: arrays[name] for name in ("units", "kl", "loss", "numerator", "denominator")})
    before, plan = figures(study), uniform(study, 4)
    assert study.shown() == ()
    assert not study.outcomes(plan).answered
    assert study.compare(plan).kl.value == pytest.approx(study.record().measurements[plan.digest].kl)
    assert study.measure(plan.schemes).digest == plan.digest
    study.wait()
    assert study.outcomes().answered
    assert study.shown() == finished.shown()
    np.testing.assert_array_equal(study.outcomes(plan).answers, finished.outcomes(plan).answers)
    assert not study.outcomes(uniform(study, 2)).answered
    assert figures(study) == before
    count = len(study.store.payloads(Measurement))
    study.measure(plan.schemes)
    study.wait()
    assert len(study.store.payloads(Measurement)) == count


def test_a_standard_error_is_that_of_the_paired_differences(finished):
    one, other = uniform(finished, 2), uniform(finished, 4)
    found, first, second = finished.compare(one, other).kl, finished.outcomes(one), finished.outcomes(other)
    assert len(set(first.units)) == 1
    gaps = (first.kl - second.kl) / first.units
    assert found.sd == pytest.approx(gaps.std(ddof=1) / np.sqrt(len(gaps)))
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.sd, rel=0.5)
    assert dataclasses.replace(found, sd=0).decided == found.decided
