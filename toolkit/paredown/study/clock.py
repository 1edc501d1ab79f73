"""Time that work may take, without the time that it was held up."""

from __future__ import annotations

import time
from collections.abc import Callable


class TimeUp(Exception):  # noqa: N818  (no error: what was found by then is kept)
    """Unwinds work whose time is up."""


class Clock:
    """Runs while the work does.

    Args:
        seconds: What the work may take; None for no limit.
        spent: What earlier runs took of it.
    """

    def __init__(self, seconds: float | None, spent: float = 0.0) -> None:
        self.seconds = seconds
        self._started = time.monotonic() - spent

    @property
    def spent(self) -> float:
        """Seconds of work so far."""
        return time.monotonic() - self._started

    def excluding(self, work: Callable[[], object]) -> None:
        """Do something whose time does not count, such as waiting while the run is paused."""
        before = time.monotonic()
        try:
            work()
        finally:
            self._started += time.monotonic() - before

    def check(self, share: float = 1.0) -> None:
        """Go on while there is time.

        Args:
            share: Of the time, what may be used by now.

        Raises:
            TimeUp: If it is used up.
        """
        if self.seconds is not None and self.spent >= share * self.seconds:
            raise TimeUp
