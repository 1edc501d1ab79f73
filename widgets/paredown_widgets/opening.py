"""What a person means by a study: one that is there, or one to begin."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from paredown.errors import ParedownError
from paredown.specs import StudyConfig
from paredown_widgets.controls import StudyLike


def open_or_begin(study: str | Path | StudyLike, folder: str | Path | None, settings: Mapping[str, Any]) -> StudyLike:
    """Open a study, or begin one; see `paredown_widgets.explorer.Explorer`.

    Raises:
        TypeError: If a setting does not exist, or is given to a study that has its own.
        ParedownError: If the study can't be opened.
    """
    known = [field.name for field in fields(StudyConfig) if field.name != "model"]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, [*known, "folder"], 1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
            raise TypeError(f"Explorer() has no setting {name!r}; {hint}")
    if not isinstance(study, (str, Path)):
        if settings or folder is not None:
            raise TypeError("Explorer() takes settings for a new study only; this one has its own")
        return study
    from paredown.store import FILE_NAME
    from paredown.study import Study

    if folder is None and (Path(study) / FILE_NAME).is_file():
        if settings:
            raise TypeError(f"{study} is a study with settings of its own; open it without any, or begin another with folder=...")
        return cast(StudyLike, Study(study))
    name = str(study)
    task = settings.get("task", name if name.startswith("demo:") else None)
    if task is None:
        raise ParedownError(f"{name} needs a task: expected task='demo:NAME', or a paredown.study.Study with a task of your own")
    place = Path(folder) if folder is not None else Path("studies") / name.removeprefix("demo:").replace("/", "--")
    chosen = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    if folder is None and not chosen and (place / FILE_NAME).is_file():
        return cast(StudyLike, Study(place))
    return cast(StudyLike, Study(place, StudyConfig(**{**chosen, "model": name, "task": task})))
