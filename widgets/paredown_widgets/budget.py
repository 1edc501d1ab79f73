"""The budget line: the constraint, the plan's size against it, and the uniform plans as a ruler."""

from __future__ import annotations

from typing import Any

from paredown.errors import ParedownError
from paredown.search import Prediction
from paredown_widgets import numbers
from paredown_widgets.model import ExplorerModel

_RULER = (2, 3, 4, 8)


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `budget` trait."""
    problem, budget = model.problem, model.budget
    if problem is None:
        return {
            "bytes": None, "text": "", "unit": "MB", "smallest": None, "largest": None, "ticks": [], "plan_bytes": None,
            "plan_text": numbers.NONE, "verdict": "", "kind": "none", "smallest_text": "",
        }  # fmt: skip
    prediction = model.predict()
    size = prediction.bytes if prediction else None
    ruler = uniform_sizes(model)
    largest = max([*ruler.values(), *(v for v in (size, budget) if v is not None)], default=problem.largest_bytes)
    kind, verdict = "none", ""
    if budget is not None and budget < problem.smallest_bytes:
        kind, verdict = "impossible", f"{numbers.size(problem.smallest_bytes - budget)} below the smallest"
    elif budget is not None and size is not None:
        kind = "over" if size > budget else "under"
        verdict = f"{numbers.size(abs(size - budget))} {kind}" if size != int(budget) else "on the budget"
    return {
        "bytes": None if budget is None else int(budget),
        "text": "" if budget is None else f"{budget / 1e6:.2f}",
        "unit": "MB",
        "smallest": problem.smallest_bytes,
        "largest": int(largest),  # kept layers would stretch the rail far beyond where anybody looks
        "ticks": [{"label": f"W{bits}", "text": numbers.size(value), "bytes": value} for bits, value in ruler.items()],
        "plan_bytes": size,
        "plan_text": numbers.size(size),
        "verdict": verdict,
        "kind": kind,
        "smallest_text": numbers.size(problem.smallest_bytes),
    }


def uniform_sizes(model: ExplorerModel) -> dict[int, int]:
    """Bits to bytes of the uniform plans that stand as a ruler."""
    return {bits: prediction.bytes for bits, prediction in uniform_plans(model).items()}


def uniform_plans(model: ExplorerModel) -> dict[int, Prediction]:
    """Bits to what the uniform plans of the ruler are predicted to take; worked out once for a problem."""
    if "ruler" not in model.cache or model.cache["ruler"][0] is not model.problem:
        model.cache["ruler"] = (model.problem, _uniform_plans(model))
    return model.cache["ruler"][1]


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
