"""Work behind the caller: one thread at a time, which ends in good order."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable

Work = Callable[[], None]


class Background:
    """A thread that works, or none.

    Args:
        cancel: Makes the work end soon.
        more: Whether something waits to be done besides.
    """

    def __init__(self, cancel: Work, more: Callable[[], bool]) -> None:
        self._cancel, self._more = cancel, more
        self._starting = threading.Lock()
        self._idle = threading.Event()  # and no Thread.join, which an interrupt makes believe that the thread has ended (CPython 3.11)
        self._idle.set()
        self._error: BaseException | None = None

    @property
    def running(self) -> bool:
        """Whether it works."""
        return not self._idle.is_set()

    def start(self, reset: Work, first: Work, rest: Work) -> None:
        """Begin, unless it works already: then what waits is done by the thread that is there.

        Args:
            reset: Called before the thread starts.
            first: What to do.
            rest: Does what waits, as long as something does.
        """
        with self._starting:
            if not self.running:
                reset()
                self._error = None
                self._idle.clear()
                atexit.register(self._stop_at_exit)
                threading.Thread(target=self._run, args=(first, rest), name="paredown-study", daemon=True).start()

    def wait(self, timeout: float | None = None) -> None:
        """Wait for its end; an interrupt (Ctrl C) cancels it in good order, and is passed on.

        Raises:
            BaseException: What ended it early.
        """
        try:
            self._idle.wait(timeout)
        except KeyboardInterrupt:
            self._cancel()
            self._idle.wait()
            raise
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, first: Work, rest: Work) -> None:
        """The last resort: the error is written down by now, and `wait` raises it."""
        try:
            first()
            while not self._at_rest():
                rest()
        except BaseException as error:
            self._error = error
            with self._starting:
                self._rest()

    def _at_rest(self) -> bool:
        """Whether nothing waits; said under the lock of `start`, so that nothing is queued behind a thread that is about to end."""
        with self._starting:
            if self._more():
                return False
            self._rest()
            return True

    def _rest(self) -> None:
        atexit.unregister(self._stop_at_exit)
        self._idle.set()

    def _stop_at_exit(self) -> None:
        """An interpreter that ends under a thread inside torch would abort; what is in flight is lost, and no more."""
        self._cancel()
        self._idle.wait()
