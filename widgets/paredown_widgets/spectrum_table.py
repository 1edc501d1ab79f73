"""The spectra as a table: each layer's numbers with their errors, to be sorted and read aloud."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paredown.record import MatrixEstimates
from paredown.specs import WHOLE_MODEL, CurvatureMatrix
from paredown_widgets import curvature, numbers

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

Json = dict[str, Any]
_RANK = {"yes": 3, "with care": 2, "unknown": 1, "no": 0}
COLUMNS = (
    ("layer", "Layer", ""),
    ("trace", "Trace", "with the standard error over the samples"),
    ("probes", "± probes", "standard error of the trace over the random probes"),
    ("top", "λmax", "largest eigenvalue; a star where few samples make it too high"),
    ("bottom", "λmin", "smallest eigenvalue"),
    ("negative", "Negative", "share of negative curvature in the Hessian"),
    ("trust", "Trust", "whether the quadratic predictions hold"),
)
"""Id, head, and what it means."""


def view(model: ExplorerModel, matrix: CurvatureMatrix) -> Json:
    """Columns and rows; a cell has its text and the value that it is sorted by."""
    names = [name for name in (WHOLE_MODEL, *model.labels) if name in model.labels or name in model.record.curvature]
    return {
        "columns": [{"id": name, "label": label, "title": title} for name, label, title in COLUMNS],
        "rows": [_row(model, index, name, model.record.estimates(name, matrix)) for index, name in enumerate(names)],
    }


def _row(model: ExplorerModel, index: int, name: str, known: MatrixEstimates) -> Json:
    trace, ends, trust = known.trace, known.eigenvalues, curvature.trust(model, name)
    top, bottom, share = curvature.top(known), curvature.bottom(known), curvature.negative(model, name)
    bias = curvature.bias_words(ends)

    def cell(text: str, value: float | None, title: str = "") -> Json:
        return {"text": text, "value": value, **({"title": title} if title else {})}

    return {
        "layer": name if name in model.labels else None,
        "cells": [
            cell(model.labels[name].text if name in model.labels else "Whole model", index, name),
            cell(curvature.trace_value(trace) if trace else numbers.NONE, trace.value if trace else None),
            cell(_probe_error(trace.probe_sd) if trace else numbers.NONE, trace.probe_sd if trace else None),
            cell(numbers.quantity(top) + ("*" if bias else ""), top, bias),
            cell("none" if bottom == 0 else numbers.quantity(bottom), bottom),
            cell(curvature.share_words(share), share),
            {**cell(trust.text if trust else numbers.NONE, _RANK[trust.verdict] if trust else None, trust.reason if trust else ""), "verdict": trust.verdict if trust else ""},
        ],
    }  # fmt: skip


def _probe_error(deviation: float | None) -> str:
    """An error of 0 means that no probe was needed; None, that a single one can't tell."""
    return "in the error" if deviation is None else "exact" if deviation == 0 else f"± {numbers.error(deviation)}"
