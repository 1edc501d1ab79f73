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
from paredown.specs.layers import LayerKind, LayerRef, fused_groups
from paredown.specs.measurements import Measurement, Metric, Split
from paredown.specs.plans import SCHEMA, Candidate, Plan
from paredown.specs.schemes import (
    BITS,
    GRAMMAR,
    GROUP_SIZES,
    KEEP,
    ActivationFormat,
    ExportFormat,
    LowRank,
    Scheme,
    Solver,
    Sparsity,
    WeightFormat,
    default_schemes,
)
from paredown.specs.serialisation import from_json, to_json
from paredown.specs.study import ModelInfo, ScalingMethod, StudyConfig

__all__ = [
    "BITS",
    "GRAMMAR",
    "GROUP_SIZES",
    "KEEP",
    "SCHEMA",
    "WHOLE_MODEL",
    "ActivationFormat",
    "Candidate",
    "CurvatureMatrix",
    "CurvatureQuantity",
    "CurvatureRequest",
    "EigenvalueEstimate",
    "Event",
    "EventKind",
    "ExportFormat",
    "LayerKind",
    "LayerRef",
    "LowRank",
    "Measurement",
    "Metric",
    "ModelInfo",
    "Payload",
    "Plan",
    "QuadraticFit",
    "QuadraticStep",
    "ScalingMethod",
    "Scheme",
    "Solver",
    "Sparsity",
    "SpectralDensity",
    "Split",
    "Stage",
    "StudyConfig",
    "TraceEstimate",
    "Verdict",
    "WeightFormat",
    "default_schemes",
    "from_json",
    "fused_groups",
    "to_json",
]
