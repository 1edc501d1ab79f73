r"""What the sensitivity bars show, and a fill minimises: the predicted KL, or one number of curvature a layer times \(\frac12\|\Delta W\|^2\)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from paredown.record import MatrixEstimates
from paredown.search import Objective
from paredown.specs import Candidate, CurvatureMatrix, LayerRef
from paredown_widgets.curvature import MATRICES, top

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

_CURVED: dict[Objective, tuple[str, str]] = {
    "trace": ("Trace × ‖ΔW‖²", "mean eigenvalue times half of the squared change of the weights (HAWQ-V2)"),
    "top_eigenvalue": ("λmax × ‖ΔW‖²", "largest eigenvalue times half of the squared change of the weights (HAWQ)"),
}


@dataclass(frozen=True)
class Choice:
    """One kind of sensitivity.

    Attributes:
        id: What the browser and `ExplorerModel.sensitivity` call it.
        label: In words.
        title: What it is, in a sentence.
        objective: What `paredown.search.allocate` calls it.
        matrix: Whose curvature; None where it needs none.
    """

    id: str
    label: str
    title: str
    objective: Objective
    matrix: CurvatureMatrix | None = None


def choices(model: ExplorerModel) -> list[Choice]:
    """Those that something is known for; the first is the default."""
    record = model.record
    kl = record.info is None or record.info.loss == "kl"
    what = "KL" if kl else "loss increase"
    found = [Choice("kl", f"Predicted {what}", f"predicted {what} of each layer at the plan's bits", "guarded_loss")]
    if not any(candidate.weight_error for offered in record.candidates.values() for candidate in offered.values()):
        return found  # a study of before ‖ΔW‖² was kept
    for matrix in dict.fromkeys((record.sensitivity_matrix, "hessian")):
        for objective, (label, title) in _CURVED.items():
            if any(_curvature(objective, record.estimates(layer.name, matrix)) is not None for layer in record.layers):
                found.append(
                    Choice(f"{objective}:{matrix}", f"{label}, {MATRICES[matrix]}", f"{title}, {MATRICES[matrix]}", objective, matrix)
                )
    return found


def chosen(model: ExplorerModel) -> Choice:
    """The user's choice; the default where there is nothing known for it."""
    known = choices(model)
    return next((choice for choice in known if choice.id == model.sensitivity), known[0])


def missing(model: ExplorerModel, choice: Choice) -> list[str]:
    """Priced layers that it can't be told for yet."""
    if choice.matrix is None:
        return []
    return [name for name in model.record.candidates if _curvature(choice.objective, model.record.estimates(name, choice.matrix)) is None]


def sensitivity(model: ExplorerModel, choice: Choice, layer: LayerRef, candidate: Candidate) -> tuple[float, float] | None:
    """A candidate's sensitivity and its standard error over the samples, nats per unit; a Hessian's may be negative. None: not known."""
    if choice.matrix is None:
        return candidate.loss_increase, candidate.loss_increase_sd
    known = model.record.estimates(layer.name, choice.matrix)
    value = _curvature(choice.objective, known)
    if value is None:
        return None
    if choice.objective == "trace" and known.trace is not None:
        each = 0.5 * candidate.weight_error / layer.parameters
        return each * value, each * known.trace.data_sd
    return 0.5 * candidate.weight_error * value, 0.0


def _curvature(objective: Objective, known: MatrixEstimates) -> float | None:
    return (known.trace.value if known.trace else None) if objective == "trace" else top(known)
