"""Hands jobs to workers, one to each at a time, and replaces workers that are lost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from paredown.errors import ParedownError
from paredown.executors.protocol import Answer, Finished, Job
from paredown.executors.worker import Reply

TRIES = 2
"""Workers that a job may lose: whatever takes two of them will take more."""

STARTS = 3
"""Workers that may be lost one after the other before any of them is ready."""


class Crew(Protocol):
    """Workers by number, wherever they are.

    Attributes:
        workers: How many there may be.
    """

    workers: int

    def start(self, slot: int) -> None:
        """Start a worker; its first reply is ready or refused."""
        ...

    def give(self, slot: int, job: Any) -> None:
        """Hand a job to a worker that is ready; its next reply is the answer."""
        ...

    def replies(self, seconds: float) -> Sequence[tuple[int, Reply]]:
        """What the workers said, waiting so long for the first; ``lost`` is the last that is heard of one."""
        ...

    def stop(self, slot: int) -> None:
        """End a worker, whatever it is doing; nothing is heard of it any more."""
        ...

    def close(self) -> None:
        """End all workers, and let go of what they share."""
        ...


@dataclass(eq=False, slots=True)
class _Task(Generic[Job]):
    job: Job
    lost: tuple[str, ...] = ()


class Pool(Generic[Job, Answer]):
    """An `Executor` over a crew, whose workers are started as jobs come.

    Args:
        crew: Makes the crew; asked with the first job.
    """

    def __init__(self, crew: Callable[[], Crew]) -> None:
        self._make, self._made = crew, None
        self._waiting: deque[_Task[Job]] = deque()
        self._at_work: dict[int, _Task[Job]] = {}
        self._opening: set[int] = set()
        self._idle: set[int] = set()
        self._over: list[Finished[Job, Answer]] = []
        self._lost_starts = 0

    @property
    def free(self) -> int:
        """Workers that have no job."""
        return max(0, self._crew.workers - len(self._at_work) - len(self._waiting))

    def submit(self, job: Job) -> None:
        """Begin a job, or let it wait."""
        self._waiting.append(_Task(job))
        self._staff()

    def finished(self, seconds: float) -> Sequence[Finished[Job, Answer]]:
        """What is over by now; see `Executor`. After an error, what was over by then is still handed out.

        Raises:
            ParedownError: If a worker is refused, or workers end before they are ready.
            RuntimeError: If a worker failed in a way that is no user's mistake; its traceback is the message.
        """
        deadline = time.monotonic() + seconds
        while (self._waiting or self._at_work) and not self._over:
            errors = [self._hear(slot, reply) for slot, reply in self._crew.replies(max(0.0, deadline - time.monotonic()))]
            for error in filter(None, errors):
                raise error
            self._staff()
            if time.monotonic() >= deadline:
                break
        over, self._over = self._over, []
        return over

    def cancel(self) -> None:
        """Drop all jobs; the workers at work are ended."""
        for slot in self._at_work:
            self._crew.stop(slot)
        self._forget()

    def close(self) -> None:
        """Drop all jobs and end all workers."""
        self._forget()
        self._idle.clear()
        self._opening.clear()
        if self._made is not None:
            self._made.close()
            self._made = None

    @property
    def _crew(self) -> Crew:
        self._made = self._made or self._make()
        return self._made

    def _forget(self) -> None:
        self._waiting.clear()
        self._at_work.clear()
        self._over.clear()

    def _staff(self) -> None:
        while self._waiting and self._idle:
            slot, task = self._idle.pop(), self._waiting.popleft()
            self._at_work[slot] = task
            self._crew.give(slot, task.job)
        for slot in range(self._crew.workers):
            if len(self._opening) >= len(self._waiting):
                break
            if slot not in self._at_work and slot not in self._opening:
                self._opening.add(slot)
                self._crew.start(slot)

    def _hear(self, slot: int, reply: Reply) -> Exception | None:
        """Take note of a reply; what it returns ends the run."""
        task = self._at_work.pop(slot, None)
        self._opening.discard(slot)
        self._idle.discard(slot)
        if reply.kind == "refused":
            return ParedownError(reply.value)
        if reply.kind == "fault":
            return RuntimeError(f"in a worker: {reply.value}")
        if reply.kind == "lost":
            return self._lose(task, reply.value)
        self._lost_starts = 0
        self._idle.add(slot)
        if task is not None:
            done = (reply.value, None) if reply.kind == "answer" else (None, ParedownError(reply.value))
            self._over.append(Finished(task.job, *done, task.lost))
        return None

    def _lose(self, task: _Task[Job] | None, why: str) -> ParedownError | None:
        if task is None:
            self._lost_starts += 1
            if self._lost_starts < STARTS:
                return None
            return ParedownError(f"{STARTS} workers ended before they were ready ({why}); start fewer, or free some memory")
        task.lost = (*task.lost, why)
        if len(task.lost) < TRIES:
            self._waiting.appendleft(task)
        else:
            words = f"{TRIES} workers were lost over it, one after the other ({why}); run with fewer workers, or free some memory"
            self._over.append(Finished(task.job, None, ParedownError(words), task.lost))
        return None
