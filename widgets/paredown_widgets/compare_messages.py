"""What a person asks of the comparison: which plans, which flipped answers, and the answers themselves to take away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from paredown.errors import ParedownError
from paredown_widgets.background import in_background
from paredown_widgets.compare import plan_of
from paredown_widgets.comparison import KINDS, PAGE, Kind, name_of
from paredown_widgets.flips import flips_of
from paredown_widgets.measuring import queue

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

Message = Mapping[str, Any]
_MOST_COPIED = 1000  # rows that a clipboard takes; `Explorer.flips` gives all


def add(model: ExplorerModel, digest: str) -> None:
    """Put a plan beside the others, and say so: the person may be looking at the front."""
    plan = plan_of(model, digest)
    letter = model.comparison.add(model, plan)
    model.status = f"{name_of(model, plan)[:1].upper()}{name_of(model, plan)[1:]} is {letter} in the view Compare"
    _changed(model)


def _add(model: ExplorerModel, message: Message) -> None:
    add(model, str(message["digest"]))


def _remove(model: ExplorerModel, message: Message) -> None:
    model.comparison.remove(str(message["digest"]))
    _changed(model)


def _measure(model: ExplorerModel, message: Message) -> None:
    plan = plan_of(model, str(message["digest"]))
    model.pending.add(plan.digest)
    in_background(model, lambda: queue(model, plan))
    model.changed()


def _kind(model: ExplorerModel, message: Message) -> None:
    if message["id"] not in KINDS:
        raise ParedownError(f"flips must be one of {', '.join(KINDS)}, got {message['id']!r}")
    model.comparison.kind, model.comparison.rows = cast(Kind, message["id"]), PAGE
    model.changed()


def _more(model: ExplorerModel, message: Message) -> None:
    model.comparison.rows += PAGE
    model.changed()


def _hear(model: ExplorerModel, message: Message) -> None:
    model.comparison.hear(int(message["sample"]))
    model.changed()


def _copy(model: ExplorerModel, message: Message) -> None:
    found = flips_of(model)
    if found is None:
        raise ParedownError("there are no flipped answers to copy yet; measure a plan first")
    flips, entries = found
    table = flips.table([entry.letter for entry in entries], model.comparison.kind)
    left = len(table) - _MOST_COPIED
    lines = [
        "import pandas as pd",
        "",
        *(f"# {entry.letter}: {' '.join(entry.name.split())}, plan {entry.plan.digest}" for entry in entries),
    ]
    lines += [f"# the first {_MOST_COPIED} of {len(table)} rows; explorer.flips() gives all"] if left > 0 else []
    records = ",\n".join(f"    {record!r}" for record in table.head(_MOST_COPIED).to_dict("records"))
    lines.append(f"flips = pd.DataFrame([\n{records},\n])")
    model.comparison.copied = {"n": model.comparison.copied["n"] + 1, "text": "\n".join(lines) + "\n"}
    model.changed()


def _changed(model: ExplorerModel) -> None:
    model.comparison.hurry(model)
    model.changed()


COMPARISONS: dict[str, Callable[[ExplorerModel, Message], None]] = {
    "compare_add": _add,
    "compare_remove": _remove,
    "compare_measure": _measure,
    "flips": _kind,
    "more_flips": _more,
    "hear": _hear,
    "copy_flips": _copy,
}
"""Message type to handler."""
