"""Do the scores order the choices alike? The rank agreement of every two that a study knows."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from paredown.errors import ParedownError
from paredown.record import Record
from paredown.search import Agreement, Problem, Score, agreement_table
from paredown.specs import Scheme
from paredown_widgets import numbers

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

Json = dict[str, Any]
RESAMPLES = 400
"""Bootstrap samples behind an interval: its ends are drawn to two decimals."""
STEPS = 7
"""Colours of the diverging ramp, from −1 to 1."""
NAMES: dict[str, tuple[str, str]] = {
    "guarded_loss": ("Guarded loss", "predicted loss with its standard error and output error: what the search lowers"),
    "loss_increase": ("Predicted loss", "loss increase that the quadratic form predicts"),
    "measured_loss": ("Measured alone", "measured with this layer alone compressed, on the search split"),
    "output_error": ("Output error", "relative squared error of the layer's output, weighted by its size"),
    "weight_error": ("Weight error", "‖ΔW‖²"),
    "trace": ("Trace × ‖ΔW‖²", "mean eigenvalue times half of ‖ΔW‖² (HAWQ-V2)"),
    "top_eigenvalue": ("λmax × ‖ΔW‖²", "largest eigenvalue times half of ‖ΔW‖² (HAWQ)"),
    "slices": ("Slices × ‖ΔW‖²", "|mean| + deviation of the largest eigenvalue over slices of the data, times half of ‖ΔW‖² (Q-BERT)"),
    "fisher": ("Fisher", "Fisher-weighted squared error of the weights (LQ-LoRA)"),
    "kfac": ("K-FAC", "quadratic form of the Kronecker-factored curvature"),
    "ekfac": ("EK-FAC", "the same with its eigenvalues measured"),
    "modelopt": ("ModelOpt", "gradient score of ModelOpt's AutoQuantize"),
    "delta_loss": ("DeltaLoss", "score of AutoRound's AutoScheme"),
}  # fmt: skip
"""Objective to its name and what it is, in the order of the rows."""


@dataclass(frozen=True)
class Rankings:
    """Rank agreement of any two scores.

    Attributes:
        key: What it was computed of.
        scores: The objectives, in the order of the rows.
        tables: What was ranked (empty: all choices; or a scheme, at which the groups are) to pairs of rows, the later one first, to their agreement.
    """

    key: tuple[Any, ...]
    scores: tuple[str, ...]
    tables: dict[str, dict[tuple[int, int], Agreement]]


def key(record: Record) -> tuple[Any, ...]:
    """What the rankings depend on: the candidates, the scores that all of them have, and the layers whose curvature is known."""
    candidates = [candidate for offered in record.candidates.values() for candidate in offered.values()]
    scores = set.intersection(*(set(candidate.scores) for candidate in candidates)) if candidates else set()
    return len(candidates), frozenset(scores), sum(record.estimates(layer.name).trace is not None for layer in record.layers)


def rank(record: Record, *, fuse: bool, scheme: Scheme) -> Rankings | None:
    """Compute them; None where there are too few choices to rank.

    Args:
        record: What is known; every layer priced.
        fuse: Whether fused groups are decided together.
        scheme: At which the groups are ranked besides.
    """
    assert record.info is not None
    problem = Problem.of(record.info.fixed_bytes, record.layers, record.candidates, fuse=fuse)
    problem = replace(problem, curvature={layer.name: record.estimates(layer.name) for layer in record.layers})
    scores = [score for score in NAMES if _known(problem, score)]
    tables: dict[str, dict[tuple[int, int], Agreement]] = {}
    for chosen in (None, scheme):
        try:
            frame = agreement_table(problem, scores, scheme=chosen, resamples=RESAMPLES)  # pyright: ignore[reportArgumentType]  (names of objectives)
        except ParedownError:  # fewer than three to rank
            continue
        tables[str(chosen) if chosen else ""] = {
            (scores.index(second), scores.index(first)): Agreement(spearman, low, high, n)
            for first, second, spearman, low, high, n in frame.itertuples(index=False, name=None)
        }
    return Rankings(key(record), tuple(scores), tables) if tables and len(scores) > 1 else None


def _known(problem: Problem, score: str) -> bool:
    if score in get_args(Score) and score not in problem.columns:
        return False
    try:
        problem.costs(score)  # pyright: ignore[reportArgumentType]
    except ParedownError:
        return False
    return True


def view(model: ExplorerModel) -> Json:
    """State of the `rankings` trait."""
    ranked = model.rankings
    if ranked is None:
        waiting = model.record.sensitivity_complete
        return {
            "scores": [],
            "tables": [],
            "empty": "Ranking the scores." if waiting else "How alike the scores rank the layers appears here once all are priced.",
        }
    return {
        "scores": [{"id": score, "label": NAMES[score][0], "title": NAMES[score][1]} for score in ranked.scores],
        "tables": [
            {
                "id": chosen,
                "label": f"Layers at {chosen}" if chosen else "All choices",
                "note": f"Spearman's rank correlation of {next(iter(pairs.values())).n:,} {'groups of layers' if chosen else 'choices'}; 95 % interval by bootstrap over the groups, on hover.",
                "rows": [[_cell(ranked, pairs[row, column], row, column) for column in range(row)] for row in range(len(ranked.scores))],
            }
            for chosen, pairs in ranked.tables.items()
        ],
        "empty": "",
    }


def _cell(ranked: Rankings, found: Agreement, row: int, column: int) -> Json:
    pair = f"{NAMES[ranked.scores[row]][0]} and {NAMES[ranked.scores[column]][0]}"
    if not math.isfinite(found.spearman):
        return {"text": numbers.NONE, "step": None, "title": f"{pair}: one of them is constant"}
    interval = f", 95 %: {numbers.fixed(found.low, 2)} to {numbers.fixed(found.high, 2)}" if math.isfinite(found.low) else ""
    return {
        "text": numbers.fixed(found.spearman, 2),
        "step": min(STEPS - 1, int((found.spearman + 1) / 2 * STEPS)),
        "title": f"{pair}: {numbers.fixed(found.spearman, 3)}{interval}",
    }
