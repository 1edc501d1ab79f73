"""Jobs of a run, handed to an executor one by one, with pause, cancel and a person's wishes looked after in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from paredown.errors import ParedownError
from paredown.executors import Executor, Finished
from paredown.executors.protocol import Answer, Job
from paredown.study.journal import Journal

LOOK_SECONDS = 0.2
"""How often is looked whether the run is to pause, to stop, or to do something else first, while workers are at work."""


def finished(
    executor: Executor[Job, Answer], jobs: Iterable[Job], name: Callable[[Any], str], journal: Journal, between: Callable[[], None]
) -> Iterator[Finished[Job, Answer]]:
    """Do jobs, as many at once as the executor can.

    Args:
        executor: Who does them.
        jobs: The next is asked for when somebody is free to begin it.
        name: Of a job, for people.
        journal: Is told of lost workers.
        between: Called before each one, and while workers are at work: what a person asked for goes first.

    Yields:
        What is over, in the order that it comes in. Whatever stops the run, what is over by then comes first.

    Raises:
        BaseException: What stopped the run.
    """
    waiting, at_work = iter(jobs), 0

    def over(seconds: float) -> Iterator[Finished[Job, Answer]]:
        nonlocal at_work
        for done in executor.finished(seconds):
            at_work -= 1
            yield done
            for why in done.lost[:1]:
                journal.write("notice", message=f"a worker was lost over {name(done.job)}, and another one took it: {why}")

    try:
        more = True
        while more or at_work:
            journal.check()
            between()
            while more and executor.free:
                job = next(waiting, None)
                more = job is not None
                if job is not None:
                    executor.submit(job)
                    at_work += 1
            yield from over(LOOK_SECONDS)
    except GeneratorExit:
        raise
    except BaseException:
        with suppress(ParedownError):  # what stopped the run is what is said
            yield from over(0)
        raise
