"""A plan leaves the explorer: as a checkpoint, as JSON, or as lines of Python."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paredown.errors import ParedownError
from paredown.specs import KEEP, to_json

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

TARGETS = {"compressed-tensors": "Checkpoint for vLLM and transformers (compressed-tensors)", "plan": "Plan as JSON"}


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `export` trait."""
    busy = model.exporting is not None and model.exporting.is_alive()
    refused = "An export is being written" if busy else "" if model.plan is not None else "There is no plan yet"
    targets = [] if model.offline else [{"id": target, "label": label, "refused": refused} for target, label in TARGETS.items()]
    return {**model.export_status, "targets": targets}


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
    folder = Path(model.study.store.folder) / "exports" / plan.digest

    def work() -> None:
        try:
            if target == "plan":
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "plan.json").write_text(to_json(plan, indent=2), encoding="utf-8")
                where = folder / "plan.json"
            else:
                model.study.export(plan, folder / target)
                where = folder / target
            status = {"status": f"Written to {where}", "kind": "ok"}
        except Exception as error:
            status = {"status": str(error) or type(error).__name__, "kind": "error"}
        with model.lock:
            model.export_status = status
            model.exporting = None
        model.changed()

    model.export_status = {"status": f"Writing {TARGETS[target].lower()}", "kind": ""}
    model.exporting = threading.Thread(target=work, name="explorer-export", daemon=True)
    model.exporting.start()
    model.changed()


def as_python(model: ExplorerModel) -> str:
    """Lines of Python that open this study with this plan."""
    schemes = {name: str(scheme) for name, scheme in model.editor.schemes.items() if scheme != KEEP}
    lines = ["from paredown_widgets import Explorer", "", f"explorer = Explorer({str(model.study.store.folder)!r})"]
    if schemes:
        lines += ["explorer.plan = {", *(f"    {name!r}: {scheme!r}," for name, scheme in schemes.items()), "}"]
    hessian = [name for name in model.selection if model.record.estimates(name, "hessian").trace]
    if hessian:
        lines += [f"explorer.estimate({hessian!r})  # the Hessian: what the study's folder has is not computed again"]
    return "\n".join([*lines, "explorer", ""])
