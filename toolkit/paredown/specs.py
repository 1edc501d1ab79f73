"""The vocabulary: frozen values that check themselves and travel as JSON. No torch here."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from paredown.errors import ParedownError

SCHEMA = 1
"""Version of the JSON forms below; a reader refuses a larger one."""

BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (16, 32, 64, 128)

LayerKind = Literal["linear", "conv1d", "embedding"]
Solver = Literal["rtn", "mse"]
ExportFormat = Literal["compressed-tensors", "paredown"]
Split = Literal["calibration", "held_out"]
Stage = Literal["load", "baseline", "sensitivity", "search", "measure", "export"]
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
    "notice",
    "error",
    "paused",
    "resumed",
    "cancelled",
    "finished",
]


@dataclass(frozen=True, slots=True)
class LayerRef:
    """One weight tensor that can be compressed.

    Attributes:
        name: Exact module path, such as ``encoder.layer.0.attention.self.query``.
        kind: What module holds it; a ``conv1d`` (GPT-2) stores its weight transposed.
        role: What the layer does in its block: q, k, v, qkv, o, fc1, fc2, gate, up, down, embedding, position, pooler, head, ...
        block: Module path of the transformer block that it belongs to; empty outside of the blocks.
        shape: [out, in]; [rows, dim] for an embedding.
        dtype: Type that the original checkpoint stores, such as ``float32``.
        tied_to: Other module paths that use the very same tensor; they follow this layer's decision.
        fused_with: Other layers that runtimes fuse with this one; by default they are decided together.
    """

    name: str
    kind: LayerKind
    role: str
    block: str
    shape: tuple[int, int]
    dtype: str
    tied_to: tuple[str, ...] = ()
    fused_with: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.shape[0] * self.shape[1]


def fused_groups(layers: Iterable[LayerRef]) -> tuple[tuple[str, ...], ...]:
    """Names of the layers that are decided together, in model order; a layer that is fused with none stands alone."""
    by_name = {layer.name: layer for layer in layers}
    groups: dict[str, tuple[str, ...]] = {}
    for name, layer in by_name.items():
        members = tuple(other for other in by_name if other == name or other in layer.fused_with)
        groups.setdefault(members[0], members)
    return tuple(groups.values())


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the numbers of a weight are stored.

    Attributes:
        bits: Width of one code; one of `BITS`.
        group_size: Inputs that share one scale; None means one scale per output channel.
        symmetric: Without a zero point; codes are then centred on zero.
    """

    bits: int
    group_size: int | None = 64
    symmetric: bool = False
    kind: Literal["int"] = "int"

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ParedownError(f"bits must be one of {', '.join(map(str, BITS))}, got {self.bits}")
        if self.group_size is not None and self.group_size not in GROUP_SIZES:
            sizes = ", ".join(map(str, GROUP_SIZES))
            raise ParedownError(f"group_size must be one of {sizes}, or None for one scale per output channel, got {self.group_size}")


_SCHEME = re.compile(r"int(?P<bits>\d+)(?:g(?P<group>\d+))?(?P<symmetric>sym)?(?:-(?P<solver>[a-z]+))?")


@dataclass(frozen=True, slots=True)
class Scheme:
    """What is done to one layer. ``str(scheme)`` and `Scheme.parse` are inverse to each other.

    Attributes:
        weight: Number format; None keeps the tensor as the checkpoint has it.
        solver: How the codes are found: ``rtn`` rounds to nearest within the range of each group, ``mse`` also searches the
            clipping range of each group that leaves the smallest squared error.

    Example:
        >>> str(Scheme(WeightFormat(4, 64)))
        'int4g64'
        >>> Scheme.parse("int3g128sym-mse").weight
        WeightFormat(bits=3, group_size=128, symmetric=True, kind='int')
        >>> Scheme.parse("keep").weight is None
        True
    """

    weight: WeightFormat | None = None
    solver: Solver = "rtn"

    def __post_init__(self) -> None:
        if self.solver not in ("rtn", "mse"):
            raise ParedownError(f"solver must be rtn or mse, got {self.solver!r}")

    def __str__(self) -> str:
        if self.weight is None:
            return "keep"
        group = "" if self.weight.group_size is None else f"g{self.weight.group_size}"
        return f"int{self.weight.bits}{group}{'sym' * self.weight.symmetric}{'' if self.solver == 'rtn' else '-' + self.solver}"

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read the short form, such as ``int4g64``, ``int8``, ``int3g32sym-mse`` or ``keep``.

        Raises:
            ParedownError: If the text is not of that form.
        """
        if text == "keep":
            return KEEP
        match = _SCHEME.fullmatch(text)
        if match is None:
            raise ParedownError(f"expected a scheme such as int4g64, int8, int3g32sym, int4g64-mse or keep, got {text!r}")
        group = match["group"]
        weight = WeightFormat(int(match["bits"]), int(group) if group else None, bool(match["symmetric"]))
        return cls(weight, match["solver"] or "rtn")  # pyright: ignore[reportArgumentType]  (checked by __post_init__)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """In JSON a scheme is its short form: readable, and a tenth of the bytes."""
        from pydantic_core import core_schema

        def read(value: Any) -> Scheme:
            if isinstance(value, Scheme):
                return value
            try:
                return cls.parse(str(value))
            except ParedownError as error:
                raise ValueError(str(error)) from error

        return core_schema.no_info_plain_validator_function(read, serialization=core_schema.plain_serializer_function_ser_schema(str))


KEEP = Scheme()
"""The scheme that leaves a layer as it is."""


@dataclass(frozen=True, slots=True)
class CurvatureEstimate:
    """Curvature of one layer's block, in nats per unit (sample or token) and squared weight.

    Attributes:
        layer: The layer's name.
        matrix: Which matrix: ``ggn`` (Gauss-Newton, one output-space probe per sample) or ``empirical_fisher``.
        trace: Trace of the block.
        trace_sd: Its standard error over the calibration samples (data error; probe error included).
        top_eigenvalues: Largest eigenvalues, descending. Biased upward when samples are few.
        samples: Calibration samples that the trace comes from.
        eigenvalue_samples: Calibration samples that the eigenvalues come from.
        seed: Seed of the probes.
    """

    layer: str
    matrix: Literal["ggn", "empirical_fisher"]
    trace: float
    trace_sd: float
    top_eigenvalues: tuple[float, ...]
    samples: int
    eigenvalue_samples: int
    seed: int


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
        note: Why `effective` differs from `scheme`; empty where it does not.
    """

    layer: str
    scheme: Scheme
    effective: Scheme
    bytes: int
    loss_increase: float
    loss_increase_sd: float
    output_error: float
    note: str = ""

    def __post_init__(self) -> None:
        for name in ("loss_increase", "loss_increase_sd", "output_error"):
            if not math.isfinite(getattr(self, name)):
                raise ParedownError(
                    f"{name} of {self.scheme} on {self.layer} must be finite, got {getattr(self, name)}; look for NaN or infinite values in the weights or the calibration data"
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

    def __post_init__(self) -> None:
        if self.schema > SCHEMA:
            raise ParedownError(f"the plan has schema {self.schema}, this version of Paredown reads up to {SCHEMA}; upgrade Paredown")

    @property
    def digest(self) -> str:
        """Identifies model and decisions, whoever found them: 16 hexadecimal digits."""
        decided = {name: str(scheme) for name, scheme in self.schemes.items() if scheme != KEEP}
        return _digest({"model": self.model_digest, "schemes": decided})


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


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the study is about, for everyone who only reads the store.

    Attributes:
        model: The model's id, as given.
        label: A short name to show.
        digest: SHA-256 of the original weights.
        parameters: Number of weights.
        bytes: Size of the original checkpoint.
        fixed_bytes: Bytes of everything that no plan touches, file header included.
        task: The task's name.
        task_label: The task in words.
        unit: What losses are counted per: sample or token.
        metric: Name of the metric.
        higher_is_better: Direction of the metric.
        loss: What `Candidate.loss_increase` predicts: ``kl``, or ``loss`` where the task offers no probabilities.
        export_format: What the plans are exported as.
        schemes: The schemes that layers may get, in their short form.
        notice: Something that the user must know about the model or the data; may be empty.
    """

    model: str
    label: str
    digest: str
    parameters: int
    bytes: int
    fixed_bytes: int
    task: str
    task_label: str
    unit: Literal["sample", "token"]
    metric: str
    higher_is_better: bool
    loss: Literal["kl", "loss"] = "kl"
    export_format: ExportFormat = "compressed-tensors"
    schemes: tuple[str, ...] = ()
    notice: str = ""


@dataclass(frozen=True, slots=True)
class StudyConfig:
    """Everything that a run depends on.

    Attributes:
        model: Hub id, local folder or ``demo:NAME``.
        task: ``demo:NAME``, or the name under which a task of the user's own was given.
        schemes: The schemes that each layer may get, in their short form; a layer gets those that the export format can hold for it.
            None takes every width in groups of 64, symmetric where the format is ``compressed-tensors``, with zero points otherwise.
        export_format: ``compressed-tensors``, which plain transformers loads, or ``paredown``, which holds every plan; ``auto`` takes the
            first where it can hold the model at all.
        budgets: Mean bits per compressible weight at which plans are searched and measured; None takes those of the uniform plans and points between them.
        calibration_samples: Samples of the sensitivity pass; None takes the task's own number.
        held_out_samples: Samples of each measurement; None takes all.
        fuse: Decide fused groups together.
        seed: Seed of every random choice.
    """

    model: str = "demo:sentiment"
    task: str = "demo:sentiment"
    schemes: tuple[str, ...] | None = None
    export_format: ExportFormat | Literal["auto"] = "auto"
    budgets: tuple[float, ...] | None = None
    calibration_samples: int | None = None
    held_out_samples: int | None = None
    fuse: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.schemes is not None and not self.schemes:
            raise ParedownError("schemes must name at least one scheme, got none; for example int4g64")
        schemes = [Scheme.parse(scheme) for scheme in self.schemes or default_schemes("paredown")]
        if self.export_format not in ("auto", *get_args(ExportFormat)):
            raise ParedownError(f"export_format must be one of auto, {', '.join(get_args(ExportFormat))}, got {self.export_format!r}")
        for name in ("calibration_samples", "held_out_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParedownError(f"{name} must be at least 1, got {value}")
        widths = [32 if scheme.weight is None else scheme.weight.bits for scheme in schemes]
        for budget in self.budgets or ():
            if not min(widths) <= budget <= max(widths):  # NaN too
                raise ParedownError(
                    f"budgets must lie between the widths of the schemes, got {budget:g} bits: the smallest possible is {min(widths)} bits,"
                    f" the largest {max(widths)}; change the budget, or give other schemes"
                )


def default_schemes(export_format: ExportFormat) -> tuple[str, ...]:
    """Every width in groups of 64: symmetric where plain transformers has to load it, else with zero points, which err less.

    Example:
        >>> default_schemes("compressed-tensors")[:2]
        ('int2g64sym', 'int3g64sym')
    """
    return tuple(str(Scheme(WeightFormat(bits, 64, export_format == "compressed-tensors"))) for bits in BITS)


Payload = LayerRef | CurvatureEstimate | Candidate | Plan | Measurement | ModelInfo | StudyConfig


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


Value = TypeVar("Value")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON of any value of this module; floats that are not finite are refused.

    Raises:
        ParedownError: If a number is NaN or infinite.
    """
    plain = _adapter(type(value)).dump_python(value, mode="json")
    try:
        return json.dumps(plain, indent=indent, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        raise ParedownError(f"a {type(value).__name__} holds a number that is not finite and can't be stored: {value}") from error


def from_json(kind: type[Value], text: str | bytes) -> Value:
    """Read a value of the given type back from its JSON.

    Raises:
        ParedownError: If the text is no JSON, lacks a field, or holds one of the wrong type.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the text"
        raise ParedownError(f"expected the JSON of a {kind.__name__}, but {where}: {first['msg']}") from error


@functools.cache
def _adapter(kind: type) -> Any:
    from pydantic import TypeAdapter  # slow to import: only when JSON is asked for

    return TypeAdapter(kind)


def _digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
