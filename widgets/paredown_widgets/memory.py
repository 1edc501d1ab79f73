"""The user's plan outlives the kernel: a small file in the study's folder, written after edits and read when a study is opened.

It holds decisions only, no results; those are in the store. The last explorer that was edited wins.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paredown.errors import ParedownError
from paredown.specs import Scheme

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

FILE_NAME = "explorer.json"
_SCHEMA = 1


def _path(model: ExplorerModel) -> Path:
    return Path(model.study.store.folder) / FILE_NAME


def remember(model: ExplorerModel) -> None:
    """Write plan, locks and budget beside the store, if the user has touched them since the last time."""
    with model.lock:
        info = model.record.info
        if info is None or not model.touched or model.offline:
            return
        content = {
            "schema": _SCHEMA,
            "model_digest": info.digest,
            "schemes": {name: str(scheme) for name, scheme in model.editor.schemes.items()},
            "reference": None if model.reference is None else {name: str(scheme) for name, scheme in model.reference.items()},
            "locked": sorted(model.editor.locked),
            "budget": model.budget,
        }
        if content == model.remembered:
            return
        model.remembered = content
    path = _path(model)
    beside = path.with_suffix(".tmp")
    try:
        beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
        beside.replace(path)
    except OSError:
        return  # a study that can only be read can still be looked at; the plan then lives as long as the kernel


def recall(model: ExplorerModel) -> bool:
    """Take up the plan that was left here; says whether there was one for this model."""
    try:
        content: Any = json.loads(_path(model).read_text(encoding="utf-8"))
        if content["schema"] != _SCHEMA or model.record.info is None or content["model_digest"] != model.record.info.digest:
            return False
        schemes, reference = (_parsed(content[key]) for key in ("schemes", "reference"))
        locked, budget = set(content["locked"]), content["budget"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ParedownError):
        return False  # no file, or not one of ours: the explorer proposes a plan as for a new study
    if schemes is None or set(schemes) != set(model.editor.schemes):
        return False
    model.editor.start_from(schemes)
    model.editor.locked = locked & set(schemes)
    model.reference = reference
    if isinstance(budget, (int, float)) and budget > 0:
        model.budget = budget
    model.touched = True
    model.remembered = content
    return True


def _parsed(schemes: dict[str, str] | None) -> dict[str, Scheme] | None:
    return None if schemes is None else {name: Scheme.parse(text) for name, text in schemes.items()}
