"""From a model to a smaller one, measured before and after."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from paredown.errors import ParedownError
from paredown.models import LoadedModel, described
from paredown.structure.anatomy import find_blocks
from paredown.structure.fitting import Fractions, fit_block_
from paredown.structure.greedy import Step, greedy
from paredown.structure.measuring import Figures, Reference
from paredown.structure.modegpt import Progress, drop_least_influential_, modegpt_
from paredown.structure.saving import save, say_in_config_
from paredown.tasks import Task

WHOLE = Fractions()


@dataclass(frozen=True, eq=False, slots=True)
class Shrunk:
    """A smaller model.

    Attributes:
        loaded: The model as everything else takes it.
        removed: What it lost and what it could not lose, in words.
        before: Figures of the original.
        after: Figures of the smaller one.
        steps: Removals that were tried.
        plain: Whether plain transformers loads it; else `paredown.models.load` does.
    """

    loaded: LoadedModel
    removed: tuple[str, ...]
    before: Figures
    after: Figures
    steps: tuple[Step, ...]
    plain: bool

    def report(self) -> dict[str, Any]:
        """For a program to read."""
        return {
            "plain": self.plain,
            "removed": list(self.removed),
            "before": dataclasses.asdict(self.before),
            "after": dataclasses.asdict(self.after),
        }

    def save(self, folder: str | Path) -> Path:
        """Write it; see `paredown.structure.save`."""
        return save(self.loaded, folder, report=self.report())


def shrink(
    loaded: LoadedModel,
    task: Task,
    *,
    drop_blocks: int = 0,
    modegpt: float | None = None,
    fractions: Fractions = WHOLE,
    threshold: float | None = None,
    compensate: bool = True,
    calibration: int | None = None,
    held_out: int | None = None,
    progress: Progress = lambda done, total, what: None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Shrunk:
    """Take a model's least important pieces out; in this order, as far as they are asked for.

    Args:
        loaded: The original; it stays as it is.
        task: What it is for.
        drop_blocks: Blocks to drop, those of the least influence.
        modegpt: Share of the parameters in the blocks to keep, allotted to blocks by their influence.
        fractions: What to keep in every block.
        threshold: Remove what the loss on the calibration data allows: nats per unit that it may rise above its value at that point.
        compensate: Whether what is left is refitted when channels or heads go.
        calibration: Calibration samples; the task's own number where None.
        held_out: Held-out samples; the task's own number where None.
        progress: Told of each block.
        on_step: Told of each removal that was tried.

    Returns:
        The smaller model with its figures. What was chosen by the calibration data is measured on the held-out data, too.

    Raises:
        ParedownError: If nothing is asked for, or the model is of no known family.
    """
    if not drop_blocks and modegpt is None and fractions == WHOLE and threshold is None:
        raise ParedownError("expected something to remove: drop_blocks, modegpt, fractions below 1, or a threshold")
    find_blocks(loaded.model)  # refuses what is not known before anything is measured
    search = task.batches("calibration", calibration)
    reference = Reference.of(loaded.model, task, search, task.batches("held_out", held_out))
    model, removed, steps = copy.deepcopy(loaded.model), [], []
    if drop_blocks:
        removed += drop_least_influential_(model, task, search, drop_blocks)
    if modegpt is not None:
        removed += modegpt_(model, task, search, modegpt, progress=progress)
    if fractions != WHOLE:
        blocks = find_blocks(model)
        removed.append("every block keeps " + ", ".join(f"{value:.0%} of {name}" for name, value in vars_of(fractions) if value < 1))
        for index, block in enumerate(blocks):
            progress(index, len(blocks), block.path)
            removed += fit_block_(model, task, search, block.path, fractions, compensate=compensate)
    if threshold is not None:
        for step in greedy(model, task, search, threshold=threshold):
            on_step(step)
            steps.append(step)
        removed += _lost(steps)
    _round_(model, getattr(torch, loaded.dtype))
    plain = say_in_config_(model)
    small = described(
        f"{loaded.id} (shrunk)", f"{loaded.label}, shrunk", model, loaded.processor, getattr(torch, loaded.dtype), loaded.notice
    )
    return Shrunk(small, tuple(removed), reference.figures(loaded), reference.figures(small), tuple(steps), plain)


def vars_of(fractions: Fractions) -> list[tuple[str, float]]:
    """Names and values."""
    return [(field.name, getattr(fractions, field.name)) for field in dataclasses.fields(fractions)]


def _lost(steps: list[Step]) -> list[str]:
    """The last accepted step of each piece."""
    last = {step.piece: f"{step.piece}: lost {step.lost}" for step in steps if step.accepted}
    return list(last.values()) or ["nothing could be removed within the threshold"]


def _round_(model: nn.Module, dtype: torch.dtype) -> None:
    """What is measured is what the file will hold."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype).to(parameter.dtype)
