"""Work of the workers in scaling.py; they import it, as they can't a script."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from _rows import spent
from paredown.specs import Plan
from paredown.study.bench import Bench


@dataclass(frozen=True)
class Timed:
    """Measures plans and says what it cost.

    Attributes:
        bench: Opens the study.
    """

    bench: Bench

    def __call__(self) -> Callable[[Plan], tuple[float, int]]:
        """Open it; plans are answered with CPU seconds, and the most bytes that this process has held by then."""
        work = self.bench()
        return lambda plan: (spent(lambda: work(plan))[0], 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def nothing() -> Callable[[Any], None]:
    """Work that is none."""
    return _none


def _none(job: Any) -> None:
    pass
