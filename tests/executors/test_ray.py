"""A local Ray of two workers: lost workers and drivers cost nothing that was measured, and strangers are refused."""

import contextlib
import gc
import importlib.util
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import closing
from pathlib import Path

import pytest

from executors import some_work
from paredown.errors import ParedownError
from paredown.executors import Workers, executor
from paredown.specs import Measurement, StudyConfig
from paredown.store import Store
from paredown.study import Study
from study_checks import figures

if importlib.util.find_spec("ray") is None and not os.environ.get("CI"):
    pytest.skip("Ray is not installed: pip install 'paredown[ray]'", allow_module_level=True)

# Ray leaves files and processes of its own to the garbage collector
pytestmark = [pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")]

WORKERS = "ray:2"


def toys(opening=some_work.opening):
    return closing(executor(Workers.parse(WORKERS), lambda load: opening, {}.get, list))


@pytest.fixture(scope="module")
def cluster():
    """The Ray that the tests of this module share, started as a run starts it."""
    with toys() as first:
        first.submit(("say", 0))
        while not first.finished(10):
            pass
        first._crew._own = False  # who starts a Ray ends it; here the fixture does
    ray = sys.modules["ray"]  # not imported by the tests: Ray is to be told where to listen before
    yield ray
    ray.shutdown()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def drained(pool, jobs):
    for job in jobs:
        pool.submit(job)
    over = {}
    deadline = time.monotonic() + 120
    while len(over) < len(jobs):
        assert time.monotonic() < deadline
        over |= {done.job: done for done in pool.finished(5)}
    return over


def test_it_listens_on_this_machine_alone_and_shows_no_dashboard(cluster):
    (node,) = cluster.nodes()
    assert node["NodeManagerAddress"] == "127.0.0.1"
    assert cluster.get_runtime_context().gcs_address.startswith("127.0.0.1:")
    assert not cluster._private.worker.get_dashboard_url()


def test_lost_workers_are_replaced_and_mistakes_are_said(cluster, tmp_path):
    with toys() as pool:
        jobs = [("die once", str(tmp_path / "once")), ("refuse", "too few bits"), *(("say", number) for number in range(4))]
        over = drained(pool, jobs)
        assert [over[job].answer for job in jobs] == ["alive", None, 0, 1, 2, 3]
        assert "died" in over[jobs[0]].lost[0]
        assert str(over[jobs[1]].error) == "too few bits"
        message = str(drained(pool, [("die", str(tmp_path / "always"))])["die", str(tmp_path / "always")].error)
        assert message.startswith("2 workers were lost over it")
    assert cluster.is_initialized()  # another's is left alone


def test_a_worker_of_another_version_is_refused(cluster, monkeypatch):
    monkeypatch.setattr("paredown.executors.ray_cluster.versions", lambda: {"paredown": "9.9"})
    with toys() as pool, pytest.raises(ParedownError, match=r"has paredown .* instead of 9\.9; install there what the run has"):
        drained(pool, [("say", 1)])


def test_a_cluster_that_is_lost_is_not_asked_again(cluster, monkeypatch):
    def lost(*promises, **named):
        raise ConnectionError("the head node is gone")

    with toys() as pool:
        pool.submit(("say", 1))
        pool.submit(("say", 2))
        monkeypatch.setattr(cluster, "wait", lost)
        with pytest.raises(ParedownError, match=r"was lost: the head node is gone; what was measured is kept, run the same command again"):
            pool.finished(10)
        for ask in ("wait", "get", "kill"):
            monkeypatch.setattr(cluster, ask, lambda *promises, ask=ask, **named: pytest.fail(f"Ray was asked to {ask}"))
        assert not pool.finished(0)


def test_a_cluster_that_is_not_there(cluster, monkeypatch):
    def refused(**named):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(cluster, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "init", refused)
    monkeypatch.setattr(cluster, "shutdown", lambda: None)
    pool = executor(Workers.parse("ray://nowhere:10001"), lambda load: some_work.opening, {}.get, list)
    with pytest.raises(ParedownError, match=r"the Ray cluster ray://nowhere:10001 can't be reached: nobody answers; or use processes"):
        pool.submit(("say", 1))


def test_a_ray_that_would_listen_on_all_networks_is_not_started(cluster, monkeypatch):
    monkeypatch.setattr(cluster, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_AUTH_MODE")
    pool = executor(Workers.parse(WORKERS), lambda load: some_work.opening, {}.get, list)
    with pytest.raises(ParedownError, match=r"would listen on all networks; call ray.init\(\) yourself"):
        pool.submit(("say", 1))


def test_without_ray_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    pool = executor(Workers.parse(WORKERS), lambda load: some_work.opening, {}.get, list)
    with pytest.raises(ParedownError, match=r"not installed; pip install 'paredown\[ray\]'"):
        pool.submit(("say", 1))


def test_a_killed_driver_and_a_killed_worker_lose_nothing(cluster, tiny_llama, tmp_path):
    """The same command goes on from the store, a plan that a worker took with it is measured once, and the figures are those of no workers."""
    config = StudyConfig(
        tiny_llama.id,
        "demo:lm",
        ("int2g64sym", "int3g64sym-gptq", "int4g64sym"),
        calibration_samples=2,
        held_out_samples=2,
        hessian_seconds=0,
    )
    folder = tmp_path / "study"
    driver = (
        "from paredown import Study, StudyConfig\n"
        f"study = Study({str(folder)!r}, StudyConfig(**{ {name: getattr(config, name) for name in StudyConfig.__slots__}!r}))\n"
        "study.run(workers='ray:1')\n"
    )
    said = tmp_path / "said"
    with said.open("w") as file, subprocess.Popen([sys.executable, "-c", driver], stdout=file, stderr=file) as process:
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline and measured(folder) < 3:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    before = measured(folder)
    assert before >= 3, said.read_text()
    study = Study(folder)
    assert before < len(study.record().plans), "killed too late to show anything"
    orphans, killed, lost = set(at_work()), [], []

    def kill(event):
        if event.kind == "measurement" and not killed:  # once: a plan that loses two workers is given up
            for process in set(at_work()) - orphans:
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                break
        lost.extend([event.message] if event.message.startswith("a worker was lost over") else [])

    study.run(kill, workers=WORKERS)
    assert killed
    assert lost
    alone = Study(tmp_path / "alone", config)
    alone.run()
    assert figures(study) == figures(alone)
    digests = [measurement.plan_digest for measurement in study.store.payloads(Measurement)]
    assert len(digests) == len(set(digests))


def at_work():
    """Processes of this machine's actors that do a job, by which Ray calls them then."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::Worker.answer"):
                yield int(folder.name)


def measured(folder):
    try:
        return len(Store(folder).payloads(Measurement))
    except ParedownError:
        return 0  # not there yet
