"""From model to browser: at most eight pushes a second, never more than one ahead of what the browser has drawn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from paredown_widgets.difference import difference
from paredown_widgets.handlers import handle
from paredown_widgets.measuring import look
from paredown_widgets.memory import remember
from paredown_widgets.model import ExplorerModel
from paredown_widgets.snapshot import FIGURES, VIEWS, snapshot

PERIOD = 0.125
"""Seconds between two pushes."""
PATIENCE = 2.0
"""Seconds to wait for the browser's answer; a closed laptop must not stop the explorer in another window."""

_UNSENT = object()
Push = Callable[[Mapping[str, Any]], None]


class Pump:
    """One view's thread: waits for a change, waits for the last drawing, pushes what differs.

    Workers and handlers only change the model and call `ExplorerModel.changed`; no other thread touches the widget.
    """

    def __init__(
        self, model: ExplorerModel, push: Push, *, post: Callable[[Callable[[], None]], object] | None = None, saved: bool = False
    ) -> None:
        """Subscribe to the model.

        Args:
            model: The view model.
            push: Takes ``seq`` and a ``patch`` of what changed since the push before, and sends them as one message.
            post: Runs a function where the host wants its widgets touched; by default the pump's own thread.
            saved: The host saves what was pushed though no browser has taken it yet: until one has, what changed is pushed whole, with the
                push's number as ``held``.
        """
        self.model = model
        self.pushes = 0
        self._push = push
        self._post = post or (lambda function: function())
        self._saved = saved
        self._sent = snapshot(model)
        self._seq = 0
        self._acknowledged: int | None = None  # None until a browser has drawn anything: nobody to wait for
        self._dirty = threading.Event()
        self._hurry = threading.Event()
        self._drawn = threading.Event()
        self._stop = threading.Event()
        self._flushing = threading.RLock()
        self._thread: threading.Thread | None = None
        model.subscribe(self.changed)

    @property
    def first(self) -> dict[str, Any]:
        """Everything that the browser may know by now: what a widget starts with."""
        with self._flushing:
            return {**self._sent, "held": self._seq, "seq": self._seq}

    def start(self) -> Pump:
        """Begin to push, in a thread."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="explorer-view", daemon=True)
            self._thread.start()
        return self

    def changed(self) -> None:
        """Something in the model is different; from any thread."""
        self._dirty.set()

    def receive(self, message: Mapping[str, Any]) -> None:
        """A message of the browser: its acknowledgement, or something for the model; what a person did is shown at once, figures first."""
        if message.get("type") == "ack":
            self._acknowledged = int(message.get("seq", 0))
            self._drawn.set()
            return
        if message.get("type") == "whole":  # the browser missed a push
            self._push_now(self._push_whole)
            return
        with self._flushing:
            handle(self.model, message)
            if self._acknowledged is None or self._acknowledged >= self._seq:  # the browser is at rest: no need for the thread
                self._dirty.clear()
                self._push_now(self._answer)
            else:
                self._hurry.set()
                self.changed()

    def flush(self, names: Collection[str] = tuple(VIEWS)) -> bool:
        """Push what differs from the last push, as one message; says whether there was anything.

        Args:
            names: The traits to look at.
        """
        with self._flushing:
            now = snapshot(self.model, names)
            changes = {name: change for name, value in now.items() if (change := difference(self._sent.get(name, _UNSENT), value))}
            if not changes:
                return False
            self._sent |= now
            self._seq += 1
            self.pushes += 1
            if self._saved and self._acknowledged is None:
                self._push({**{name: now[name] for name in changes}, "held": self._seq, "seq": self._seq})
            else:
                self._push({"patch": {"seq": self._seq, "after": self._seq - 1, "traits": changes}, "seq": self._seq})
            return True

    def _answer(self) -> None:
        """What an edit says in figures goes alone, and the rest when they are drawn; anything else goes at once."""
        if self.flush(FIGURES):
            self._hurry.set()
            self.changed()
        else:
            self.flush()

    def _push_whole(self) -> None:
        with self._flushing:
            self._push({"patch": {"seq": self._seq, "after": None, "traits": {name: [value] for name, value in self._sent.items()}}})

    def close(self) -> None:
        """Stop pushing."""
        self.model.unsubscribe(self.changed)
        self._stop.set()
        for event in (self._dirty, self._hurry, self._drawn):
            event.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)

    def _flush(self) -> None:
        self.flush()

    def _run(self) -> None:
        while True:
            self._dirty.wait()
            last = self._seq
            self._await_drawing()
            if self._stop.is_set():
                return
            with self._flushing:  # what a message did meanwhile was pushed at once, and is to be drawn first
                if self._seq != last or not self._dirty.is_set():
                    continue
                self._dirty.clear()
            self._hurry.clear()
            self._push_now(lambda: self._post(self._flush))
            self._hurry.wait(PERIOD)

    def _push_now(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            # the widget is gone or refused the state: say so in the model, which another view may show
            self.model.error = {"text": f"The view could not be updated: {error}", "remedy": "display the explorer again"}

    def _await_drawing(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._stop.is_set() and self._acknowledged is not None and self._acknowledged < self._seq:
            self._drawn.clear()
            left = deadline - time.monotonic()
            if left <= 0 or self._acknowledged >= self._seq:
                return
            self._drawn.wait(left)


class Watcher:
    """Reads the store for a model, often while something runs, rarely otherwise. One thread a model."""

    def __init__(self, model: ExplorerModel, after: Callable[[], None] | None = None) -> None:
        self.model = model
        self._after = after
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="explorer-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        quiet = 0
        while not self._stop.wait(0.1 if self.model.running or quiet < 20 else 0.5):
            try:
                quiet = 0 if self.model.refresh() else quiet + 1
                remember(self.model)
                if any([self.model.saved.look(self.model), look(self.model)]):
                    self.model.changed()
                if self._after is not None:
                    self._after()
            except Exception as error:
                self.model.fail(error)
                quiet = 20

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)
        remember(self.model)
