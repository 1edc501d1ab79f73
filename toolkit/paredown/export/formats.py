"""The door to all formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from paredown.apply import Kept
from paredown.errors import ParedownError
from paredown.export import compressed_tensors, native
from paredown.models import LoadedModel
from paredown.specs import LayerRef, Plan

Format = Literal["compressed-tensors", "paredown"]


def write(
    loaded: LoadedModel,
    layers: Sequence[LayerRef],
    plan: Plan,
    folder: str | Path,
    format: Format = "compressed-tensors",
    kept: Kept | None = None,
) -> Path:
    """Write a compressed checkpoint.

    Args:
        loaded: The uncompressed model.
        layers: Its layers.
        plan: What is done to them.
        folder: Where; an empty folder or an earlier export is replaced.
        format: ``compressed-tensors`` for plain transformers, ``paredown`` for `paredown.export.native.load`.

        kept: Weights that were compressed before, for schemes that need calibration (`Study.export` has them).

    Returns:
        The folder.

    Raises:
        ParedownError: If the format is unknown or can't hold the plan, the plan is for another model, or the place can't be written to.
    """
    writers = {"compressed-tensors": compressed_tensors.write, "paredown": native.write}
    if format not in writers:
        raise ParedownError(f"expected the format {' or '.join(get_args(Format))}, got {format!r}")
    return writers[format](loaded, layers, plan, folder, kept)


def best_format(loaded: LoadedModel, layers: Sequence[LayerRef], plan: Plan) -> Format:
    """``compressed-tensors`` where it can hold the plan, so that plain transformers loads it, else ``paredown``."""
    return "paredown" if compressed_tensors.check(loaded.model, layers, plan) else "compressed-tensors"
