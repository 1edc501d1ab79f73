"""The run as a whole: its result, and that nothing is lost or done twice whatever happens in the middle."""

import os
import signal
import subprocess
import sys
import time

import pytest

from paredown.errors import ParedownError
from paredown.specs import KEEP, Candidate, Measurement, Scheme, StudyConfig
from paredown.store import Store
from paredown.study import Study
from paredown.study.control import Cancelled
from study_checks import figures


def test_a_run_measures_the_original_uniform_and_searched_plans(finished):
    record = finished.record()
    assert record.state == "done"
    assert record.sensitivity_complete
    assert set(record.measurements) == set(record.plans)
    names = [plan.found_by for plan in record.plans.values()]
    assert {"original", "uniform int2g64sym", "uniform int4g64sym", "uniform int8g64sym"} <= set(names)
    assert record.baseline is not None
    assert record.baseline.kl == 0
    assert record.baseline.flips == 0
    for layer in record.layers:
        known = record.estimates(layer.name)
        assert known.trace.value > 0, layer.name
        assert list(known.eigenvalues.top) == sorted(known.eigenvalues.top, reverse=True)
        assert known.trace.data_sd < known.trace.value


def test_a_run_profiles_the_weights_and_inputs_of_every_layer(finished):
    record = finished.record()
    assert set(record.profiles) == {layer.name for layer in record.layers}
    for layer in record.layers:
        found = record.profiles[layer.name]
        assert found.weights.total == layer.parameters
        assert (found.inputs is None) == (layer.kind == "embedding" and not layer.tied_to)  # a tied head sees inputs
        if found.inputs:
            assert found.inputs.channels == layer.shape[1]
            outside = found.inputs.outliers.total if found.inputs.outliers else 0
            assert found.inputs.ordinary.total + outside == found.inputs.tokens * found.inputs.channels


def test_more_bits_hurt_less_in_prediction_and_in_measurement(finished):
    record = finished.record()
    uniform = [plan for plan in record.plans.values() if plan.found_by.startswith("uniform")]
    by_size = sorted(uniform, key=lambda plan: plan.bytes)
    predicted = [plan.loss_increase for plan in by_size]
    measured = [record.measurements[plan.digest].kl for plan in by_size]
    assert predicted == sorted(predicted, reverse=True)
    assert measured == sorted(measured, reverse=True)
    assert all(
        low <= value <= high for m in record.measurements.values() for value, low, high in [(m.metric.value, m.metric.low, m.metric.high)]
    )


def test_the_searched_plan_of_a_budget_has_no_more_guarded_loss_than_uniform(finished):
    problem = finished.problem()
    plans = list(finished.record().plans.values())

    def guarded(plan):
        choices = [
            next(i for i, choice in enumerate(offered) if choice[0].effective == plan.schemes.get(group[0], KEEP))
            for group, offered in zip(problem.groups, problem.candidates, strict=True)
        ]
        return sum(costs[choice] for costs, choice in zip(problem.guarded_loss, choices, strict=True))

    for uniform in (plan for plan in plans if plan.found_by.startswith("uniform")):
        assert min(guarded(plan) for plan in plans if plan.bytes <= uniform.bytes) <= guarded(uniform)


def test_running_again_does_nothing_twice(finished, study_of, tmp_path):
    before = len(finished.store.events())
    finished.run()
    kinds = {event.kind for event in finished.store.events(after=before)}
    assert "measurement" not in kinds
    assert "candidates" not in kinds


@pytest.mark.parametrize("stop_at", ["measurement", "candidates", "plan"])
def test_cancelled_in_the_middle_ends_the_same(finished, study_of, tmp_path, stop_at):
    study = study_of(tmp_path / "study")
    seen = []

    def listener(event):
        seen.append(event.kind)
        if seen.count(stop_at) == 2:
            study.cancel()

    assert study.run(listener).state == "cancelled"
    again = study_of(tmp_path / "study")
    assert again.run().state == "done"
    assert figures(again) == figures(finished)
    assert_nothing_twice(again.store)


def assert_nothing_twice(store):
    candidates = [(c.layer, c.scheme) for c in store.payloads(Candidate)]
    assert len(candidates) == len(set(candidates))
    measured = [m.plan_digest for m in store.payloads(Measurement)]
    assert len(measured) == len(set(measured))


@pytest.mark.parametrize("stage", ["baseline", "sensitivity", "measure"])
def test_kill_9_in_any_stage_then_the_same_command(tmp_path, config, stage):
    folder = tmp_path / "study"
    command = [
        *(sys.executable, "-m", "paredown.cli", "run", config.model, "--task", "demo:lm", "--study", str(folder), "--json"),
        *("--calibration", "2", "--held-out", "2", "--schemes", "int2g64sym,int4g64sym", "--seed", "3", "--hessian-seconds", "0"),
    ]
    whole = tmp_path / "whole"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        wait_for_stage(folder, stage, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = Store(folder).events()
    assert before[-1].kind != "finished", "killed too late to show anything"
    subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, timeout=240)
    command[command.index(str(folder))] = str(whole)
    subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment, timeout=240)
    assert figures(Study(folder)) == figures(Study(whole))
    assert_nothing_twice(Store(folder))


def wait_for_stage(folder, stage, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if any(event.stage == stage for event in Store(folder).events()):
                return
        except ParedownError:
            pass  # the file is not there yet
        time.sleep(0.005)
    raise AssertionError(f"the run never reached {stage}: {process.communicate()[1].decode()}")


def test_pausing_holds_the_run_and_resuming_ends_it(finished, study_of, tmp_path):
    study = study_of(tmp_path / "study")
    study.start(lambda event: study.pause() if event.kind == "candidates" and event.done == 3 else None)
    deadline = time.monotonic() + 60
    while study.record().state != "paused" and time.monotonic() < deadline:
        time.sleep(0.01)
    held = len(study.store.events())
    time.sleep(0.3)
    assert len(study.store.events()) == held
    assert study.running
    study.resume()
    study.wait(60)
    assert figures(study) == figures(finished)


def test_a_plan_of_ones_own_is_measured_in_the_background(finished, study_of, tmp_path):
    study = study_of(tmp_path / "study")
    with pytest.raises(ParedownError, match="can be measured once every layer is priced"):
        study.measure({})
    study.run()
    layers = [layer.name for layer in study.record().layers]
    schemes = {name: Scheme.parse("int4g64sym") for name in layers if name.endswith("_proj")} | {layers[-1]: Scheme.parse("int2g64sym")}
    plan = study.measure(schemes)
    study.wait(60)
    record = study.record()
    assert record.state == "done"
    assert record.measurements[plan.digest].kl > 0
    assert record.plans[plan.digest].found_by == "user"
    assert study.measure(schemes) == plan  # known: nothing is measured again
    with pytest.raises(ParedownError, match="layers that the model does not have: nowhere"):
        study.measure({"nowhere": KEEP})


def test_a_script_may_end_while_its_study_works(llama, tmp_path):
    """The interpreter leaves in good order, with what was computed kept: no abort from a thread inside torch."""
    code = (
        "import sys\n"
        "from paredown import Study, StudyConfig\n"
        f"config = StudyConfig(model={llama.id!r}, task='demo:lm', schemes=('int4g64sym',), calibration_samples=4)\n"
        f"study = Study({str(tmp_path / 'study')!r}, config).start()\n"
        "while 'baseline' != study.record().stage: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert Study(tmp_path / "study").record().state == "cancelled"


def test_one_run_at_a_time_and_readers_are_welcome(finished, study_of, tmp_path):
    first = study_of(tmp_path / "study")
    first.start(lambda event: first.pause() if event.kind == "layers" else None)
    deadline = time.monotonic() + 60
    while not first.paused and time.monotonic() < deadline:
        time.sleep(0.01)
    reader = Study(tmp_path / "study")
    assert reader.busy_elsewhere
    assert reader.record().layers
    with pytest.raises(ParedownError, match="another process works on the study"):
        study_of(tmp_path / "study").run()
    first.cancel()
    first.wait(60)
    assert not reader.busy_elsewhere


def test_a_failing_task_leaves_its_error_in_the_store_and_keeps_the_rest(llama, austen, config, tmp_path):
    study = Study(tmp_path / "study", config, model=llama, task=austen)
    real = austen.scores
    calls = []

    def broken(*arguments, **named):
        calls.append(1)
        if len(calls) > 2:
            raise ParedownError("the metric broke; mend it")
        return real(*arguments, **named)

    austen.scores = broken
    try:
        with pytest.raises(ParedownError, match="the metric broke"):
            study.run()
    finally:
        del austen.scores
    record = study.record()
    assert record.state == "failed"
    failed = len(record.plans) - 2
    assert record.message.startswith(f"{failed} of {failed + 2} plans could not be measured, and the others are kept")
    assert record.message.endswith(": the metric broke; mend it")
    assert len(record.measurements) == 2
    assert Study(tmp_path / "study", config, model=llama, task=austen).run().state == "done"


def test_an_interrupt_is_passed_on_and_the_study_goes_on_later(finished, study_of, tmp_path):
    study = study_of(tmp_path / "study")

    def interrupt(event):
        if event.kind == "candidates" and event.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run(interrupt)
    assert study.record().state == "cancelled"
    assert len(study.record().candidates) == 5
    study.run()
    assert figures(study) == figures(finished)


def test_background_errors_surface_in_wait(llama, config, tmp_path):
    study = Study(tmp_path / "study", StudyConfig(model=config.model, task="demo:sentiment"), model=llama)
    study.start()
    with pytest.raises(ParedownError):
        study.wait(60)
    assert study.record().state == "failed"


def test_opening(finished, study_of, config, llama, tmp_path):
    assert Study(finished.folder).config == config
    with pytest.raises(ParedownError, match=r"other settings \(seed 3 → 4\); choose another folder"):
        Study(finished.folder, StudyConfig(model=config.model, task="austen", schemes=config.schemes, hessian_seconds=9, seed=4))
    with pytest.raises(ParedownError, match="never started"):
        Study(Store(tmp_path / "empty", create=True).folder)


def test_another_model_is_refused(finished, config, austen, llama, tmp_path):
    import dataclasses

    other = dataclasses.replace(llama, digest="0123456789abcdef")
    with pytest.raises(ParedownError, match=r"was made with weights .* has 0123456789abcdef"):
        Study(finished.folder, config, model=other, task=austen).loaded()


def test_control_cancels_out_of_a_pause():
    from paredown.study.control import Control

    control = Control()
    control.pause()
    control.cancel()
    with pytest.raises(Cancelled):
        control.check()


def test_choosing_a_plan(finished):
    record = finished.record()
    digest = next(iter(record.plans))
    assert finished.choose(digest[:10]).digest == digest
    best = finished.choose(bits=4)
    limit = next(plan.bytes for plan in record.plans.values() if plan.found_by == "uniform int4g64sym")
    assert best.bytes <= limit
    assert record.measurements[best.digest].kl == min(m.kl for m in record.measurements.values() if m.bytes <= limit)
    for bad in ({"name": "zz"}, {}, {"name": digest, "bits": 4}):
        with pytest.raises(ParedownError, match="expected"):
            finished.choose(**bad)


def test_schemes_that_the_export_format_cannot_hold_are_refused_before_any_work(llama, austen, tmp_path):
    asked = StudyConfig(model=llama.id, task="austen", schemes=("int4g64",), export_format="compressed-tensors")
    study = Study(tmp_path / "study", asked, model=llama, task=austen)
    with pytest.raises(
        ParedownError, match=r"compressed-tensors checkpoint can hold int4g64 for no layer of .*zero points.*format paredown"
    ):
        study.run()
    assert not study.record().candidates


def test_auto_falls_back_to_the_format_that_holds_every_plan(llama, austen, tmp_path):
    study = Study(tmp_path / "study", StudyConfig(model=llama.id, task="austen", schemes=("int4g64",)), model=llama, task=austen)
    assert study.session().export_format == "paredown"
    assert study.session().info().export_format == "paredown"


@pytest.mark.parametrize("export_format", [None, "paredown"])
def test_a_chosen_plan_is_exported_with_the_bytes_that_were_promised(finished, tmp_path, export_format):
    plan = finished.choose(bits=4)
    folder = finished.export(plan, tmp_path / "export", export_format=export_format)
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) == plan.bytes
