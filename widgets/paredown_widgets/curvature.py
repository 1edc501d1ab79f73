"""What is known of the layers' curvature, in words: which matrix, each number with its errors, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from paredown.record import MatrixEstimates, Record
from paredown.specs import CurvatureMatrix, EigenvalueEstimate, SpectralDensity, TraceEstimate, Verdict
from paredown_widgets import numbers

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

MATRICES: dict[CurvatureMatrix, str] = {
    "ggn": "Gauss–Newton",
    "fisher": "Fisher",
    "empirical_fisher": "Empirical Fisher",
    "hessian": "Hessian",
}
"""Matrices that have a spectrum, by what they are called on the screen; Kronecker-factored ones miss λmax several-fold and have none."""
VERDICTS: dict[Verdict, str] = {"yes": "yes", "with care": "with care", "no": "no", "unknown": "not known"}
_BIAS_SAID = 0.1  # share of λmax; less is within what half of the samples tell


def matrices(record: Record) -> list[CurvatureMatrix]:
    """The matrices of which some layer's spectrum is known."""
    known = {matrix for layers in record.curvature.values() for matrix, each in layers.items() if each.density or each.eigenvalues}
    return [matrix for matrix in MATRICES if matrix in known]


def shown_matrix(model: ExplorerModel, names: list[str]) -> CurvatureMatrix:
    """The user's choice; before there is one, the Hessian where it is known of all these layers, else that of the sensitivities."""
    if model.spectrum_matrix != "auto":
        return model.spectrum_matrix
    hessian = [model.record.estimates(name, "hessian") for name in names]
    complete = bool(hessian) and all(each.density or each.eigenvalues for each in hessian)
    return "hessian" if complete else model.record.sensitivity_matrix


def top(known: MatrixEstimates) -> float | None:
    """λmax."""
    return known.eigenvalues.top[0] if known.eigenvalues and known.eigenvalues.top else None


def bottom(known: MatrixEstimates) -> float | None:
    """λmin where it is negative; 0 for a matrix that has no negative eigenvalues."""
    if known.eigenvalues is None:
        return None
    if known.eigenvalues.bottom:
        return known.eigenvalues.bottom[0]
    return None if known.eigenvalues.matrix == "hessian" else 0.0


def negative(model: ExplorerModel, name: str) -> float | None:
    """Share of negative curvature in the layer's Hessian; None where it is not known."""
    density, fit = model.record.estimates(name, "hessian").density, model.record.quadratic_fits.get(name)
    return density.negative_share if density else fit.negative_share if fit else None


def bias(known: EigenvalueEstimate | None) -> float | None:
    """How much too high λmax is, at least, as a share of it: on few samples it is, and half of them show by how much."""
    if known is None or known.half_sample_top is None or not known.top or known.top[0] <= 0:
        return None
    return known.half_sample_top / known.top[0] - 1


def bias_words(known: EigenvalueEstimate | None) -> str:
    """The bias of λmax in words; empty where there is no sign of one."""
    share = bias(known)
    return "" if share is None or share < _BIAS_SAID else f"probably over {round(100 * share):d}{numbers.SPACE}% too high"


def trace_value(trace: TraceEstimate) -> str:
    """A trace with its data error. Where the probe error hides that, the value has no more digits than the probe error leaves it."""
    if trace.probe_sd and trace.data_sd < 0.1 * trace.probe_sd:
        return numbers.quantity(trace.value, trace.probe_sd).split(" ±")[0].lstrip("(")
    return numbers.quantity(trace.value, trace.data_sd)


def trace_words(trace: TraceEstimate) -> str:
    """A trace with its data error, and its probe error where that matters beside it."""
    words = trace_value(trace)
    if trace.probe_sd and trace.probe_sd > 0.3 * trace.data_sd:
        return f"{words}{' (data)' if '±' in words else ''} ± {numbers.error(trace.probe_sd)} (probes)"
    return words


def share_words(share: float | None) -> str:
    """A share in per cent; small ones are not rounded to nothing."""
    if share is None:
        return numbers.NONE
    return f"{numbers.significant(100 * share, 2) if share >= 1e-3 or not share else '< 0.1'}{numbers.SPACE}%"


def source_words(density: SpectralDensity | None, ends: EigenvalueEstimate | None) -> str:
    """What the spectrum was made from."""
    known = density or ends
    if known is None:
        return ""
    if density is None:
        return f"the ends of the spectrum, {known.samples} samples"
    probes = len(density.nodes)
    how = "exact" if density.exact else f"{probes} probe{'s' * (probes != 1)} of {max(map(len, density.nodes))} Lanczos steps"
    return f"{how}, {known.samples} samples"


@dataclass(frozen=True)
class Trust:
    """May the quadratic predictions of a layer be trusted?

    Attributes:
        verdict: One of `specs.Verdict`.
        text: It in words.
        reason: Why.
    """

    verdict: Verdict
    text: str
    reason: str


def trust(model: ExplorerModel, name: str) -> Trust | None:
    """The verdict on one layer; None before its Hessian was looked at."""
    fit = model.record.quadratic_fits.get(name)
    return Trust(fit.verdict, VERDICTS[fit.verdict], fit.reason) if fit else None
