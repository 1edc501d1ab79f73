"""Pause and cancel, looked at between layers and between evaluations."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Cancelled(Exception):  # noqa: N818  (no error: the user asked for it)
    """Unwinds a run that was cancelled; everything written so far is kept."""


class Control:
    """Two flags that one thread sets and the running one obeys."""

    def __init__(self) -> None:
        self._cancel = threading.Event()
        self._go = threading.Event()
        self._go.set()

    @property
    def paused(self) -> bool:
        """Whether the run waits, or will at its next step."""
        return not self._go.is_set()

    def pause(self) -> None:
        """Wait at the next step."""
        self._go.clear()

    def resume(self) -> None:
        """Go on."""
        self._go.set()

    def cancel(self) -> None:
        """Stop at the next step, also out of a pause."""
        self._cancel.set()
        self._go.set()

    def reset(self) -> None:
        """Be ready for another run."""
        self._cancel.clear()
        self._go.set()

    def check(self, on_pause: Callable[[], object] = lambda: None, on_resume: Callable[[], object] = lambda: None) -> None:
        """Wait while paused.

        Args:
            on_pause: Called before waiting.
            on_resume: Called after it.

        Raises:
            Cancelled: If the run is to stop.
        """
        if self.paused:
            on_pause()
            self._go.wait()
            if not self._cancel.is_set():
                on_resume()
        if self._cancel.is_set():
            raise Cancelled
