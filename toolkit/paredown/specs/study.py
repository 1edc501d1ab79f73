"""What a study is about, and what it depends on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from paredown.errors import ParedownError
from paredown.specs.measurements import RefineObjective
from paredown.specs.schemes import ExportFormat, Scheme, default_schemes
from paredown.specs.scores import Score

ScalingMethod = Literal["awq", "smoothquant"]
"""How inputs are scaled before anything is rounded."""

Precision = Literal["float32", "bfloat16", "int8"]
"""What a plan is evaluated in: the model's own numbers; bfloat16 copies of weights and activations; or packed codes on our kernels, layers'
inputs rounded to 8 bits and everything else in the model's own numbers."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the study is about, for everyone who only reads the store.

    Attributes:
        model: The model's id, as given.
        label: A short name to show.
        digest: SHA-256 of the weights that plans compress: the original's, scaled where the study scales them.
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
        schemes: The schemes that each layer may get, in their short form (`Scheme` has the grammar); a layer gets those that the export format can hold for it.
            None takes every width in groups of 64, symmetric where the format is ``compressed-tensors``, with zero points otherwise.
        export_format: ``compressed-tensors``, which plain transformers loads, or ``paredown``, which holds every plan; ``auto`` takes the
            first where it can hold the model at all.
        budgets: Mean bits per compressible weight at which plans are searched and measured; None takes those of the uniform plans and points between them.
        calibration_samples: Samples of the sensitivity pass; None takes the task's own number.
        held_out_samples: Samples of each measurement; None takes all.
        fuse: Decide fused groups together.
        scaling: ``awq`` or ``smoothquant``: the inputs of layers are scaled, and the layer or norm before takes the inverse, so that the
            model's function stays. AWQ searches for the narrowest int format among `schemes`. None scales nothing.
        kv_cache_bits: Width of the keys and values in a decoder's cache while plans are measured, 8 or 4; the original's is full. None leaves it full.
        precision: What plans are measured in, the original always in its own numbers: ``float32`` is exact, ``bfloat16`` and ``int8`` are
            faster and approximate, as each measurement says.
        hessian_seconds: Time for the true Hessian at the end of the run, seconds; 0 leaves it out.
        refine_plans: Plans that measured refinement may try beyond those that it begins with, over all budgets; 0 leaves it out.
        refine_objective: What it lowers on the search split: ``kl``, the task's ``loss``, or its ``metric``.
        search_samples: Samples of the search split, which never overlaps the held-out one: calibration samples that priced nothing where
            there are enough, the calibration samples themselves otherwise. None takes as many as are held out.
        latency_tokens: Tokens at once for which every layer is timed under every scheme on this machine, such as 1 where a decoder generates
            or 128 for a batch of sentences; latency is then a second budget. None times nothing.
        scores: Other allocators' scores that every candidate gets besides, to compare with: ``fisher``, ``kfac``, ``ekfac``, ``modelopt`` and
            ``delta_loss`` are read off the pass that prices, in its gradients (random probes of the Gauss-Newton matrix, or of the loss where
            the task offers no probabilities); ``measured_loss`` takes a run of the search split for each layer and scheme.
        interactions: Plans that may be run on the search split for what pairs of layers lose together: n groups take n (n + 1) / 2 of them.
            0 leaves it out.
        interaction_scheme: What they get; None takes the scheme whose width is nearest to 4 bits.
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
    scaling: ScalingMethod | None = None
    kv_cache_bits: Literal[8, 4] | None = None
    precision: Precision = "float32"
    hessian_seconds: float = 60.0
    refine_plans: int = 0
    refine_objective: RefineObjective = "kl"
    search_samples: int | None = None
    latency_tokens: int | None = None
    scores: tuple[Score, ...] = ()
    interactions: int = 0
    interaction_scheme: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.schemes is not None and not self.schemes:
            raise ParedownError("schemes must name at least one scheme, got none; for example int4g64")
        schemes = [Scheme.parse(scheme) for scheme in self.schemes or default_schemes("paredown")]
        if self.export_format not in ("auto", *get_args(ExportFormat)):
            raise ParedownError(f"export_format must be one of auto, {', '.join(get_args(ExportFormat))}, got {self.export_format!r}")
        if self.scaling not in (None, *get_args(ScalingMethod)):
            raise ParedownError(f"scaling must be one of {', '.join(get_args(ScalingMethod))}, or None, got {self.scaling!r}")
        if self.kv_cache_bits not in (None, 8, 4):
            raise ParedownError(f"kv_cache_bits must be 8, 4 or None, got {self.kv_cache_bits!r}")
        if self.precision not in get_args(Precision):
            raise ParedownError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")
        for name in ("calibration_samples", "held_out_samples", "search_samples", "latency_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParedownError(f"{name} must be at least 1, got {value}")
        if self.refine_plans < 0:
            raise ParedownError(f"refine_plans must be at least 0, got {self.refine_plans}; 0 leaves measured refinement out")
        if self.refine_objective not in get_args(RefineObjective):
            raise ParedownError(f"refine_objective must be one of {', '.join(get_args(RefineObjective))}, got {self.refine_objective!r}")
        if unknown := set(self.scores) - set(get_args(Score)):
            raise ParedownError(f"scores must be among {', '.join(get_args(Score))}, got {', '.join(map(repr, sorted(unknown)))}")
        if self.interactions != 0 and self.interactions < 3:
            raise ParedownError(f"interactions must be 0 or at least 3 plans, two layers alone and together, got {self.interactions}")
        if self.interaction_scheme is not None and Scheme.parse(self.interaction_scheme) not in schemes and self.schemes is not None:
            raise ParedownError(
                f"interaction_scheme must be one of the study's schemes {', '.join(map(str, schemes))}, got {self.interaction_scheme}"
            )
        if not 0 <= self.hessian_seconds < math.inf:
            raise ParedownError(f"hessian_seconds must be a time of at least 0, got {self.hessian_seconds}; 0 leaves the true Hessian out")
        widths = [scheme.nominal_bits for scheme in schemes]
        for budget in self.budgets or ():
            if not min(widths) <= budget <= max(widths):  # NaN too
                raise ParedownError(
                    f"budgets must lie between the widths of the schemes, got {budget:g} bits: the smallest possible is {min(widths):g} bits,"
                    f" the largest {max(widths):g}; change the budget, or give other schemes"
                )
