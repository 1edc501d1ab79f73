"""The budget line: the constraint, the plan against it, and the uniform plans as a ruler; in MB, bits a weight, or ms a token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from paredown.errors import ParedownError
from paredown.search import Prediction
from paredown_widgets import numbers
from paredown_widgets.filling import limit
from paredown_widgets.model import ExplorerModel

_RULER = (2, 3, 4, 8)
BudgetUnit = Literal["MB", "bits", "ms"]


@dataclass(frozen=True)
class Measure:
    """How an amount of bytes or seconds is shown in a unit.

    Attributes:
        unit: Its name.
        label: In words.
        digits: Decimals of the field.
        shown: From bytes or seconds to the unit.
        meant: Back again.
        text: An amount with its unit; a difference of two where `shown` takes off what no plan changes.
    """

    unit: str
    label: str
    digits: int
    shown: Callable[[float], float]
    meant: Callable[[float], float]
    text: Callable[[float], str]


def measures(model: ExplorerModel) -> dict[str, Measure]:
    """The units that the budget may be given in: bits where the weights are counted, ms where the candidates were timed."""
    found = {"MB": Measure("MB", "MB", 2, lambda size: size / 1e6, lambda value: value * 1e6, numbers.size)}
    info, weights = model.record.info, sum(layer.parameters for layer in model.record.layers)
    if info is not None and weights:
        fixed = info.fixed_bytes
        found["bits"] = Measure(
            "bits",
            "bits a weight",
            2,
            lambda size: 8 * (size - fixed) / weights,
            lambda value: value * weights / 8 + fixed,
            lambda size: f"{numbers.fixed(8 * (size - fixed) / weights, 2)}{numbers.SPACE}bits",
        )
    if model.front_by_seconds is not None:
        digits = 2 if (model.latency_budget or 1.0) >= 1e-3 else 4
        found["ms"] = Measure(
            "ms",
            "ms a token",
            digits,
            lambda seconds: seconds * 1e3,
            lambda value: value / 1e3,
            lambda seconds: f"{numbers.significant(seconds * 1e3)}{numbers.SPACE}ms",
        )
    return found


def set_budget(model: ExplorerModel, value: float, unit: str) -> None:
    """Move the budget.

    Raises:
        ParedownError: If it is no positive number, or the unit is not known here.
    """
    known = measures(model)
    if unit not in known and unit != "bytes":
        raise ParedownError(
            f"the budget can be given in {', '.join(known)}, got {unit!r}; time the candidates for ms, with latency_tokens=1"
        )
    amount = value if unit == "bytes" else known[unit].meant(value)
    if not 0 < amount < float("inf"):
        raise ParedownError(f"the budget must be a positive number of {unit}, got {value}; type another")
    if unit == "ms":
        model.latency_budget = amount
    else:
        model.budget = amount
    model.touched = True
    model.changed()


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `budget` trait. Amounts are in its unit."""
    problem, (resource, budget) = model.problem, limit(model)
    known = measures(model)
    measure = known.get(model.budget_unit) or known["MB"]
    empty = {
        "amount": None, "text": "", "unit": measure.unit, "units": [], "digits": measure.digits, "smallest": None, "largest": None, "ticks": [],
        "plan": None, "plan_text": numbers.NONE, "verdict": "", "kind": "none", "smallest_text": "",
    }  # fmt: skip
    if problem is None:
        return empty
    predicted = model.predict()
    own = _taken(predicted, resource)
    ruler = {bits: taken for bits, prediction in uniform_plans(model).items() if (taken := _taken(prediction, resource)) is not None}
    least = problem.least(resource)
    largest = max([*ruler.values(), *(v for v in (own, budget) if v is not None)], default=float(problem.largest_bytes))
    kind, verdict = _verdict(measure, own, budget, least)
    return {
        **empty,
        "amount": None if budget is None else measure.shown(budget),
        "text": "" if budget is None else f"{measure.shown(budget):.{measure.digits}f}",
        "units": [{"id": each.unit, "label": each.label} for each in known.values()],
        "smallest": measure.shown(least),
        "largest": measure.shown(largest),  # kept layers would stretch the rail far beyond where anybody looks
        "ticks": [{"label": f"W{bits}", "text": measure.text(taken), "amount": measure.shown(taken)} for bits, taken in ruler.items()],
        "plan": None if own is None else measure.shown(own),
        "plan_text": numbers.NONE if own is None else measure.text(own) + _error(predicted, resource),
        "verdict": verdict,
        "kind": kind,
        "smallest_text": measure.text(least),
    }


def _taken(prediction: Prediction | None, resource: str) -> float | None:
    if prediction is None:
        return None
    return prediction.bytes if resource == "bytes" else prediction.seconds_per_token


def _error(prediction: Prediction | None, resource: str) -> str:
    """Standard error of the latency in ms, where it is known; a size has none."""
    deviation = prediction.seconds_per_token_sd if prediction is not None and resource == "seconds" else None
    return f" ± {numbers.error(deviation * 1e3)}" if deviation else ""


def _verdict(measure: Measure, own: float | None, budget: float | None, least: float) -> tuple[str, str]:
    if budget is None:
        return "none", ""
    if budget < least * (1 - 1e-9):
        return "impossible", f"{_gap(measure, least, budget)} below the smallest"
    if own is None:
        return "none", ""
    exact = int(budget) if measure.unit != "ms" else budget
    kind = "over" if own > exact * (1 + 1e-9) else "under"
    on_it = abs(own - exact) <= (1e-9 * own if measure.unit == "ms" else 0)
    return kind, "on the budget" if on_it else f"{_gap(measure, own, budget)} {kind}"


def _gap(measure: Measure, one: float, other: float) -> str:
    if measure.unit == "MB":
        return numbers.size(abs(one - other))
    return f"{numbers.significant(abs(measure.shown(one) - measure.shown(other)))}{numbers.SPACE}{measure.unit}"


def uniform_plans(model: ExplorerModel) -> dict[int, Prediction]:
    """Bits to what the uniform plans of the ruler are predicted to take; worked out once for a problem."""
    return model.kept("ruler", model.problem, lambda: _uniform_plans(model))


def _uniform_plans(model: ExplorerModel) -> dict[int, Prediction]:
    plans: dict[int, Prediction] = {}
    for bits in _RULER:
        try:
            prediction = model.predict(model.uniform(bits))
        except ParedownError:  # the study has no scheme of those bits
            continue
        if prediction is not None:
            plans[bits] = prediction
    return plans
