"""What a plan really did: observations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["calibration", "held_out"]

RefineObjective = Literal["kl", "loss", "metric"]
"""What measured refinement lowers: KL to the original model, the task's loss, or its metric."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A task's metric with its 95 % interval; ``low`` and ``high`` are None where the data gives no samples to resample."""

    name: str
    value: float
    low: float | None
    high: float | None
    higher_is_better: bool


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one plan really did on one split: an observation.

    Attributes:
        plan_digest: `Plan.digest`.
        data_digest: SHA-256 of the split's inputs and labels.
        split: Which split; results are shown from ``held_out`` alone.
        n: Number of samples.
        metric: The task's own metric.
        loss: The task's loss, nats per unit; None where the data has no labels.
        baseline_loss: The same of the original model.
        kl: KL(original ‖ compressed), nats per unit; None where the task offers no probabilities.
        kl_sd: Its standard error over samples.
        flips: Share of units whose most likely class changed.
        bytes: Size of the file.
        seconds_per_unit: Wall time of the forward pass per sample or token.
        device: Where it ran.
        kernel: What multiplied the weights; emulation is named as such.
        versions: Library versions.
        kv_cache_bits: Width of the keys and values in the cache; None where it was full, as it is for the original.
        kv_cache_bytes: What a token takes in that cache, in all layers, scales and zero points included; 0 where it was full.
    """

    plan_digest: str
    data_digest: str
    split: Split
    n: int
    metric: Metric
    loss: float | None
    baseline_loss: float | None
    kl: float | None
    kl_sd: float | None
    flips: float | None
    bytes: int
    seconds_per_unit: float
    device: str
    kernel: str
    versions: Mapping[str, str] = field(default_factory=dict)
    kv_cache_bits: Literal[8, 4] | None = None
    kv_cache_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What a plan did on some samples of the search split: what a search decides by, never a result.

    Attributes:
        plan_digest: `Plan.digest`; the plan itself is in the store only if it became one of the best.
        data_digest: Identifies the search split and the order of its samples.
        objective: What was measured.
        start: Place of the first of these samples in the split.
        losses: Of each sample, summed over its units, beyond the original model's; nats, or the metric's own unit, turned so that less is better.
        split: Always the search split, which the held-out split has no sample of.
    """

    plan_digest: str
    data_digest: str
    objective: RefineObjective
    start: int
    losses: tuple[float, ...]
    split: Literal["search"] = "search"
