"""Fill the rest: the search completes a half-made plan around its locks."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast

from paredown.errors import ParedownError
from paredown.search import Objective, allocate
from paredown.specs import CurvatureMatrix
from paredown_widgets.model import ExplorerModel


def limit(model: ExplorerModel) -> tuple[Literal["bytes", "seconds"], float | None]:
    """What the budget limits, and to how much: bytes of the file, or seconds a token where the budget is given in ms."""
    if model.budget_unit == "ms" and model.front_by_seconds is not None:
        return "seconds", model.latency_budget
    return "bytes", model.budget


def fill(model: ExplorerModel) -> None:
    """Search the best plan at the budget around the locks, by the chosen sensitivity.

    Raises:
        ParedownError: If nothing can be predicted yet, the sensitivity is not known of a layer, or no plan fits.
    """
    resource, most = limit(model)
    if model.problem is None or most is None:
        raise ParedownError("there is nothing to fill with yet; run the sensitivity stage first")
    objective, _, matrix = model.sensitivity.partition(":")
    problem, by = model.problem, cast(Objective, objective if matrix else "guarded_loss")
    if matrix:
        known = {name: model.record.estimates(name, cast(CurvatureMatrix, matrix)) for name in model.editor.schemes}
        problem = replace(problem, curvature=known)
        low = sum(each.trace is not None and each.trace.value <= 0 for each in known.values()) if by == "trace" else 0
        model.status = f"{low} layer{'s' * (low != 1)} with a trace below zero: counted with the standard error" if low else ""
    limited = ("latency_budget", most) if resource == "seconds" else ("budget", int(most))
    most = most * (1 + 1e-9) if resource == "seconds" else int(most)  # a sum of seconds in another order is another one
    filled = allocate(problem, most, locked=model.locked_schemes(), objective=by, resource=resource)
    calls = (limited, ("fill", model.sensitivity if matrix else ""))
    model.editor.replace(filled, "fill the rest", calls=calls)
    model.touch()
