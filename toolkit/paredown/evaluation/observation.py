"""What one model answers on a split."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from paredown.errors import ParedownError
from paredown.tasks import Batch, Predictions, Scores, Task


@dataclass(frozen=True, eq=False, slots=True)
class Observation:
    """What one model answered on a split.

    Attributes:
        predictions: Per batch; empty where the task offers no logits.
        scores: The metric's terms per sample.
        seconds: Wall time of the forward passes.
        units: Counted units.
    """

    predictions: tuple[Predictions, ...]
    scores: Scores
    seconds: float
    units: int


def observe(model: nn.Module, task: Task, batches: Sequence[Batch], predict: Callable[[Batch], Predictions] | None = None) -> Observation:
    """Run a model over the batches.

    Args:
        model: The model.
        task: What it is asked.
        batches: The batches.
        predict: Makes the predictions of a batch; ``task.predictions(model, batch)`` where not given.

    Returns:
        What it answered.

    Raises:
        ParedownError: If the model's outputs (from the task) or the metric's terms are not finite.
    """
    predictions: list[Predictions] = []
    started = time.perf_counter()
    with torch.inference_mode():
        if task.offers_probabilities:
            predictions = [task.predictions(model, batch) if predict is None else predict(batch) for batch in batches]
        seconds = time.perf_counter() - started
        scores = task.scores(model, batches, predictions if task.offers_probabilities else None)
    with np.errstate(all="ignore"):  # said in words instead
        finite = bool(np.isfinite(scores.numerator).all() and np.isfinite(scores.denominator).all() and np.isfinite(scores.value()))
    if not finite:
        raise ParedownError(
            f"the {task.metric} of {task.label} is NaN or infinite; look for a scheme with too few bits, or check what the metric returns"
        )
    if not task.offers_probabilities:
        seconds = time.perf_counter() - started
    units = sum(len(p.logits) for p in predictions) or int(sum(float(task.units(batch).sum()) for batch in batches))
    return Observation(tuple(predictions), scores, seconds, units)
