"""What a model weighs and how well it does, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from paredown.evaluation import Observation, compare, divergence, observe
from paredown.models import LoadedModel
from paredown.specs import Metric, Plan
from paredown.tasks import Batch, Predictions, Task


@dataclass(frozen=True, slots=True)
class Figures:
    """A model in numbers.

    Attributes:
        parameters: Tied ones counted once.
        bytes: Of its tensors, as stored.
        search_loss: On the calibration data, which decided what was removed: nats per unit.
        search_kl: KL from the original model there; None where the task offers no probabilities.
        loss: On the held-out data; None where it has no labels.
        kl: KL from the original model on the held-out data, nats per unit.
        kl_sd: Its standard error over samples.
        flips: Share of held-out units whose most likely class changed.
        metric: The task's metric on the held-out data.
    """

    parameters: int
    bytes: int
    search_loss: float
    search_kl: float | None
    loss: float | None
    kl: float | None
    kl_sd: float | None
    flips: float | None
    metric: Metric


def mean_loss(model: nn.Module, task: Task, batches: Sequence[Batch], original: Sequence[Predictions] | None) -> float:
    """The task's loss per unit; where the data has no labels, the KL from the original model's predictions.

    Args:
        model: The model.
        task: The task.
        batches: The data.
        original: What the original model predicts for it; None where the task offers no probabilities.
    """
    if original is not None and any(predictions.targets is None for predictions in original):
        return mean_kl(model, task, batches, original)
    with torch.no_grad():
        total = sum(float(task.loss(model, batch).sum(dtype=torch.float64)) for batch in batches)
    return total / sum(int(task.units(batch).sum()) for batch in batches)


def mean_kl(model: nn.Module, task: Task, batches: Sequence[Batch], original: Sequence[Predictions]) -> float:
    """KL from the original model's predictions, nats per unit."""
    with torch.no_grad():
        each = [divergence(before.logits, task.predictions(model, batch).logits) for before, batch in zip(original, batches, strict=True)]
    return float(torch.cat(each).mean())


@dataclass(frozen=True, eq=False, slots=True)
class Reference:
    """What the original model answers.

    Attributes:
        task: What it was asked.
        search: Calibration batches.
        held_out: Held-out batches.
        predictions: For the calibration batches; None where the task offers no probabilities.
        observation: Of the held-out batches.
    """

    task: Task
    search: Sequence[Batch]
    held_out: Sequence[Batch]
    predictions: Sequence[Predictions] | None
    observation: Observation

    @classmethod
    def of(cls, model: nn.Module, task: Task, search: Sequence[Batch], held_out: Sequence[Batch]) -> Reference:
        """Ask it."""
        with torch.no_grad():
            predictions = [task.predictions(model, batch) for batch in search] if task.offers_probabilities else None
        return cls(task, search, held_out, predictions, observe(model, task, held_out))

    def figures(self, loaded: LoadedModel) -> Figures:
        """Of a model, against the original."""
        held_out = observe(loaded.model, self.task, self.held_out)
        plan = Plan(loaded.id, loaded.digest, {}, loaded.bytes, found_by="shrunk")
        measured = compare(self.observation, held_out, self.task, plan, split="held_out", data_digest="")
        return Figures(
            parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
            bytes=loaded.bytes,
            search_loss=mean_loss(loaded.model, self.task, self.search, self.predictions),
            search_kl=None if self.predictions is None else mean_kl(loaded.model, self.task, self.search, self.predictions),
            loss=measured.loss,
            kl=measured.kl,
            kl_sd=measured.kl_sd,
            flips=measured.flips,
            metric=measured.metric,
        )
