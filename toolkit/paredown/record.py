"""What is known of a study: the fold of its store's events. Everything that shows a study reads this; no torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from paredown.specs import (
    Candidate,
    CurvatureMatrix,
    EigenvalueEstimate,
    Event,
    LayerInteractions,
    LayerProfile,
    LayerRef,
    Measurement,
    ModelInfo,
    Plan,
    Priority,
    QuadraticFit,
    Scheme,
    SpectralDensity,
    Stage,
    StudyConfig,
    TraceEstimate,
)

State = Literal["idle", "running", "paused", "cancelled", "failed", "done"]

_STATES: Mapping[str, State] = {
    "started": "running",
    "resumed": "running",
    "paused": "paused",
    "cancelled": "cancelled",
    "error": "failed",
    "finished": "done",
}


@dataclass(slots=True)
class MatrixEstimates:
    """What is known by now of one matrix of one layer; the latest estimate of each kind.

    Attributes:
        trace: Its trace.
        eigenvalues: The ends of its spectrum.
        density: Its whole spectrum.
    """

    trace: TraceEstimate | None = None
    eigenvalues: EigenvalueEstimate | None = None
    density: SpectralDensity | None = None


@dataclass(slots=True)
class Record:
    """Everything that the events up to `sequence` say; `update` takes the ones behind it.

    Attributes:
        sequence: The last event that is folded in.
        config: What the study depends on.
        info: Model and task in words and numbers.
        layers: The compressible layers, in model order.
        candidates: Layer name to scheme (as asked) to candidate.
        curvature: Layer name (`specs.WHOLE_MODEL` for all layers together) to matrix to what is known of it.
        quadratic_fits: Layer name to how far the quadratic model holds there.
        profiles: Layer name to what its weights and inputs look like; empty in studies of earlier versions.
        plans: Plan digest to plan, in the order found.
        measurements: Plan digest to what was measured on the held-out split.
        baseline: The original model, measured.
        interactions: What groups of layers lose together beyond what each loses alone, as last measured.
        priority: The sizes that a person wants to see measured first; None for none.
        state: What the last run is doing, or how it ended.
        stage: Where it is.
        done: Steps of the stage that are finished.
        total: Steps of the stage.
        stage_started: Time of the stage's first event of this run.
        time: Time of the last event.
        message: The last words for a person.
        log: Every event that carries words.
    """

    sequence: int = 0
    config: StudyConfig | None = None
    info: ModelInfo | None = None
    layers: tuple[LayerRef, ...] = ()
    candidates: dict[str, dict[Scheme, Candidate]] = field(default_factory=dict)
    curvature: dict[str, dict[CurvatureMatrix, MatrixEstimates]] = field(default_factory=dict)
    quadratic_fits: dict[str, QuadraticFit] = field(default_factory=dict)
    profiles: dict[str, LayerProfile] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    baseline: Measurement | None = None
    interactions: LayerInteractions | None = None
    priority: Priority | None = None
    run: str = ""
    state: State = "idle"
    stage: Stage = "load"
    done: int = 0
    total: int = 0
    stage_started: float = 0.0
    time: float = 0.0
    message: str = ""
    log: list[Event] = field(default_factory=list)

    @property
    def sensitivity_complete(self) -> bool:
        """Whether every layer has its candidates."""
        return bool(self.layers) and all(layer.name in self.candidates for layer in self.layers)

    @property
    def sensitivity_matrix(self) -> CurvatureMatrix:
        """The matrix that the candidates are priced with."""
        return "empirical_fisher" if self.info is not None and self.info.loss == "loss" else "ggn"

    def estimates(self, layer: str, matrix: CurvatureMatrix | None = None) -> MatrixEstimates:
        """What is known of one matrix of a layer, by default the one of the sensitivities; empty where nothing is."""
        return self.curvature.get(layer, {}).get(matrix or self.sensitivity_matrix, MatrixEstimates())

    def update(self, events: Iterable[Event]) -> bool:
        """Fold in the events behind `sequence`; says whether there were any."""
        changed = False
        for event in events:
            changed = True
            self.sequence = event.sequence
            self._progress(event)
            for value in event.payload:
                self._take(value)
        return changed

    def _progress(self, event: Event) -> None:
        if event.stage != self.stage or event.run != self.run:
            self.stage_started = event.time
            self.done = self.total = 0
        self.run, self.stage, self.time = event.run, event.stage, event.time
        if event.total:
            self.done, self.total = event.done, event.total
        self.state = _STATES.get(event.kind, self.state)
        if event.message:
            self.message = event.message
            self.log.append(event)

    def _take(self, value: object) -> None:
        match value:
            case StudyConfig():
                self.config = value
            case ModelInfo():
                self.info = value
            case LayerRef():
                self.layers = (*(layer for layer in self.layers if layer.name != value.name), value)
            case Candidate():
                self.candidates.setdefault(value.layer, {})[value.scheme] = value
            case TraceEstimate():
                self._known(value).trace = value
            case EigenvalueEstimate():
                self._known(value).eigenvalues = value
            case SpectralDensity():
                self._known(value).density = value
            case LayerProfile():
                self.profiles[value.layer] = value
            case LayerInteractions():
                self.interactions = value
            case Priority(round=None):
                self.priority = value if value.high_bytes else None
            case QuadraticFit():
                self.quadratic_fits[value.layer] = value
            case Plan():  # found a second time it is the same plan, perhaps timed on another machine
                known = self.plans.get(value.digest, value)
                self.plans[value.digest] = replace(
                    known, seconds_per_token=value.seconds_per_token, seconds_per_token_sd=value.seconds_per_token_sd
                )
            case Measurement() if value.split == "held_out":
                self.measurements[value.plan_digest] = value
                plan = self.plans.get(value.plan_digest)
                if plan is not None and plan.found_by == "original":
                    self.baseline = value

    def _known(self, estimate: TraceEstimate | EigenvalueEstimate | SpectralDensity) -> MatrixEstimates:
        return self.curvature.setdefault(estimate.layer, {}).setdefault(estimate.matrix, MatrixEstimates())
