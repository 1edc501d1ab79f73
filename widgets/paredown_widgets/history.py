"""The history of the search: which switch won what, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paredown.specs import KEEP, Plan, Scheme
from paredown_widgets import numbers
from paredown_widgets.improvements import Improvement
from paredown_widgets.labels import group_text

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

Json = dict[str, Any]
MOST_ROWS = 200
"""Rows that are shown; a table of more is for a program (`Record.plans`)."""
_NAMED = 1  # changes that are spelt out in a row; its title has up to `_TOLD`
_TOLD = 12
_ORIGINS = {
    "start": "the optimum of another prediction", "switch": "levels switched within the budget", "crossover": "two plans crossed",
    "draw": "the optimum of costs drawn from what is believed by then",
}  # fmt: skip


def view(model: ExplorerModel) -> Json:
    """State of the `history` trait."""
    history, info = model.history, model.record.info
    steps = history.improvements[-MOST_ROWS:][::-1]
    left = len(history.improvements) - len(steps)
    what = {"kl": "KL", "loss": "loss", "metric": info.metric if info else "metric"}.get(history.objective, "loss")
    return {
        "rows": [_row(model, step) for step in steps],
        "count": f"{history.tried:,} plans tried, {len(history.improvements)} improvements" if history.tried or steps else "",
        "note": (
            f"Before and after: mean {what} beyond the original, per sample of the search split ({history.samples:,} samples), which decides and is no result. "
            f"Results are held out.{f' {left:,} earlier ones are not shown.' if left else ''}"
            if steps
            else ""
        ),
        "empty": "" if steps else _empty(model),
    }


def found_words(model: ExplorerModel, plan: Plan, digest: str) -> list[str]:
    """How a plan was found, in lines; a refined one by what differs from the one that it replaced."""
    before = model.history.before(digest)
    head, _, _ = plan.found_by.partition(",")
    if before is None:
        return [plan.found_by]
    return [head, *changed(model, before, plan)[:3]]


def changed(model: ExplorerModel, before: Plan, after: Plan) -> list[str]:
    """What differs between two plans, a line for each group: ``Block 3 fc1 int3g64 → int4g64``."""
    lines: list[str] = []
    for group in dict.fromkeys(model.editor.groups.values()):
        name = next((name for name in group if _of(before, name) != _of(after, name)), None)
        if name is not None:
            lines.append(f"{group_text(model.labels, group)} {_of(before, name)} → {_of(after, name)}")
    return lines


def _of(plan: Plan, name: str) -> Scheme:
    return plan.schemes.get(name, KEEP)


def _row(model: ExplorerModel, step: Improvement) -> Json:
    plan, m = step.plan, model.record.measurements.get(step.plan.digest)
    lines = changed(model, step.before, plan) if step.before is not None else []
    more = f", and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
    gain = None if step.loss is None or step.loss_before is None else step.loss - step.loss_before
    standing = model.history.best(step.bits)
    return {
        "digest": plan.digest,
        "budget": f"{step.bits:g}{numbers.SPACE}bits",
        "size": numbers.size(plan.bytes),
        "what": ", ".join(lines[:_NAMED]) + more if lines else "the first at this budget",
        "title": "\n".join([*lines[:_TOLD], *([f"and {len(lines) - _TOLD} more"] if len(lines) > _TOLD else [])]),
        "origin": step.origin,
        "origin_title": _ORIGINS[step.origin],
        "before": numbers.quantity(step.loss_before),
        "after": numbers.quantity(step.loss),
        "gain": numbers.signed(gain, step.gain_sd),
        "predicted": numbers.quantity(plan.loss_increase, plan.loss_increase_sd),
        "measured": numbers.NONE if m is None else numbers.quantity(m.kl, m.kl_sd) if m.kl is not None else numbers.metric_text(m.metric),
        "tried": numbers.NONE if step.tried is None else f"{step.tried:,}",
        "standing": standing is not None and standing.digest == plan.digest,
        "loaded": plan.digest == model.digest,
    }


def _empty(model: ExplorerModel) -> str:
    if model.history.tried:
        return f"{model.history.tried:,} plans tried; none was better than those that the search began with."
    if model.config.refine_plans:
        return "Measured refinement shows here which switch won what, as soon as a plan is better than those that it began with."
    return "This study refines no plans. One with refine_plans=64 tries switches on a search split, and shows here which of them won what."
