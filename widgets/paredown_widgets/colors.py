"""What the plan may be coloured by: the decision itself, or any number that the study knows of each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from paredown.errors import ParedownError
from paredown.search.sensitivities import Sensitivity, curvature_of
from paredown.specs import Candidate, CurvatureMatrix, LayerProfile, Score
from paredown_widgets import curvature, numbers
from paredown_widgets.choices import Handle, value_of
from paredown_widgets.rankings import NAMES
from paredown_widgets.schemes import bits_of

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

STEPS = 8
"""Colours of the sequential ramp, q0 to q7."""
_BITS_RAMP = {2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 8: 6}  # the deepest is left for a layer that is kept
_SPAN = 300.0  # largest over smallest value that the ramp tells apart
_LEAST = 3.0  # no less: values that are nearly alike look nearly alike

Value = Callable[["ExplorerModel", str], "float | None"]


@dataclass(frozen=True)
class Color:
    """One quantity.

    Attributes:
        label: What it is called.
        group: Under which head it stands in the list.
        value: Model and layer name to its value; None where it is not known.
        unit: What is printed behind the legend; empty takes the matrix that the curvature is of.
        factor: What values are multiplied with to be shown in that unit.
        title: What it is, in a sentence.
    """

    label: str
    group: str
    value: Value
    unit: str = ""
    factor: float = 1.0
    title: str = ""


def _candidate(model: ExplorerModel, name: str) -> Candidate | None:
    return model.record.candidates.get(name, {}).get(model.editor.schemes[name])


def _priced(read: Callable[[Candidate], float | None]) -> Value:
    def value(model: ExplorerModel, name: str) -> float | None:
        candidate = _candidate(model, name)
        return None if candidate is None else read(candidate)

    return value


def _weighed(kind: Sensitivity) -> Value:
    """Half of the squared change of the weights times one number of curvature."""

    def value(model: ExplorerModel, name: str) -> float | None:
        candidate, layer = _candidate(model, name), model.problem.layers.get(name) if model.problem else None
        if candidate is None or layer is None or not candidate.weight_error:
            return None
        try:
            return 0.5 * candidate.weight_error * curvature_of(kind, layer, {name: model.record.estimates(name)})
        except ParedownError:  # not estimated for this layer
            return None

    return value


def _profiled(read: Callable[[LayerProfile], float | None]) -> Value:
    def value(model: ExplorerModel, name: str) -> float | None:
        profile = model.record.profiles.get(name)
        return None if profile is None else read(profile)

    return value


def _rung(handle: Handle) -> Value:
    """The place of a handle among the values that the study offers, 0 to 1."""

    def value(model: ExplorerModel, name: str) -> float | None:
        offered, here = model.choices.values(handle), value_of(model.editor.schemes[name], handle)
        return offered.index(here) / max(1, len(offered) - 1) if here in offered else None

    return value


def _matrix(model: ExplorerModel) -> CurvatureMatrix:
    """Whose curvature is shown; asked once for all layers, since it looks at each of them."""
    key = (model.spectrum_matrix, model.curvature_events, len(model.labels))
    return model.kept("matrix", key, lambda: curvature.shown_matrix(model, list(model.labels)))


def _trace(model: ExplorerModel, name: str) -> float | None:
    trace = model.record.estimates(name, _matrix(model)).trace
    return trace.value if trace else None


def _top(model: ExplorerModel, name: str) -> float | None:
    return curvature.top(model.record.estimates(name, _matrix(model)))


_DECISION, _COST, _SCORES, _CURVED, _NUMBERS = (
    "The plan",
    "What it costs",
    "Scores at the plan's schemes",
    "Curvature",
    "Weights and inputs",
)
_NATS = ("10⁻³ nats", 1e3)
_UNITS: dict[str, tuple[str, float]] = dict.fromkeys(("measured_loss", "kfac", "ekfac"), _NATS)

COLORS: dict[str, Color] = {
    "bits": Color("Bits", _DECISION, lambda model, name: float(bits_of(model.editor.schemes[name]) or 16), "bit"),
    "sparsity": Color("Sparsity", _DECISION, _rung("sparsity")),
    "rank": Color("Rank", _DECISION, _rung("rank")),
    "bytes": Color("Bytes", _DECISION, _priced(lambda c: float(c.bytes)), "kB", 1e-3),
    "seconds": Color("Latency", _DECISION, _priced(lambda c: c.seconds_per_token), "µs per token", 1e6, "measured on this machine, one thread"),
    "sensitivity": Color("Sensitivity", _COST, _priced(lambda c: c.loss_increase), *_NATS, "predicted loss increase at the plan's schemes"),
    "deviation": Color("Its deviation", _COST, _priced(lambda c: c.loss_increase_sd), *_NATS, "standard error of the predicted loss increase"),
    "output_error": Color("Output error", _COST, _priced(lambda c: c.output_error), "%", 1e2, "relative squared error of the layer's output"),
    "weight_error": Color("Weight error", _COST, _priced(lambda c: c.weight_error or None), "‖ΔW‖²"),
    **{f"{kind}_score": Color(NAMES[kind][0], _SCORES, _weighed(kind), *_NATS, NAMES[kind][1]) for kind in get_args(Sensitivity)},
    **{
        score: Color(NAMES[score][0], _SCORES, _priced(lambda c, score=score: c.scores.get(score)), *_UNITS.get(score, ("in its own unit", 1.0)), NAMES[score][1])
        for score in get_args(Score)
    },
    "trace": Color("Trace", _CURVED, _trace),
    "top_eigenvalue": Color("λmax", _CURVED, _top),
    "negative_share": Color("Negative curvature", _CURVED, curvature.negative, "%, Hessian", 1e2),
    "outliers": Color("Outlier channels", _NUMBERS, _profiled(lambda p: p.inputs.outlier_share if p.inputs else None), "% of the input energy", 1e2),
    "kurtosis": Color("Weight kurtosis", _NUMBERS, _profiled(lambda p: p.weight_kurtosis), "excess", 1.0, "excess kurtosis of the weights; 0 for a normal distribution"),
    "reach": Color("Weight range", _NUMBERS, _profiled(lambda p: p.weight_max / p.weight_sd if p.weight_sd > 0 else None), "sd", 1.0, "largest weight in standard deviations"),
}  # fmt: skip
"""Id to quantity, in the order of the list."""
_LADDERS = ("bits", "sparsity", "rank")


def options(model: ExplorerModel) -> list[dict[str, str]]:
    """Those that the study knows of some layer. Kept until something new is known: it asks every layer for what none has."""
    record = model.record
    key = (sum(map(len, record.candidates.values())), len(record.profiles), model.curvature_events, model.priced, tuple(model.labels))

    def make() -> list[dict[str, str]]:
        known = [color for color in COLORS if _known(model, color)]
        return [{"id": color, "label": COLORS[color].label, "group": COLORS[color].group} for color in known]

    return model.kept("colors", key, make)


def _known(model: ExplorerModel, color: str) -> bool:
    if color in ("sparsity", "rank"):
        return len(model.choices.values("sparsity" if color == "sparsity" else "rank")) > 1
    always = ("bits", "sensitivity", "bytes", "output_error", "trace", "top_eigenvalue", "negative_share")  # these come with every run
    return color in always or any(COLORS[color].value(model, name) is not None for name in model.editor.schemes)


@dataclass(frozen=True)
class Paint:
    """The colours of a plan.

    Attributes:
        steps: Layer name to step of the ramp; a layer without a value has none.
        texts: Layer name to its value in words, where the cell's own text is not the value.
        legend: What the ends of the ramp mean, and the unit.
    """

    steps: Mapping[str, int]
    texts: Mapping[str, str]
    legend: Mapping[str, str]


def paint(model: ExplorerModel) -> Paint:
    """Bits by their place on the ladder; sparsity and rank by theirs; the rest by logarithm, from 1/300 or more of the largest to it."""
    color = COLORS[model.color_by]
    values = {name: value for name in model.editor.schemes if (value := color.value(model, name)) is not None}
    if model.color_by == "bits":
        ladder = list(model.choices.bits)
        steps = {name: _BITS_RAMP.get(int(bits), STEPS - 1) for name, bits in values.items()}
        return Paint(steps, {}, {"low": str(ladder[0]) if ladder else "", "high": str(ladder[-1]) if ladder else "", "unit": "bit"})
    if model.color_by in ("sparsity", "rank"):
        low, *_, high = model.choices.values("sparsity" if model.color_by == "sparsity" else "rank") or (None, None)
        steps = {name: round((STEPS - 1) * place) for name, place in values.items()}
        return Paint(steps, {}, {"low": str(low or "none"), "high": str(high or "none"), "unit": ""})
    texts = {name: numbers.significant(value * color.factor, 2) for name, value in values.items()}
    unit = color.unit or curvature.MATRICES[_matrix(model)]
    positive = [value for value in values.values() if value > 0]
    if not positive:
        return Paint(
            dict.fromkeys(values, 0), texts, {"low": "0", "high": "0", "unit": unit} if values else {"low": "", "high": "", "unit": ""}
        )
    high = max(positive)
    low = min(max(min(positive), high / _SPAN), high / _LEAST)
    steps = {name: round((STEPS - 1) * math.log(max(value, low) / low) / math.log(high / low)) for name, value in values.items()}
    ends = [numbers.significant(value * color.factor, 2) for value in (low, high)]
    return Paint(steps, texts, {"low": ("≤ " if min(values.values()) < low else "") + ends[0], "high": ends[1], "unit": unit})
