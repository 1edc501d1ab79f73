"""A whole study on every family, with a user's own metric: with logits (Gauss-Newton and KL), and with a loss alone (empirical Fisher)."""

import pytest
import torch

from paredown import tasks
from paredown.errors import ParedownError
from paredown.models import LoadedModel, digest, distinct_tensors
from paredown.specs import StudyConfig
from paredown.study import Study
from paredown.tasks import Batch
from tiny_models import CASES


def loaded(name):
    model = CASES[name].build().eval().requires_grad_(False)
    size = sum(tensor.numel() * 4 for tensor in distinct_tensors(model).values())
    return LoadedModel(name, name, model, None, digest(distinct_tensors(model)), "float32", size)


def batches(name, shift):
    inputs = {key: value if not value.is_floating_point() else value + 0.01 * shift for key, value in CASES[name].inputs().items()}
    return [Batch(inputs, None, (2 * shift, 2 * shift + 1))]


def outputs(model, batch):
    output = model(**batch.inputs)
    logits = output.logits if "logits" in output else output.last_hidden_state
    return logits if logits.dim() == 2 else logits.mean(1)


def task_of(name, **more):
    return tasks.custom(
        lambda model: float(outputs(model, batches(name, 1)[0]).abs().mean()),
        batches=batches(name, 1),
        calibration=batches(name, 0),
        higher_is_better=True,
        **more,
    )


def run(name, task, folder, seconds=0):
    schemes = ("int2g16sym", "int4g16sym", "int8g16sym")
    config = StudyConfig(model=name, task="mine", schemes=schemes, export_format="paredown", hessian_seconds=seconds)
    study = Study(folder, config, model=loaded(name), task=task)
    return study, study.run()


@pytest.mark.parametrize("name", CASES)
def test_every_family_runs_with_logits_and_is_exported_with_the_promised_bytes(name, tmp_path):
    study, record = run(name, task_of(name, logits=outputs), tmp_path / "study")
    assert record.state == "done"
    assert record.info.loss == "kl"
    assert all(event.kind != "notice" for event in record.log)  # the spectra of every layer came first
    assert set(record.curvature) >= {"", *(layer.name for layer in record.layers)}
    uniform = {plan.found_by: record.measurements[plan.digest] for plan in record.plans.values() if plan.found_by.startswith("uniform")}
    assert uniform["uniform int8g16sym"].kl <= uniform["uniform int2g16sym"].kl
    assert all(measured.metric.low is None for measured in record.measurements.values())  # one number gives no interval
    plan = study.choose(bits=4)
    folder = study.export(plan, tmp_path / "export")
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) == plan.bytes


@pytest.mark.parametrize("name", ["bert", "gpt2", "vit"])
def test_a_loss_alone_falls_back_to_the_empirical_fisher(name, tmp_path):
    task = task_of(name, loss=lambda model, batch: outputs(model, batch).square().sum(-1))
    _, record = run(name, task, tmp_path / "study")
    assert record.state == "done"
    assert record.info.loss == "loss"
    assert {matrix for known in record.curvature.values() for matrix in known} == {"empirical_fisher"}
    assert all(measured.kl is None for measured in record.measurements.values())
    assert any(candidate.loss_increase > 0 for offered in record.candidates.values() for candidate in offered.values())


def test_a_broken_loss_names_the_batch(tmp_path):
    task = task_of("bert", loss=lambda model, batch: outputs(model, batch).sum(-1) * torch.nan)
    with pytest.raises(ParedownError, match=r"NaN"):
        run("bert", task, tmp_path / "study")
