"""Messages about whole plans: the history, presets and saved plans, the budget, and what is measured first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from paredown.errors import ParedownError
from paredown_widgets import exports, measuring, memory, paper_figures, presets
from paredown_widgets.background import in_background
from paredown_widgets.budget import measures, set_budget
from paredown_widgets.filling import fill
from paredown_widgets.model import ExplorerModel
from paredown_widgets.python_code import as_python

Message = Mapping[str, Any]


def _budget(model: ExplorerModel, message: Message) -> None:
    set_budget(model, float(message["amount"]), str(message["unit"]))


def _budget_unit(model: ExplorerModel, message: Message) -> None:
    known = measures(model)
    if message["id"] not in known:
        raise ParedownError(f"the budget can be given in {', '.join(known)}, got {message['id']!r}; reload the page")
    model.budget_unit = str(message["id"])
    model.touched = True
    model.changed()


def _fill(model: ExplorerModel, message: Message) -> None:
    fill(model)


def _undo(model: ExplorerModel, message: Message) -> None:
    model.editor.undo()
    model.touch()


def _redo(model: ExplorerModel, message: Message) -> None:
    model.editor.redo()
    model.touch()


def _go_to(model: ExplorerModel, message: Message) -> None:
    model.editor.go_to(int(message["place"]))
    model.status = ""
    model.touch()


def _preset(model: ExplorerModel, message: Message) -> None:
    presets.load(model, str(message["id"]))


def _save_plan(model: ExplorerModel, message: Message) -> None:
    memory.save_plan(model, str(message["name"]))


def _forget_plan(model: ExplorerModel, message: Message) -> None:
    memory.forget_plan(model, str(message["name"]))


def _measure(model: ExplorerModel, message: Message) -> None:
    plan = model.plan
    if plan is None:
        raise ParedownError("there is no plan to measure yet; run the study first")
    if plan.digest in model.record.measurements:
        return
    model.pending.add(plan.digest)
    in_background(model, lambda: measuring.queue(model, plan))
    model.changed()


def _queue_first(model: ExplorerModel, message: Message) -> None:
    in_background(model, lambda: measuring.first(model, str(message["digest"])))


def _queue_remove(model: ExplorerModel, message: Message) -> None:
    measuring.remove(model, str(message["digest"]))
    model.changed()


def _prioritise(model: ExplorerModel, message: Message) -> None:
    low, high = float(message["low"]), float(message["high"])
    in_background(model, lambda: measuring.look_here_first(model, low, high))


def _copy_python(model: ExplorerModel, message: Message) -> None:
    _copy(model, as_python(model), "python")


def _copy_figure(model: ExplorerModel, message: Message) -> None:
    name = str(message["name"])
    _copy(model, paper_figures.as_code(model, name), name)


def _copy(model: ExplorerModel, text: str, what: str) -> None:
    model.clipboard = {"n": model.clipboard["n"] + 1, "text": text, "what": what}
    model.changed()


def _exports_opened(model: ExplorerModel, message: Message) -> None:
    model.exports_opened = True
    in_background(model, lambda: exports.ask(model))


DECISIONS: dict[str, Callable[[ExplorerModel, Message], None]] = {
    "budget": _budget,
    "budget_unit": _budget_unit,
    "fill": _fill,
    "undo": _undo,
    "redo": _redo,
    "go_to": _go_to,
    "preset": _preset,
    "save_plan": _save_plan,
    "forget_plan": _forget_plan,
    "measure": _measure,
    "queue_first": _queue_first,
    "queue_remove": _queue_remove,
    "prioritise": _prioritise,
    "copy_python": _copy_python,
    "copy_figure": _copy_figure,
    "exports_opened": _exports_opened,
}
"""Message type to handler, beside those of `paredown_widgets.handlers`."""
