"""What every executor offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from paredown.errors import ParedownError

Job = TypeVar("Job")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Finished(Generic[Job, Answer]):
    """A job that is over.

    Attributes:
        job: What was asked.
        answer: What came of it; None where it failed.
        error: Why it failed; None where it did not.
        lost: What became of workers that were lost over it, one after the other.
    """

    job: Job
    answer: Answer | None
    error: ParedownError | None = None
    lost: tuple[str, ...] = ()


class Executor(Protocol[Job, Answer]):
    """Does jobs, some at once; for one thread alone.

    Who uses it hands over as many as are `free` and looks after other things in between, so that what is more urgent stands in no queue.
    Nothing is started, and no cluster connected to, before the first is asked for.
    """

    @property
    def free(self) -> int:
        """How many more jobs can begin now."""
        ...

    def submit(self, job: Job) -> None:
        """Begin a job, or let it wait until one of the others is over."""
        ...

    def finished(self, seconds: float) -> Sequence[Finished[Job, Answer]]:
        """What is over by now.

        Args:
            seconds: How long to wait for the first; nothing is waited for where nothing was submitted.

        Raises:
            ParedownError: If no worker can do the work.
        """
        ...

    def cancel(self) -> None:
        """Drop what was submitted and not handed out by `finished`."""
        ...

    def close(self) -> None:
        """Drop it, and let the workers go."""
        ...
