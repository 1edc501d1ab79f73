"""What the loss does around a layer's weight: estimates, each with its errors.

A block is per counted unit (sample or token), in nats and squared weight. Data error is the spread over samples: another sample of
the data would give another matrix. Probe error is the spread over random probes: the matrix of these samples, not known exactly. The two
are never added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from paredown.errors import ParedownError

CurvatureMatrix = Literal["hessian", "ggn", "fisher", "empirical_fisher", "kfac", "ekfac"]
"""Second derivative of the loss; Gauss-Newton; Fisher with labels sampled from the model; with the data's labels; Kronecker-factored forms."""

Verdict = Literal["yes", "with care", "no", "unknown"]

CurvatureQuantity = Literal["trace", "eigenvalues", "density", "fit"]

WHOLE_MODEL = ""
"""The `layer` of an estimate for all layers together."""


@dataclass(frozen=True, slots=True)
class TraceEstimate:
    """Trace of one block.

    Attributes:
        layer: The layer's name, or `WHOLE_MODEL`.
        matrix: Which matrix.
        value: The trace; a Hessian's may be negative.
        data_sd: Standard error over the samples.
        probe_sd: Standard error over the probes; 0 where the trace is exact for its samples; None where a single probe of each sample can't
            tell it from the data error, which then includes it.
        samples: Calibration samples.
        probes: Random probes of each sample.
        seed: Seed of the probes.
        scale: Trace of the Gauss-Newton block of the same samples: what the errors of a Hessian's trace near zero are read against.
    """

    layer: str
    matrix: CurvatureMatrix
    value: float
    data_sd: float
    probe_sd: float | None
    samples: int
    probes: int
    seed: int
    scale: float | None = None

    def __post_init__(self) -> None:
        _check_finite(self.layer, self.matrix, (self.value, self.data_sd, self.probe_sd or 0.0))

    @property
    def yardstick(self) -> float:
        """What the relative errors are relative to: the trace's magnitude, or `scale` where that is larger."""
        return max(abs(self.value), self.scale or 0.0)

    @property
    def relative_data_error(self) -> float:
        """Data error over the yardstick; 0 for a layer without curvature."""
        return self.data_sd / self.yardstick if self.yardstick else 0.0

    @property
    def relative_probe_error(self) -> float | None:
        """Probe error over the yardstick; 0 for a layer without curvature, None where it is not known apart."""
        return None if self.probe_sd is None else self.probe_sd / self.yardstick if self.yardstick else 0.0


@dataclass(frozen=True, slots=True)
class EigenvalueEstimate:
    """The ends of one block's spectrum.

    Attributes:
        layer: The layer's name, or `WHOLE_MODEL`.
        matrix: Which matrix.
        top: Largest eigenvalues, descending. Biased upward when samples are few.
        top_residuals: ‖Av − θv‖ of each: some eigenvalue lies that near; 0 where exact.
        bottom: Smallest eigenvalues, ascending; empty for a matrix without negative ones.
        bottom_residuals: As `top_residuals`.
        samples: Calibration samples.
        products: Matrix-vector products that it took; 0 where the spectrum came from a Gram matrix.
        seed: Seed of the start vector or the probes.
        half_sample_top: Largest eigenvalue of half of the samples; above ``top[0]`` by about what ``top[0]`` itself is too high.
        slice_tops: Largest eigenvalue of each of some disjoint slices of the samples (Q-BERT, Shen et al., 2020); empty where not computed.
    """

    layer: str
    matrix: CurvatureMatrix
    top: tuple[float, ...]
    top_residuals: tuple[float, ...]
    bottom: tuple[float, ...]
    bottom_residuals: tuple[float, ...]
    samples: int
    products: int
    seed: int
    half_sample_top: float | None = None
    slice_tops: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_finite(self.layer, self.matrix, (*self.top, *self.top_residuals, *self.bottom, *self.bottom_residuals))


@dataclass(frozen=True, slots=True)
class SpectralDensity:
    """One block's whole spectrum as point masses; smoothing is chosen when it is drawn.

    Attributes:
        layer: The layer's name, or `WHOLE_MODEL`.
        matrix: Which matrix.
        nodes: Eigenvalues (where `exact`) or Ritz values of each probe, ascending.
        weights: Share of the spectrum at each node; those of a probe add up to 1.
        dimension: Size of the block: weight times dimension counts eigenvalues.
        samples: Calibration samples.
        seed: Seed of the probes.
        exact: Whether the nodes are the spectrum itself; then there is one "probe" and no probe error.
    """

    layer: str
    matrix: CurvatureMatrix
    nodes: tuple[tuple[float, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    dimension: int
    samples: int
    seed: int
    exact: bool = False

    def __post_init__(self) -> None:
        _check_finite(self.layer, self.matrix, (value for probe in (*self.nodes, *self.weights) for value in probe))
        if [len(probe) for probe in self.nodes] != [len(probe) for probe in self.weights] or not self.nodes:
            raise ParedownError(f"the density of {self.layer or 'the whole model'} must have one weight a node, and at least one probe")

    @property
    def negative_share(self) -> float:
        """Sum of the negative eigenvalues over the sum of all magnitudes, over all probes; 0 for a matrix of zeros."""
        masses = [
            node * weight
            for nodes, weights in zip(self.nodes, self.weights, strict=True)
            for node, weight in zip(nodes, weights, strict=True)
        ]
        total = sum(map(abs, masses))
        return -sum(mass for mass in masses if mass < 0) / total if total else 0.0


@dataclass(frozen=True, slots=True)
class QuadraticStep:
    """How one scheme's change of a layer did against its prediction, nats per unit on the same samples.

    Attributes:
        scheme: The scheme, in its short form.
        predicted: Quadratic form of the change.
        predicted_sd: Its standard error over the samples.
        measured: What the loss really did.
        measured_sd: Its standard error over the samples.
        difference_sd: Standard error of measured - predicted; far below the two others, since a sample that is hurt is mostly predicted to be.
    """

    scheme: str
    predicted: float
    predicted_sd: float
    measured: float
    measured_sd: float
    difference_sd: float


@dataclass(frozen=True, slots=True)
class QuadraticFit:
    """How far the quadratic model of the loss holds for one layer: may its predictions be trusted?

    Attributes:
        layer: The layer's name.
        gradient_norm: ‖∇L‖ of the layer: not zero where the model is not at a minimum of this data's loss.
        gradient_norm_sd: What the norm would be by chance at a minimum, from the spread over the samples.
        negative_share: Sum of the negative eigenvalues over the sum of all magnitudes; None where the Hessian's spectrum is not known.
        steps: Predicted against measured along changes of falling width.
        verdict: ``yes``, ``with care``, ``no``, or ``unknown`` where too little is known.
        reason: The verdict in one sentence.
        samples: Calibration samples.
        seed: Seed of the estimates behind it.
    """

    layer: str
    gradient_norm: float
    gradient_norm_sd: float
    negative_share: float | None
    steps: tuple[QuadraticStep, ...]
    verdict: Verdict
    reason: str
    samples: int
    seed: int


@dataclass(frozen=True, slots=True)
class CurvatureRequest:
    """What to find out about the true Hessian, and how well.

    Attributes:
        layers: Names of the layers, in the order of interest; empty takes all, the largest Gauss-Newton trace first.
        quantities: What to estimate of each: trace, ends of the spectrum, density, and how far the quadratic model holds.
        samples: Calibration samples; None takes as many as the time allows.
        relative_error: Relative standard error to refine each trace to: of the data first, then of the probes.
        seconds: Time to stop after, with what is there by then; None goes on until `relative_error` is reached.
    """

    layers: tuple[str, ...] = ()
    quantities: tuple[CurvatureQuantity, ...] = ("trace", "eigenvalues", "density", "fit")
    samples: int | None = None
    relative_error: float = 0.05
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("samples", self.samples, 2), ("relative_error", self.relative_error, 0), ("seconds", self.seconds, 0)):
            if value is not None and not value >= least:
                raise ParedownError(f"{name} must be at least {least}, got {value}")
        unknown = set(self.quantities) - set(get_args(CurvatureQuantity))
        if unknown or not self.quantities:
            raise ParedownError(
                f"quantities must be among {', '.join(get_args(CurvatureQuantity))}, got {', '.join(sorted(unknown)) or 'none'}"
            )


def _check_finite(layer: str, matrix: str, values: Iterable[float]) -> None:
    if not all(map(math.isfinite, values)):
        raise ParedownError(
            f"the {matrix} estimate of {layer or 'the whole model'} must be finite; look for NaN or infinite values in the weights or the calibration data"
        )
