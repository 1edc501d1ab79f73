"""A task of the user's own: a metric that takes the model, and batches of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from paredown.errors import ParedownError
from paredown.specs import Split
from paredown.tasks.base import Batch, Predictions, Scores, Task, check_finite, check_split, counted, cross_entropy, describe, inputs_for


def custom(
    metric: Callable[[nn.Module], float],
    *,
    batches: Iterable[Batch | Mapping[str, Tensor]],
    calibration: Iterable[Batch | Mapping[str, Tensor]],
    higher_is_better: bool,
    loss: Callable[[nn.Module, Batch], Tensor] | None = None,
    logits: Callable[[nn.Module, Batch], Tensor] | None = None,
    name: str = "custom",
    label: str = "",
    metric_name: str = "",
    unit: Literal["sample", "token"] = "sample",
) -> Custom:
    """A task from any callable.

    Args:
        metric: Takes the model and returns one number. It runs on whatever data it likes, which must not be the calibration data.
        batches: Held-out batches, on which KL, flips and loss are measured: keyword arguments of ``model.forward``, each
            [samples, ...]; ``labels`` among them become the targets, -100 where a position is not counted (for a causal model
            they are shifted by the user: ``labels[:, t]`` is the class that ``logits[:, t]`` should predict). Or `Batch` values.
        calibration: Other such batches, on which sensitivities are measured.
        higher_is_better: Direction of the metric.
        loss: Takes model and batch and returns the loss of each sample, [samples], in nats or whatever unit; differentiable. Given
            without `logits`, its increase takes the place of the KL.
        logits: Takes model and batch and returns logits [samples, classes] or [samples, positions, classes]; differentiable.
            Given neither `loss` nor `logits`, they are the ``logits`` of the model's output.
        name: Identifies the task in a study.
        label: The task in words.
        metric_name: Name of the metric; the callable's own where not given.
        unit: What losses are counted per.

    Returns:
        The task. Its metric has no interval, since one number cannot be resampled.

    Raises:
        ParedownError: If there are no batches, or a batch holds no tensors.

    Example::

        task = custom(lambda model: accuracy(model, my_data), batches=held_out, calibration=calibration, higher_is_better=True)
    """
    if not callable(metric):
        raise ParedownError(f"metric must be a callable that takes the model and returns a number, got {type(metric).__name__}")
    splits: dict[Split, tuple[Batch, ...]] = {
        "calibration": _batches(calibration, "calibration"),
        "held_out": _batches(batches, "held-out"),
    }
    called = metric_name or getattr(metric, "__name__", "metric").replace("<lambda>", "metric").replace("_", " ")
    if loss is None and logits is None:
        logits = _output_logits
    return Custom(splits, metric, higher_is_better, loss, logits, name, label or name, called, unit)


class Custom(Task):
    """What `custom` makes."""

    def __init__(
        self,
        splits: Mapping[Split, Sequence[Batch]],
        metric: Callable[[nn.Module], float],
        higher_is_better: bool,
        loss: Callable[[nn.Module, Batch], Tensor] | None,
        logits: Callable[[nn.Module, Batch], Tensor] | None,
        name: str,
        label: str,
        metric_name: str,
        unit: Literal["sample", "token"],
    ) -> None:
        self.name, self.label, self.unit, self.metric, self.higher_is_better = name, label, unit, metric_name, higher_is_better
        self.offers_probabilities = logits is not None
        self.default_samples = {split: sum(len(batch.ids) for batch in batches) for split, batches in splits.items()}
        self._splits = splits
        self._metric, self._loss, self._logits = metric, loss, logits

    @override
    def batches(self, split: Split, limit: int | None = None) -> Sequence[Batch]:
        """The user's batches, in order; the last one is cut where the limit falls into it."""
        check_split(split)
        if limit is not None and limit < 1:
            raise ParedownError(f"limit must be at least 1, got {limit}")
        left = self.default_samples[split] if limit is None else limit
        taken: list[Batch] = []
        for batch in self._splits[split]:
            if left <= 0:
                break
            taken.append(batch if len(batch.ids) <= left else _first(batch, left))
            left -= len(batch.ids)
        return taken

    @override
    def predictions(self, model: nn.Module, batch: Batch) -> Predictions:
        if self._logits is None:
            raise ParedownError(f"the task {self.name} offers no probabilities: it was given a loss and no logits")
        return counted(self._logits(model, batch), batch)

    @override
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if self._loss is None:
            return cross_entropy(self.predictions(model, batch), batch)
        values = self._loss(model, batch)
        if not isinstance(values, Tensor) or tuple(values.shape) != (len(batch.ids),):
            got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ParedownError(
                f"expected a tensor [{len(batch.ids)}] from the loss of {self.name}, one value a sample, got {got}; don't average over the batch"
            )
        check_finite(values, batch, "losses")
        return values

    @override
    @torch.no_grad()
    def scores(self, model: nn.Module, batches: Sequence[Batch], predictions: Sequence[Predictions] | None = None) -> Scores:
        """The metric in one part, whatever the batches are: the callable brings data of its own."""
        value = float(self._metric(model))
        if not math.isfinite(value):
            raise ParedownError(
                f"expected a finite {self.metric}, the callable returned {value}; look for NaN or infinite values in the model's outputs"
            )
        return Scores(np.array([value]), np.ones(1))


def _output_logits(model: nn.Module, batch: Batch) -> Tensor:
    output: Any = model(**inputs_for(model, batch))
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise ParedownError(
            f"expected logits in the output of {type(model).__name__}, got {type(output).__name__}; give logits=a function that returns them, or loss="
        )
    return logits


def _batches(given: Iterable[Batch | Mapping[str, Tensor]], split: str) -> tuple[Batch, ...]:
    made: list[Batch] = []
    start = 0
    for batch in given:
        if not isinstance(batch, Batch):
            inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
            if not inputs or not all(isinstance(tensor, Tensor) for tensor in inputs.values()):
                raise ParedownError(
                    f"expected each {split} batch to be a Batch or a dict of tensors, the keyword arguments of model.forward; got {dict(batch)!r:.80}"
                )
            samples = len(next(iter(inputs.values())))
            batch = Batch(inputs, batch.get("labels"), tuple(range(start, start + samples)))
        if not batch.ids:
            raise ParedownError(f"expected at least one sample in {describe(batch)} of the {split} split, got none")
        made.append(batch)
        start += len(batch.ids)
    if not made:
        raise ParedownError(f"expected at least one {split} batch, got none")
    return tuple(made)


def _first(batch: Batch, count: int) -> Batch:
    targets = None if batch.targets is None else batch.targets[:count]
    return Batch({name: tensor[:count] for name, tensor in batch.inputs.items()}, targets, batch.ids[:count])
