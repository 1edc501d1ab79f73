"""Scales in a study: folded once, kept, found again, exported, and said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from paredown import models, tasks
from paredown.cli import main
from paredown.errors import ParedownError
from paredown.specs import Scheme, StudyConfig, WeightFormat
from paredown.store import Store
from paredown.study import Study
from paredown.study.scaling import narrowest, scaled
from study_checks import figures

SCHEMES = ("int3g64sym", "int4g64sym", "int8g64sym")


@pytest.fixture(scope="module")
def config(llama):
    return StudyConfig(model=llama.id, task="austen", schemes=SCHEMES, budgets=(3.5,), hessian_seconds=0, scaling="awq", seed=3)


@pytest.fixture(scope="module")
def finished(llama, austen, config, tmp_path_factory):
    study = Study(tmp_path_factory.mktemp("scaled"), config, model=llama, task=austen)
    study.run()
    return study


def first_batch(austen):
    return austen.batches("held_out", 2)[0]


def answers(austen, model):
    with torch.no_grad():
        return austen.predictions(model, first_batch(austen)).logits


def test_the_model_is_scaled_once_and_the_one_that_was_given_is_left_alone(finished, llama, austen):
    model = finished.loaded().model
    assert model is not llama.model
    assert finished.loaded() is finished.session().loaded
    assert models.digest(models.distinct_tensors(llama.model)) == llama.digest
    assert finished.record().info.digest == models.digest(models.distinct_tensors(model)) != llama.digest
    before, after = answers(austen, llama.model), answers(austen, model)
    assert float((after - before).norm() / before.norm()) < 3e-4  # the checkpoint is in half precision, and so are the scaled weights


def test_everything_is_measured_and_what_was_done_is_said(finished, llama, capsys):
    record = finished.record()
    assert record.state == "done"
    assert set(record.measurements) == set(record.plans)
    blocks = len(llama.model.model.layers)
    assert f"AWQ scales, searched for int3g64sym, are folded in {4 * blocks} of {4 * blocks + 1} places" in record.info.notice
    words = [event.message for event in record.log if event.kind == "notice"]
    assert any(f"v_proj → o_proj ({blocks})" in line for line in words)
    assert any("Not scaled: model.norm → embed_tokens (1): model.embed_tokens shares its tensor" in line for line in words)
    with pytest.raises(SystemExit) as end:
        main(["status", str(finished.folder)])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(line in shown for line in words)


def test_awq_lowers_the_error_of_the_outputs_that_the_run_predicts(finished, study_of, tmp_path, llama, austen, config):
    plain = Study(tmp_path, StudyConfig(**{**as_dict(config), "scaling": None}), model=llama, task=austen)
    plain.run()
    scheme = Scheme.parse("int3g64sym")
    names = [layer.name for layer in finished.record().layers if layer.kind == "linear"]
    with_scales, without = (
        np.mean([study.record().candidates[name][scheme].output_error for name in names]) for study in (finished, plain)
    )
    assert with_scales < without


def as_dict(config):
    return {name: getattr(config, name) for name in StudyConfig.__slots__}


def test_opened_again_the_scales_are_those_of_the_artifact(finished, llama, config):
    again = Study(finished.folder, model=llama, task=NoTask())
    assert again.loaded().digest == finished.loaded().digest  # the task was not asked
    for (name, one), (_, other) in zip(
        again.loaded().model.state_dict().items(), finished.loaded().model.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name


class NoTask:
    def __getattr__(self, name):
        raise AssertionError(f"the task was asked for {name}")


@pytest.mark.parametrize("what", ["lost", "changed"])
def test_an_artifact_that_is_lost_or_changed_is_made_again_the_same(finished, llama, austen, config, tmp_path, what):
    kept = load_file(finished.folder / "artifacts" / "scaling.safetensors")
    store = Store(tmp_path, create=True)
    path = store.folder / "artifacts" / "scaling.safetensors"
    if what == "changed":
        save_file({**kept, "00000": kept["00000"] * 2}, path)
    again, _ = scaled(config, store, llama, austen)
    assert again.digest == finished.loaded().digest
    assert all(torch.equal(kept[name], tensor) for name, tensor in load_file(path).items())


def test_a_run_that_was_stopped_goes_on_with_the_same_scales(finished, llama, austen, config, tmp_path):
    study = Study(tmp_path, config, model=llama, task=austen)

    def stop(event):
        if event.kind == "candidates":
            study.cancel()

    study.run(stop)
    assert study.record().state == "cancelled"
    other = Study(tmp_path, model=llama, task=austen)
    other.run()
    assert figures(other) == figures(finished)


def test_another_model_with_the_scales_of_a_study_is_refused(finished, llama, config):
    with pytest.raises(ParedownError, match=r"the study's scales were found for weights .* give it the same model"):
        Study(finished.folder, model=replace(llama, digest="0" * 16), task=NoTask()).loaded()


def test_an_export_of_the_scaled_model_loads_in_plain_transformers(finished, austen, tmp_path):
    plan = next(plan for plan in finished.record().plans.values() if plan.found_by == "uniform int4g64sym")
    folder = finished.export(plan, tmp_path / "out", export_format="compressed-tensors")
    plain = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with finished.session().variants.applied(plan.schemes):
        expected = answers(austen, finished.loaded().model)
    assert torch.allclose(answers(austen, plain), expected, atol=1e-3)
    reopened = Study(finished.folder, model=models.load(finished.config.model), task=NoTask())
    again = reopened.export(plan, tmp_path / "again", export_format="compressed-tensors")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_smoothquant_says_where_it_has_no_use(llama, austen, config, tmp_path):
    settings = as_dict(config) | {"scaling": "smoothquant"}
    _, words = scaled(StudyConfig(**settings), Store(tmp_path / "a", create=True), llama, austen)
    assert "no scheme rounds inputs, which these scales are for" in words[0]
    _, words = scaled(
        StudyConfig(**settings | {"schemes": ("int8a8",), "budgets": None}), Store(tmp_path / "b", create=True), llama, austen
    )
    assert "no scheme rounds inputs" not in words[0]


def test_awq_is_searched_for_the_narrowest_int_format():
    assert narrowest(map(Scheme.parse, ("nf2g64", "int8", "int4g64", "int4g32sym"))) == WeightFormat(4, 64)
    with pytest.raises(ParedownError, match="no scheme of the study has one; add one, such as int4g64"):
        narrowest([Scheme.parse("nf3g64")])


def test_a_scaling_that_does_not_exist_and_a_model_where_nothing_folds_are_refused(tmp_path):
    with pytest.raises(ParedownError, match="scaling must be one of awq, smoothquant, or None, got 'gptq'"):
        StudyConfig(scaling="gptq")
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Linear(64, 8)).requires_grad_(False).eval()
    loaded = models.LoadedModel("mine", "mine", model, None, "0" * 16, "float32", 1)
    batch = tasks.Batch({"input": torch.randn(3, 64)}, None, (0, 1, 2))
    task = tasks.custom(
        lambda model: 0.0, batches=[batch], calibration=[batch], higher_is_better=True, logits=lambda model, b: model(b.inputs["input"])
    )
    with pytest.raises(ParedownError, match="no scale can be folded into mine, so leave scaling out"):
        scaled(StudyConfig(task="mine", schemes=("int4g64",), scaling="awq"), Store(tmp_path, create=True), loaded, task)
