"""What `paredown curvature` prints: one row a layer, of the matrix of the sensitivities and of the Hessian."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from rich.console import Console
from rich.table import Table

from paredown.cli_output import WIDE, console
from paredown.errors import ParedownError
from paredown.record import MatrixEstimates, Record
from paredown.specs import WHOLE_MODEL, EigenvalueEstimate, TraceEstimate

_COLUMNS = ("layer", "matrix", "trace", "data", "probes", "λ max", "residual", "n/2", "λ min", "negative", "samples", "trust")


def matching(record: Record, pattern: str | None) -> list[str]:
    """Names of the layers that a shell pattern matches.

    Raises:
        ParedownError: If it matches none.
    """
    names = [layer.name for layer in record.layers if pattern is None or fnmatchcase(layer.name, pattern)]
    if not names and pattern is not None:
        known = ", ".join(layer.name for layer in record.layers[:3]) or "none yet"
        raise ParedownError(f"expected a pattern that matches layers, {pattern!r} matches none; the model's layers start with {known}")
    return names


def curvature_rows(record: Record, names: Sequence[str]) -> list[dict[str, Any]]:
    """For a program: what is known of each layer's matrices, and the verdict on its quadratic model."""
    rows: list[dict[str, Any]] = []
    for name in names:
        fit = record.quadratic_fits.get(name)
        verdict = {"verdict": fit.verdict, "reason": fit.reason} if fit else {"verdict": None, "reason": None}
        rows += [
            {"layer": name, "matrix": matrix, **_figures(known), **verdict}
            for matrix, known in sorted(record.curvature.get(name, {}).items())
        ]
    return rows


def print_curvature(record: Record, names: Sequence[str]) -> None:
    """The same as a table, and the verdicts in words."""
    whole = [WHOLE_MODEL] if WHOLE_MODEL in record.curvature and len(names) == len(record.layers) else []
    rows = curvature_rows(record, [*names, *whole])
    if not rows:
        console.print("Nothing is known of these layers' curvature yet.")
        return
    table = Table(title="Curvature, nats per unit; standard errors over samples and over probes", title_justify="left")
    for heading in _COLUMNS:
        table.add_column(heading, justify="left" if heading in ("layer", "matrix", "trust") else "right", no_wrap=True)
    for row in rows:
        figures = [_number(row[name]) for name in ("trace", "data_sd", "probe_sd", "top", "top_residual", "half_sample_top", "bottom")]
        share = "–" if row["negative_share"] is None else f"{100 * row['negative_share']:.0f} %"
        samples = "–" if row["samples"] is None else str(row["samples"])
        table.add_row(row["layer"] or "whole model", row["matrix"], *figures, share, samples, row["verdict"] or "–")
    Console(width=None if console.is_terminal else WIDE + 60).print(table)
    console.print("n/2: λ max of half of the samples; λ max is too high by about as much as n/2 exceeds it")
    for name in names:
        if fit := record.quadratic_fits.get(name):
            console.print(f"{name}: {fit.verdict}, {fit.reason}", markup=False)


def _figures(known: MatrixEstimates) -> dict[str, Any]:
    trace, ends, density = known.trace, known.eigenvalues, known.density
    return {
        **_trace(trace),
        **_ends(ends),
        "negative_share": None if density is None else density.negative_share,
        "samples": trace.samples if trace else None,
    }


def _trace(trace: TraceEstimate | None) -> dict[str, float | None]:
    if trace is None:
        return dict.fromkeys(("trace", "data_sd", "probe_sd"))
    return {"trace": trace.value, "data_sd": trace.data_sd, "probe_sd": trace.probe_sd}


def _ends(ends: EigenvalueEstimate | None) -> dict[str, float | None]:
    if ends is None:
        return dict.fromkeys(("top", "top_residual", "half_sample_top", "bottom", "bottom_residual"))
    top, top_residual = next(zip(ends.top, ends.top_residuals, strict=True), (None, None))
    bottom, bottom_residual = next(zip(ends.bottom, ends.bottom_residuals, strict=True), (None, None))
    return {
        "top": top,
        "top_residual": top_residual,
        "half_sample_top": ends.half_sample_top,
        "bottom": bottom,
        "bottom_residual": bottom_residual,
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
