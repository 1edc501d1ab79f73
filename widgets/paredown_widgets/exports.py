"""A plan leaves the explorer: as a checkpoint, as JSON, or as a table; what can't be written is refused beforehand, with the reason."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paredown.errors import ParedownError
from paredown.specs import ExportFormat, Plan, to_json
from paredown_widgets.tables import layer_table

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel


@dataclass(frozen=True)
class Target:
    """One way out.

    Attributes:
        label: In words.
        note: Who reads it.
        file: What it is called in the plan's folder of exports.
        export_format: Of a checkpoint; None where a small file is written.
    """

    label: str
    note: str
    file: str
    export_format: ExportFormat | None = None


TARGETS = {
    "compressed-tensors": Target(
        "Checkpoint, compressed-tensors", "vLLM and transformers load it", "compressed-tensors", "compressed-tensors"
    ),
    "paredown": Target("Checkpoint, Paredown's own", "holds every plan; paredown.export.native.load reads it", "paredown", "paredown"),
    "plan": Target("Plan as JSON", "exact layer names and schemes; paredown.export.load_plan reads it", "plan.json"),
    "csv": Target("Table as CSV", "a row a layer, as explorer.to_dataframe()", "layers.csv"),
    "parquet": Target("Table as Parquet", "the same with its types", "layers.parquet"),
    "html": Target("Study as one HTML file", "stays interactive, needs no network", "report.html"),
}


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `export` trait."""
    if model.offline:
        return {**model.export_status, "targets": []}
    targets = [
        {"id": name, "label": target.label, "note": _note(model, name, target), "refused": _refused(model, name, target)}
        for name, target in TARGETS.items()
    ]
    return {**model.export_status, "targets": targets}


def _refused(model: ExplorerModel, name: str, target: Target) -> str:
    if model.exporting is not None and model.exporting.is_alive():
        return "an export is being written"
    if model.plan is None:
        return "there is no plan yet"
    if name == "parquet" and not _has_parquet():
        return "pandas needs pyarrow for it: pip install pyarrow"
    digest, verdict = model.verdicts.get(name, ("", ""))
    return verdict if target.export_format and digest == model.digest else ""


def _note(model: ExplorerModel, name: str, target: Target) -> str:
    if target.export_format and model.plan is not None and model.verdicts.get(name, ("",))[0] != model.digest:
        return f"{target.note}; asking whether it can hold this plan"
    return target.note


@cache
def _has_parquet() -> bool:
    return any(find_spec(name) is not None for name in ("pyarrow", "fastparquet"))


def ask(model: ExplorerModel) -> None:
    """Ask the formats whether they can hold the plan as it is; looks at every layer, and imports torch the first time."""
    plan = model.plan
    if plan is None or model.offline or all(digest == plan.digest for digest, _ in map(model.verdicts.get, FORMATS, FORMATS_EMPTY)):
        return
    found = {name: (plan.digest, _verdict(model, plan, name)) for name in FORMATS}
    with model.lock:
        model.verdicts = found
    model.changed()


FORMATS = [name for name, target in TARGETS.items() if target.export_format]
FORMATS_EMPTY = [("", "")] * len(FORMATS)


def _verdict(model: ExplorerModel, plan: Plan, name: str) -> str:
    """Why a format can't hold a plan, the commonest reason first; empty where nothing speaks against it."""
    refusals = model.study.refusals(plan, export_format=TARGETS[name].export_format)
    if not refusals:
        return ""
    reasons = Counter(str(refusal).partition(": ")[2] or str(refusal) for refusal in refusals)
    (reason, count), *others = reasons.most_common()
    first = next(str(refusal) for refusal in refusals if str(refusal).endswith(reason)).partition(": ")[0]
    where = model.labels[first].text if first in model.labels else first
    more = f" and {count - 1} more" if count > 1 else ""
    return f"{where}{more}: {reason}{f'; {len(others)} more reasons' if others else ''}"


def export_plan(model: ExplorerModel, target: str) -> None:
    """Write the user's plan in the background, into the study's folder.

    Raises:
        ParedownError: If there is no plan, another export is going on, or the target is unknown.
    """
    if target not in TARGETS:
        raise ParedownError(f"export target must be one of {', '.join(TARGETS)}, got {target!r}")
    plan = model.plan
    if plan is None:
        raise ParedownError("there is no plan to export yet; run the study first")
    if model.exporting is not None and model.exporting.is_alive():
        raise ParedownError("an export is being written; wait for its end")
    if refused := _refused(model, target, TARGETS[target]):
        raise ParedownError(f"{TARGETS[target].label} is not possible: {refused}")
    where = Path(model.study.store.folder) / "exports" / plan.digest / TARGETS[target].file
    write = _writer(model, plan, target)

    def work() -> None:
        try:
            where.parent.mkdir(parents=True, exist_ok=True)
            write(where)
            status = {"status": f"Written to {where}", "kind": "ok"}
        except Exception as error:
            status = {"status": str(error) or type(error).__name__, "kind": "error"}
        with model.lock:
            model.export_status = status
            model.exporting = None
        model.changed()

    model.export_status = {"status": f"Writing: {TARGETS[target].label}", "kind": ""}
    model.exporting = threading.Thread(target=work, name="explorer-export", daemon=True)
    model.exporting.start()
    model.changed()


def _writer(model: ExplorerModel, plan: Plan, target: str) -> Callable[[Path], object]:
    """What writes a target to a place; what it takes from the model is taken now."""
    export_format = TARGETS[target].export_format
    if export_format is not None:
        return lambda where: model.study.export(plan, where, export_format=export_format)
    if target == "plan":
        content = to_json(plan, indent=2)
        return lambda where: where.write_text(content, encoding="utf-8")
    if target == "html":
        from paredown_widgets.report import render_report

        return lambda where: where.write_text(render_report(model.study, model), encoding="utf-8")
    table = layer_table(model)
    return lambda where: table.to_csv(where) if target == "csv" else table.to_parquet(where)
