"""No workers: each job is done when its result is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic

from paredown.errors import ParedownError
from paredown.executors.protocol import Answer, Finished, Job


class InProcess(Generic[Job, Answer]):
    """An `Executor` of the calling thread.

    Args:
        work: Does a job. A ParedownError is the job's own; anything else ends the run.
    """

    def __init__(self, work: Callable[[Job], Answer]) -> None:
        self._work = work
        self._waiting: deque[Job] = deque()

    @property
    def free(self) -> int:
        """One job at a time."""
        return 0 if self._waiting else 1

    def submit(self, job: Job) -> None:
        """Let a job wait for `finished`."""
        self._waiting.append(job)

    def finished(self, seconds: float) -> Sequence[Finished[Job, Answer]]:
        """Do the next job, however long it takes."""
        if not self._waiting:
            return []
        job = self._waiting.popleft()
        try:
            return [Finished(job, self._work(job))]
        except ParedownError as error:
            return [Finished(job, None, error)]

    def cancel(self) -> None:
        """Drop what waits."""
        self._waiting.clear()

    def close(self) -> None:
        """Drop what waits."""
        self.cancel()
