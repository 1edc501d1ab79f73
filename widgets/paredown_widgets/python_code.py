"""What was done by hand, as lines of Python that do it again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from paredown.specs import KEEP, Scheme
from paredown_widgets.editor import Step

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

CALLS: Mapping[str, Callable[[str | float], str]] = {
    "budget": lambda value: f"explorer.budget = {int(value)}",
    "latency_budget": lambda value: f"explorer.latency_budget = {float(value)!r}",
    "fill": lambda value: f"explorer.fill(by={str(value)!r})" if value else "explorer.fill()",
    "load": lambda value: f"explorer.load({str(value)!r})",
}
"""The calls that a step may carry, and what they look like in Python; anything else in a study's folder is no code of ours."""

_ALONE = ("budget", "latency_budget")  # said before what they are for, and not again while they are the same


def as_python(model: ExplorerModel) -> str:
    """Lines of Python that open this study, and do to the plan what was done by hand: its start, then each step of its history."""
    editor = model.editor
    lines = ["from paredown_widgets import Explorer", "", f"explorer = Explorer({str(model.study.store.folder)!r})"]
    if editor.schemes:
        plans = [*(step.schemes for step in editor.steps), editor.schemes]
        lines += [*_plan(model, plans[0]), *_history(editor.steps, plans, sorted(editor.locked))]
        if model.budget is not None and not model.offline:
            lines += [line for line in _limits(model) if line not in lines]
    hessian = [name for name in model.selection if model.record.estimates(name, "hessian").trace]
    if hessian:
        lines += [f"explorer.estimate({hessian!r})  # the Hessian: what the study's folder has is not computed again"]
    if model.plan is not None:
        lines += [f"# plan {model.plan.digest}"]
    return "\n".join([*lines, "explorer", ""])


def _plan(model: ExplorerModel, schemes: Mapping[str, Scheme]) -> list[str]:
    """Where the plan began: one of the study's by its digest, or layer by layer."""
    plan = model.make_plan(schemes)
    known = None if plan is None else model.record.plans.get(plan.digest)
    if known is not None and model.as_asked(known.schemes) == dict(schemes):
        return [f"explorer.load({known.digest!r})  # {_comment(known.found_by)}"]
    kept = {name: str(scheme) for name, scheme in schemes.items() if scheme != KEEP}
    return ["explorer.plan = {", *(f"    {name!r}: {scheme!r}," for name, scheme in kept.items()), "}"]


def _history(steps: Iterable[Step], plans: list[Mapping[str, Scheme]], locked_now: list[str]) -> list[str]:
    lines: list[str] = []
    locked: list[str] | None = None
    said: dict[str, str] = {}
    for step, after in zip(steps, plans[1:], strict=True):
        if sorted(step.locked) != (locked or []) or locked is None:
            locked = sorted(step.locked)
            lines.append(f"explorer.locked = {locked!r}")
        for name, value in step.calls:
            line = CALLS[name](value) if name in CALLS else ""
            if line and said.get(name) != line:
                lines.append(line)
            if name in _ALONE:
                said[name] = line
        if not step.calls:
            lines += _edit(step, after)
    if locked_now != locked:
        lines.append(f"explorer.locked = {locked_now!r}")
    return lines


def _edit(step: Step, after: Mapping[str, Scheme]) -> list[str]:
    """The layers that a step changed, by what they got; exact, whatever the handles did on the way."""
    got: dict[Scheme, list[str]] = {}
    for name, scheme in after.items():
        if step.schemes[name] != scheme:
            got.setdefault(scheme, []).append(name)
    return [f"explorer.edit({names!r}, {str(scheme)!r})  # {_comment(step.label)}" for scheme, names in got.items()]


def _limits(model: ExplorerModel) -> list[str]:
    lines = [] if model.budget is None else [CALLS["budget"](model.budget)]
    if model.budget_unit == "ms" and model.latency_budget is not None:
        lines.append(CALLS["latency_budget"](model.latency_budget))
    return lines


def _comment(text: str) -> str:
    """On one line, whatever it says: it may come from a study's folder."""
    return " ".join(text.split())
