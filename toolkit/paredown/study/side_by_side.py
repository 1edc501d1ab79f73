"""Independent jobs on the cores at once, their results in the order of the jobs.

A layer of a small model is too little work for torch to share it well among cores: most of its calls are short, and each ends with all
threads waiting for the last. Two layers share nothing, and torch releases the interpreter's lock within its calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")

AT_ONCE = 2
"""Jobs that run at once, at most: each holds what it works on."""


def side_by_side(jobs: Iterable[Callable[[], Result]]) -> Generator[Result, None, None]:
    """Run the jobs, `AT_ONCE` of them at a time, and give what they return in their order.

    Torch's threads are shared out among them; with one thread a job runs when its result is asked for. Jobs are taken from the iterable
    as they are needed, in the caller's thread, and go on while the caller is busy with a result. Whoever stops early closes the generator:
    jobs that run end, those that wait do not begin.

    What two jobs give with n threads is to the bit what they give alone with n // 2; other numbers of threads may sum in another order.

    Args:
        jobs: Each may run in a thread of its own.
    """
    threads = torch.get_num_threads()
    workers = min(AT_ONCE, threads)
    if workers == 1:
        for job in jobs:
            yield job()
        return
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,))
    begun: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            begun.append(pool.submit(job))
            if len(begun) == 2 * workers:  # a slow job keeps the others' results waiting, not the others
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a thread that sets its own number sets that of all threads to come
