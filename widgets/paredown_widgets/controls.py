"""What the explorer needs of a study: its store, its run controls, and its measurements. `paredown.study.Study` offers this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from paredown.outcomes import Outcomes
from paredown.specs import CurvatureRequest, ExportFormat, Plan, Scheme, Shown
from paredown.store import Store

if TYPE_CHECKING:
    from paredown.evaluation.paired import Compared


class StudyLike(Protocol):
    """A study that can be watched and steered; methods return at once unless they say otherwise."""

    @property
    def store(self) -> Store:
        """Where its events are."""
        ...

    @property
    def running(self) -> bool:
        """Whether this process is running it now."""
        ...

    @property
    def paused(self) -> bool:
        """Whether the run waits for `resume`."""
        ...

    @property
    def busy_elsewhere(self) -> bool:
        """Whether another process works on it."""
        ...

    def start(self) -> Any:
        """Run what is not done yet, in the background."""
        ...

    def pause(self) -> None:
        """Wait before the next layer or evaluation."""
        ...

    def resume(self) -> Any:
        """Go on after a pause."""
        ...

    def cancel(self) -> None:
        """Stop before the next layer or evaluation."""
        ...

    def wait(self, timeout: float | None = None) -> Any:
        """Block until the run ends or the time is over."""
        ...

    def measure(self, schemes: Mapping[str, Scheme]) -> Plan:
        """Queue a plan; what is measured arrives in the store."""
        ...

    def outcomes(self, plan: Plan | None = None) -> Outcomes | None:
        """What a plan did to each held-out sample, the original where None; None where that was not kept."""
        ...

    def shown(self) -> Sequence[Shown]:
        """The held-out samples as a person sees them, in the order of the outcomes."""
        ...

    def compare(self, one: Plan, other: Plan | None = None) -> Compared:
        """Two measured plans, sample by sample."""
        ...

    def estimate(self, request: CurvatureRequest) -> Any:
        """Queue estimates of the true Hessian; they arrive in the store one by one."""
        ...

    @property
    def queued(self) -> Sequence[Plan]:
        """The plans that wait for their measurement, the next one first."""
        ...

    def hasten(self, digest: str) -> None:
        """Measure a plan that waits before the others."""
        ...

    def withdraw(self, digest: str) -> None:
        """Take back a plan that waits."""
        ...

    def prioritise(self, low_bytes: int, high_bytes: int) -> None:
        """Measure, and search for, plans of these sizes first; 0 and 0 for no sizes any more."""
        ...

    def export(self, plan: Plan, folder: Path, *, export_format: ExportFormat | None = None) -> Any:
        """Write a checkpoint; blocks until it is written."""
        ...

    def refusals(self, plan: Plan, *, export_format: ExportFormat | None = None) -> Sequence[object]:
        """What a format can't hold of a plan, in words, before anything is written."""
        ...
