"""What a scheme would do to a layer, and a decision for all of them: predictions."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paredown.errors import ParedownError
from paredown.specs.schemes import Scheme

SCHEMA = 1
"""Version of the JSON forms of this package; a reader refuses a larger one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one scheme would do to one layer: a prediction.

    Attributes:
        layer: The layer's name.
        scheme: The scheme.
        effective: The scheme that is really applied, where the asked one does not fit the layer (``note`` says why).
        bytes: Bytes in the exported file: codes, scales and zero points.
        loss_increase: Predicted KL to the original model (or increase of the task's own loss), nats per unit.
        loss_increase_sd: Its standard error over the calibration samples.
        output_error: Predicted relative squared error of the layer's output, from the input second moment; dimensionless.
        note: Why `effective` differs from `scheme`, and what a method did about degenerate input; empty where neither is so.
        weight_error: ‖ΔW‖² (Frobenius), what curvature in one number is multiplied by; 0 in studies of earlier versions.
        seconds_per_token: CPU seconds a token, measured on this machine in one thread (`paredown.kernels.latency`); None where nothing was timed.
        seconds_per_token_sd: Its standard error, of the timing alone; None where that is not known.
        scores: What other allocators would sum, by the name of the `Score`; those that the study asked for and this layer takes.
    """

    layer: str
    scheme: Scheme
    effective: Scheme
    bytes: int
    loss_increase: float
    loss_increase_sd: float
    output_error: float
    note: str = ""
    weight_error: float = 0.0
    seconds_per_token: float | None = None
    seconds_per_token_sd: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = {name: getattr(self, name) for name in ("loss_increase", "loss_increase_sd", "output_error", "weight_error")}
        for name, value in (*numbers.items(), *self.scores.items()):
            if not math.isfinite(value):
                raise ParedownError(
                    f"{name} of {self.scheme} on {self.layer} must be finite, got {value}; look for NaN or infinite values in the weights or the calibration data"
                )


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision for every compressible layer of one model.

    Attributes:
        model: The model's id.
        model_digest: SHA-256 of the original weights.
        schemes: Layer name to scheme; a layer that is absent is kept.
        bytes: Size of the whole exported file that follows from it.
        loss_increase: Predicted, nats per unit; None where nothing predicted it.
        loss_increase_sd: Its standard error.
        found_by: ``original``, ``uniform SCHEME``, ``searched at N bits`` (integer program on the predicted loss increase), ``user``, ...
        seed: Seed of the run that found it.
        seconds_per_token: Predicted, the sum of its layers' CPU seconds; None where nothing was timed. The rest of the model is not in it.
        seconds_per_token_sd: Upper bound of its standard error, the sum of the layers' own; None where one is not known.
    """

    model: str
    model_digest: str
    schemes: Mapping[str, Scheme]
    bytes: int
    loss_increase: float | None = None
    loss_increase_sd: float | None = None
    found_by: str = "user"
    seed: int = 0
    schema: int = SCHEMA
    seconds_per_token: float | None = None
    seconds_per_token_sd: float | None = None

    def __post_init__(self) -> None:
        if self.schema > SCHEMA:
            raise ParedownError(f"the plan has schema {self.schema}, this version of Paredown reads up to {SCHEMA}; upgrade Paredown")

    @property
    def digest(self) -> str:
        """Identifies model and decisions, whoever found them: 16 hexadecimal digits."""
        decided = {name: text for name, scheme in self.schemes.items() if (text := str(scheme)) != "keep"}
        return _digest({"model": self.model_digest, "schemes": decided})


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
