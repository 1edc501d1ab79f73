"""Where a run writes: the store's events of one run, handed on to a listener, with pause and cancel looked at on the way."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from paredown.errors import ParedownError
from paredown.record import Record
from paredown.specs import Event, EventKind, Payload, Stage
from paredown.store import Store
from paredown.study.control import Control

Listener = Callable[[Event], None]

FAILURES = (ParedownError, RuntimeError, MemoryError)
"""What may go wrong with a part that a run can do without; RuntimeErrors are torch's, for what it can't differentiate or allocate."""


class Journal:
    """Appends the events of one run and keeps the record of the study up to date.

    Attributes:
        store: Where the events go.
        record: Everything known so far, this run's events included.
    """

    def __init__(self, store: Store, control: Control, listener: Listener | None = None) -> None:
        self.store = store
        self.record = Record()
        self.record.update(store.events())
        self._control = control
        self._listener = listener
        self._run = uuid.uuid4().hex[:12]
        self._stage: Stage = "load"

    def stage(self, stage: Stage, message: str, *, done: int = 0, total: int = 0) -> None:
        """Enter a stage."""
        self._stage = stage
        self.write("progress", done=done, total=total, message=message)

    def write(
        self, kind: EventKind, *, layer: str = "", done: int = 0, total: int = 0, message: str = "", payload: Sequence[Payload] = ()
    ) -> None:
        """Write one event."""
        event = self.store.append(self._run, self._stage, kind, layer=layer, done=done, total=total, message=message, payload=payload)
        self.record.update(self.store.events(after=self.record.sequence))  # a second thread may have queued a plan meanwhile
        if self._listener is not None:
            self._listener(event)

    @contextmanager
    def tolerating(self, what: str) -> Iterator[None]:
        """Let a part of the run fail that the rest can do without; a notice says why."""
        try:
            yield
        except FAILURES as error:
            self.excuse(what, error)

    def excuse(self, what: str, error: BaseException) -> None:
        """Write down why something is left out."""
        self.write("notice", message=f"{what}, and the run goes on: {str(error) or type(error).__name__}")

    @contextmanager
    def within(self, stage: Stage) -> Iterator[None]:
        """Do something of another stage in between."""
        before, self._stage = self._stage, stage
        try:
            yield
        finally:
            self._stage = before

    def check(self) -> None:
        """Wait while paused; raise `paredown.study.control.Cancelled` if the run is to stop."""
        self._control.check(lambda: self.write("paused", message="paused; everything so far is saved"), lambda: self.write("resumed"))
