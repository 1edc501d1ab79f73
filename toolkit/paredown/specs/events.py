"""What happens in a run, and what each happening brings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paredown.specs.curvature import EigenvalueEstimate, QuadraticFit, SpectralDensity, TraceEstimate
from paredown.specs.interactions import LayerInteractions
from paredown.specs.layers import LayerRef
from paredown.specs.measurements import Measurement, Trial
from paredown.specs.plans import Candidate, Plan
from paredown.specs.priority import Priority
from paredown.specs.profiles import LayerProfile
from paredown.specs.study import ModelInfo, StudyConfig

Stage = Literal["load", "spectra", "baseline", "sensitivity", "search", "measure", "hessian", "export"]
EventKind = Literal[
    "started",
    "model",
    "layers",
    "progress",
    "candidates",
    "curvature",
    "front",
    "plan",
    "measurement",
    "interactions",
    "notice",
    "error",
    "paused",
    "resumed",
    "cancelled",
    "finished",
]

Payload = (
    LayerRef
    | Candidate
    | TraceEstimate
    | EigenvalueEstimate
    | SpectralDensity
    | QuadraticFit
    | Plan
    | Measurement
    | Trial
    | LayerInteractions
    | LayerProfile
    | Priority
    | ModelInfo
    | StudyConfig
)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a run; the store is the list of them.

    Attributes:
        run: Id of the process's run that wrote it.
        sequence: Position in the store, rising.
        time: Seconds since the epoch.
        stage: Where in the run.
        kind: What happened.
        layer: The layer that it is about, or empty.
        done: Steps of the stage that are finished.
        total: Steps of the stage.
        message: Words for a person: what is being done, a notice, or what failed and the remedy.
        payload: The values that it brings.
    """

    run: str
    sequence: int
    time: float
    stage: Stage
    kind: EventKind
    layer: str = ""
    done: int = 0
    total: int = 0
    message: str = ""
    payload: tuple[Payload, ...] = ()
