"""Jobs side by side: order, threads, and what happens when one fails or nobody wants the rest."""

import threading
from contextlib import closing

import pytest
import torch

from paredown.study.side_by_side import AT_ONCE, side_by_side


@pytest.fixture(params=[1, 2, 4])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_jobs(threads):
    second_done = threading.Event()

    def slow():
        assert threads == 1 or second_done.wait(10)
        return 0

    def quick():
        second_done.set()
        return 1

    jobs = [slow, quick, *(lambda number=number: number for number in range(2, 9))]
    assert list(side_by_side(jobs)) == list(range(9))
    assert list(side_by_side([])) == []


def test_torchs_threads_are_shared_out_and_the_callers_are_as_before(threads):
    workers = min(AT_ONCE, threads)
    assert set(side_by_side([torch.get_num_threads] * 6)) == {threads // workers}
    assert torch.get_num_threads() == threads
    assert next(side_by_side([threading.get_ident])) != threading.get_ident() or threads == 1
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [threads]


def test_no_more_run_at_once_than_is_said(threads):
    running, most, lock = [], [], threading.Lock()

    def job():
        with lock:
            running.append(1)
            most.append(len(running))
        torch.randn(200, 200) @ torch.randn(200, 200)
        with lock:
            running.pop()

    list(side_by_side([job] * 20))
    assert max(most) <= min(AT_ONCE, threads)


def test_an_error_comes_in_its_place_and_later_jobs_do_not_begin(threads):
    begun = []

    def fail():
        raise ValueError("the second one")

    jobs = [lambda: 0, fail, *(lambda number=number: begun.append(number) for number in range(50))]
    with closing(side_by_side(jobs)) as results:
        assert next(results) == 0
        with pytest.raises(ValueError, match="the second one"):
            next(results)
    assert len(begun) < 2 * AT_ONCE
    assert torch.get_num_threads() == threads


def test_who_stops_early_leaves_nothing_running(threads):
    begun = []
    with closing(side_by_side(lambda number=number: begun.append(number) for number in range(50))) as results:
        next(results)
    count = len(begun)
    assert count <= 2 * AT_ONCE
    assert not any("ThreadPoolExecutor" in thread.name for thread in threading.enumerate())
    assert torch.get_num_threads() == threads


def test_a_study_writes_its_layers_in_their_order_and_prices_them_as_one_thread_does(finished, study_of, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        study = study_of(tmp_path / "study")
        study.run(lambda event: study.cancel() if event.stage == "search" else None)
    finally:
        torch.set_num_threads(before)
    layers = [layer.name for layer in study.record().layers]
    events = [event for event in study.store.events() if event.kind == "candidates"]
    assert [event.layer for event in events] == layers
    assert [event.done for event in events] == list(range(1, len(layers) + 1))
    for layer, expected in finished.record().candidates.items():
        for scheme, candidate in study.record().candidates[layer].items():
            assert candidate.loss_increase == pytest.approx(expected[scheme].loss_increase, rel=1e-3)  # gradients of other threads' sums
            assert candidate.weight_error == expected[scheme].weight_error
