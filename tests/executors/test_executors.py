"""Executors alone: toy work in processes that import no model."""

import os
import time
from contextlib import closing

import pytest

from executors import some_work
from paredown.errors import ParedownError
from paredown.executors import InProcess, Workers
from paredown.executors.pool import Pool
from paredown.executors.processes import Processes


def pool(workers=2, opening=some_work.opening):
    return closing(Pool(lambda: Processes(opening, workers)))


def drained(executor, jobs):
    """Everything that becomes of the jobs, by job."""
    for job in jobs:
        executor.submit(job)
    over = {}
    deadline = time.monotonic() + 60
    while len(over) < len(jobs):
        assert time.monotonic() < deadline
        over |= {done.job: done for done in executor.finished(5)}
    return over


def test_each_job_is_answered_once_by_one_of_the_workers():
    with pool() as executor:
        assert executor.free == 2
        jobs = [("say", number) for number in range(20)]
        over = drained(executor, jobs)
        assert {job: done.answer for job, done in over.items()} == {job: job[1] for job in jobs}
        pids = {done.answer for done in drained(executor, [("pid", 0.2 + number / 1e3) for number in range(4)]).values()}
        assert len(pids) == 2
        assert os.getpid() not in pids
        assert executor.free == 2
        assert executor.finished(60) == []  # nothing is waited for
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_mistake_is_the_jobs_own_and_the_others_go_on():
    with pool() as executor:
        over = drained(executor, [("refuse", "too few bits"), ("say", 1)])
        assert str(over["refuse", "too few bits"].error) == "too few bits"
        assert over["say", 1].answer == 1


def test_a_fault_of_the_program_ends_the_run_with_its_traceback():
    with pool(1) as executor, pytest.raises(RuntimeError, match=r"in a worker: (?s:.*)some_work(?s:.*)IndexError"):
        drained(executor, [("break", 3)])


def test_a_worker_that_dies_is_replaced_and_its_job_done_again(tmp_path):
    with pool() as executor:
        jobs = [("die once", str(tmp_path / "marker")), *(("say", number) for number in range(4))]
        over = drained(executor, jobs)
        assert over[jobs[0]].answer == "alive"
        (why,) = over[jobs[0]].lost
        assert why.endswith("ended with code -9")
        assert all(done.error is None for done in over.values())


def test_a_job_that_takes_two_workers_with_it_fails_and_the_others_go_on(tmp_path):
    with pool() as executor:
        jobs = [("die", str(tmp_path / "marker")), *(("say", number) for number in range(4))]
        over = drained(executor, jobs)
        message = str(over[jobs[0]].error)
        assert message.startswith("2 workers were lost over it, one after the other (process ")
        assert message.endswith("ended with code -9); run with fewer workers, or free some memory")
        assert [over[job].answer for job in jobs[1:]] == [0, 1, 2, 3]


def test_workers_that_cannot_begin_end_the_run():
    with pool(opening=some_work.refusing) as executor, pytest.raises(ParedownError, match="nothing to hold; give it something"):
        drained(executor, [("say", 1)])
    with pool(1, some_work.dying) as executor, pytest.raises(ParedownError, match=r"3 workers ended before they were ready .*code 7\)"):
        drained(executor, [("say", 1)])


def test_a_worker_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr("paredown.executors.processes.versions", lambda: {"paredown": "9.9"})
    with (
        pool(1) as executor,
        pytest.raises(ParedownError, match=r"the worker on .* has paredown .* instead of 9\.9; install there what the run has"),
    ):
        drained(executor, [("say", 1)])


def test_cancelled_jobs_are_forgotten_and_the_next_are_done():
    with pool() as executor:
        drained(executor, [("say", 1), ("say", 2)])
        for job in (("pid", 50.0), ("pid", 51.0), ("say", 5)):
            executor.submit(job)
        assert executor.free == 0
        executor.cancel()
        assert executor.free == 2
        assert drained(executor, [("say", 3)])["say", 3].answer == 3


def test_in_this_process_a_job_is_done_when_its_result_is_asked_for():
    asked = []

    def work(job):
        asked.append(job)
        return some_work.work(job)

    executor = InProcess(work)
    for job in (("say", 1), ("refuse", "no")):
        assert executor.free == 1
        executor.submit(job)
        assert executor.free == 0
        executor.finished(0)
    assert asked == [("say", 1), ("refuse", "no")]
    executor.submit(("say", 2))
    executor.close()
    assert executor.finished(0) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", Workers(2)),
        ("ray", Workers(None, True)),
        ("ray:2", Workers(2, True)),
        ("ray://head:10001", Workers(None, True, "ray://head:10001")),
        ("ray://10.0.0.7:10001/64", Workers(64, True, "ray://10.0.0.7:10001")),
    ],
)
def test_workers_in_words(text, expected):
    assert Workers.parse(text) == expected


@pytest.mark.parametrize("text", ["", "two", "-1", "ray://head", "ray:two", "0", "ray:0"])
def test_workers_that_are_none(text):
    with pytest.raises(ParedownError, match=r"expected (workers as a number of processes|at least 1 worker)"):
        Workers.parse(text)
