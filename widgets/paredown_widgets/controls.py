"""What the explorer needs of a study: its store, its run controls, and its measurements. `paredown.study.Study` offers this."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from paredown.specs import Plan, Scheme
from paredown.store import Store


class StudyLike(Protocol):
    """A study that can be watched and steered; methods return at once unless they say otherwise."""

    @property
    def store(self) -> Store: ...

    @property
    def running(self) -> bool:
        """Whether this process is running it now."""
        ...

    @property
    def paused(self) -> bool: ...

    @property
    def busy_elsewhere(self) -> bool:
        """Whether another process works on it."""
        ...

    def start(self) -> Any: ...

    def pause(self) -> None: ...

    def resume(self) -> Any: ...

    def cancel(self) -> None: ...

    def wait(self, timeout: float | None = None) -> Any:
        """Block until the run ends or the time is over."""
        ...

    def measure(self, schemes: Mapping[str, Scheme]) -> Plan:
        """Queue a plan; what is measured arrives in the store."""
        ...

    def export(self, plan: Plan, folder: Path) -> Any:
        """Write a compressed-tensors checkpoint; blocks until it is written."""
        ...
