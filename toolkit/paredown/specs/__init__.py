"""The vocabulary: frozen values that check themselves and travel as JSON. No torch here."""

from paredown.specs.curvature import (
    WHOLE_MODEL,
    CurvatureMatrix,
    CurvatureQuantity,
    CurvatureRequest,
    EigenvalueEstimate,
    QuadraticFit,
    QuadraticStep,
    SpectralDensity,
    TraceEstimate,
    Verdict,
)
from paredown.specs.events import Event, EventKind, Payload, Stage
from paredown.specs.interactions import LayerInteractions
from paredown.specs.layers import LayerKind, LayerRef, fused_groups
from paredown.specs.measurements import Measurement, Metric, RefineObjective, Split, Trial
from paredown.specs.plans import SCHEMA, Candidate, Plan
from paredown.specs.priority import Priority
from paredown.specs.profiles import Histogram, InputProfile, LayerProfile
from paredown.specs.scheme_parts import BITS, GROUP_SIZES, ActivationFormat, LowRank, Solver, Sparsity, WeightFormat
from paredown.specs.schemes import GRAMMAR, KEEP, Criterion, ExportFormat, Rounding, Scheme, default_schemes, usual_criterion
from paredown.specs.scores import MEASURED, Score
from paredown.specs.serialisation import from_json, to_json
from paredown.specs.shown import Shown
from paredown.specs.study import ModelInfo, Precision, ScalingMethod, StudyConfig

__all__ = [
    "BITS",
    "GRAMMAR",
    "GROUP_SIZES",
    "KEEP",
    "MEASURED",
    "SCHEMA",
    "WHOLE_MODEL",
    "ActivationFormat",
    "Candidate",
    "Criterion",
    "CurvatureMatrix",
    "CurvatureQuantity",
    "CurvatureRequest",
    "EigenvalueEstimate",
    "Event",
    "EventKind",
    "ExportFormat",
    "Histogram",
    "InputProfile",
    "LayerInteractions",
    "LayerKind",
    "LayerProfile",
    "LayerRef",
    "LowRank",
    "Measurement",
    "Metric",
    "ModelInfo",
    "Payload",
    "Plan",
    "Precision",
    "Priority",
    "QuadraticFit",
    "QuadraticStep",
    "RefineObjective",
    "Rounding",
    "ScalingMethod",
    "Scheme",
    "Score",
    "Shown",
    "Solver",
    "Sparsity",
    "SpectralDensity",
    "Split",
    "Stage",
    "StudyConfig",
    "TraceEstimate",
    "Trial",
    "Verdict",
    "WeightFormat",
    "default_schemes",
    "from_json",
    "fused_groups",
    "to_json",
    "usual_criterion",
]
