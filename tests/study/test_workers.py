"""A study measured by worker processes: the same figures as without, whatever becomes of the workers."""

import dataclasses
import os
import signal
import time

import pytest

from paredown.errors import ParedownError
from paredown.executors import processes
from paredown.specs import Measurement, Scheme, StudyConfig, Trial
from paredown.study import Study
from paredown.study.arrays import MappedArrays
from paredown.study.bench import Bench
from study_checks import figures


@pytest.fixture(scope="module")
def config(llama):
    """Of what workers can load by name."""
    return StudyConfig(
        model=llama.id,
        task="demo:lm",
        schemes=("int2g64sym", "int3g64sym-gptq", "int4g64sym"),
        calibration_samples=2,
        held_out_samples=2,
        hessian_seconds=0,
        seed=3,
    )


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    """The study without workers."""
    study = Study(tmp_path_factory.mktemp("alone"), config)
    study.run()
    return study


def priced(alone, folder):
    """A study that has everything but its measurements."""
    study = Study(folder, alone.config)
    for event in alone.store.events():
        payload = [value for value in event.payload if not isinstance(value, Measurement) or value == alone.record().baseline]
        study.store.append(event.run, event.stage, event.kind, layer=event.layer, done=event.done, total=event.total, payload=payload)
    for file in alone.store.artifacts.iterdir():
        if file.stem.startswith("samples-") and file.stem != f"samples-{alone.record().baseline.plan_digest}":
            continue
        (study.store.artifacts / file.name).write_bytes(file.read_bytes())
    return study


def assert_as_alone(study, alone):
    assert figures(study) == figures(alone)
    measured = [measurement.plan_digest for measurement in study.store.payloads(Measurement)]
    assert len(measured) == len(set(measured))
    assert {file.name for file in study.store.artifacts.iterdir()} == {file.name for file in alone.store.artifacts.iterdir()}


def test_two_workers_give_the_figures_of_none_though_one_is_killed(alone, tmp_path, monkeypatch):
    study, started = priced(alone, tmp_path), []
    start = processes.Processes.start

    def watched(self, slot):
        start(self, slot)
        started.append(self._processes[slot].pid)

    monkeypatch.setattr(processes.Processes, "start", watched)

    def kill(event):
        if event.kind == "measurement" and len(started) == 2:
            os.kill(started[0], signal.SIGKILL)

    study.run(kill, workers=2)
    assert_as_alone(study, alone)
    assert len(started) == 3


def test_a_person_is_served_while_workers_work_and_the_run_can_be_paused_and_cancelled(alone, tmp_path):
    study = priced(alone, tmp_path)
    mine = {layer.name: Scheme.parse("int4g64sym") for layer in study.record().layers if layer.role == "q"}

    def listener(event):
        if event.kind == "progress" and event.message == "Measuring plans":
            study.measure(mine)
            study.pause()

    study.start(listener, workers=1)
    deadline = time.monotonic() + 60
    while study.record().state != "paused" and time.monotonic() < deadline:
        time.sleep(0.05)
    held = len(study.store.events())
    study.resume()
    while len(study.record().measurements) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    study.cancel()
    study.wait()
    measured = [m.plan_digest for m in study.store.payloads(Measurement)]
    assert study.record().state == "cancelled"
    assert study.store.events(after=held)
    assert study.record().plans[measured[1]].found_by == "user"
    study.run()
    expected, found = figures(alone)[1], figures(study)[1]
    assert {digest: found[digest] for digest in expected} == expected


def test_what_workers_cannot_load_is_said(llama, austen, tmp_path):
    study = Study(tmp_path, StudyConfig(llama.id, "austen", ("int4g64sym",), hessian_seconds=0), model=llama, task=austen)
    bench = Bench.of(study.session(), MappedArrays(study.store.artifacts))
    with pytest.raises(
        ParedownError, match=r"workers load the model by its id or folder and the task by its name, and could not: .*austen"
    ):
        bench()


def test_another_task_or_model_under_the_same_name_is_refused(llama, austen, tmp_path):
    study = Study(tmp_path, StudyConfig(llama.id, "demo:lm", ("int4g64sym",), hessian_seconds=0), model=llama, task=austen)
    bench = Bench.of(study.session(), MappedArrays(study.store.artifacts))
    with pytest.raises(ParedownError, match=r"they are others there: .* What is given in memory alone is measured without workers"):
        bench()
    with pytest.raises(ParedownError, match=r"they are others there: .*feedface"):
        dataclasses.replace(bench, digest="feedface")()


def test_the_number_of_workers_is_checked_before_anything_is_done(alone):
    before = len(alone.store.events())
    with pytest.raises(ParedownError, match="expected workers as a number of processes such as 2"):
        alone.run(workers="many")
    assert len(alone.store.events()) == before


def test_refinement_tries_the_same_plans_with_the_same_losses_in_workers(config, tmp_path):
    config = dataclasses.replace(config, schemes=("int2g64sym", "int4g64sym"), budgets=(2.5,), refine_plans=4, search_samples=4)
    tried = []
    for workers in (None, 2):
        study = Study(tmp_path / str(workers), config)
        study.run(workers=workers)
        tried.append(({(trial.plan_digest, trial.start): trial.losses for trial in study.store.payloads(Trial)}, figures(study)))
    assert len(tried[0][0]) > 4
    assert tried[0] == tried[1]
