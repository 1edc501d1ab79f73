"""The plan as a file: exact layer names, schema number, model digest, and everything else that is needed to repeat it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from paredown.apply import check_names
from paredown.errors import ParedownError
from paredown.specs import SCHEMA, LayerRef, Plan, from_json, to_json

FILE = "paredown.json"
"""The plan's name in an exported folder."""


def save_plan(plan: Plan, path: str | Path) -> Path:
    """Write a plan; the file appears whole or not at all.

    Args:
        plan: The plan.
        path: The file; its folder must exist.

    Returns:
        The path.

    Raises:
        ParedownError: If the disk is full, or the place can't be written to.
    """
    path = Path(path)
    beside = None
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            beside = Path(file.name)
            file.write(to_json(plan, indent=2) + "\n")
        os.chmod(beside, 0o644)  # noqa: PTH101  (temporary files are made private)
        return beside.replace(path)
    except OSError as error:
        if beside is not None:
            beside.unlink(missing_ok=True)
        raise ParedownError(
            f"the plan could not be written to {path}: {error.strerror}; choose a folder that can be written to, with free space"
        ) from error


def load_plan(path: str | Path, *, model_digest: str | None = None, layers: Iterable[LayerRef] | None = None) -> Plan:
    """Read a plan.

    Args:
        path: The file, or an exported folder that holds one.
        model_digest: Digest of the model that it is for; None checks nothing.
        layers: The model's layers; None checks nothing.

    Returns:
        The plan.

    Raises:
        ParedownError: If there is no such file, it is no plan, of a newer schema, for another model, or names unknown layers.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ParedownError(f"expected a plan in {path}, but it can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ParedownError(f"expected the JSON of a plan in {path}, got bytes that are no text") from error
    try:
        schema = json.loads(text).get("schema", SCHEMA)
    except (ValueError, AttributeError) as error:
        raise ParedownError(f"expected the JSON of a plan in {path}, got {text[:40]!r}") from error
    if isinstance(schema, int) and schema > SCHEMA:  # before the fields, which a newer schema may have changed
        raise ParedownError(f"{path} has schema {schema}, this version of Paredown reads up to {SCHEMA}; upgrade Paredown")
    plan = from_json(Plan, text)
    if model_digest is not None and layers is not None:
        check_plan(plan, model_digest, layers)
    elif model_digest is not None:
        check_digest(plan, model_digest)
    elif layers is not None:
        check_names(plan.schemes, layers)
    return plan


def check_digest(plan: Plan, model_digest: str) -> None:
    """Refuse a plan that was made for other weights.

    Raises:
        ParedownError: With both digests.
    """
    if plan.model_digest != model_digest:
        raise ParedownError(
            f"the plan was made for {plan.model} with digest {plan.model_digest}, the model that was loaded has digest {model_digest}; load the plan's model, or search a plan for this one"
        )


def check_plan(plan: Plan, model_digest: str, layers: Iterable[LayerRef]) -> None:
    """Refuse a plan that was made for other weights, or that names layers which the model does not have.

    Raises:
        ParedownError: With both digests, or the unknown name and those nearest to it.
    """
    check_digest(plan, model_digest)
    check_names(plan.schemes, layers)
