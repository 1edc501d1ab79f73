"""The interface of a task, and the values that pass through it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from paredown.errors import ParedownError
from paredown.specs import Shown, Split

IGNORED = -100
"""Target of a position that is not counted: padding, a prompt, context that another window counts."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some samples of a split, ready for the model.

    Attributes:
        inputs: Keyword arguments of ``model.forward``, each [samples, ...].
        targets: Class of each sample [samples] or of each position [samples, positions], aligned with the logits; `IGNORED` where
            a position is not counted; None where the data has no labels.
        ids: Index of each sample in its split.
    """

    inputs: Mapping[str, Tensor]
    targets: Tensor | None
    ids: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model predicts for the counted units (samples or tokens) of a batch.

    Attributes:
        logits: [units, classes], float32.
        targets: [units]; None where the data has no labels.
        sample: Row in the batch that each unit belongs to, [units], rising.
    """

    logits: Tensor
    targets: Tensor | None
    sample: Tensor


@dataclass(frozen=True, eq=False)
class Scores:
    """A metric in parts, one per sample, so that it can be resampled: ``transform(numerator.sum() / denominator.sum())``.

    Attributes:
        numerator: [samples], float64.
        denominator: [samples], float64.
        transform: What makes the metric of the ratio.
        written: What the model wrote for each sample, where the task lets it write.
    """

    numerator: np.ndarray
    denominator: np.ndarray
    transform: Literal["identity", "exp"] = "identity"
    written: tuple[str, ...] = ()

    def value(self) -> float:
        """The metric over all samples."""
        ratio = float(self.numerator.sum() / self.denominator.sum())
        return float(np.exp(ratio)) if self.transform == "exp" else ratio


class Task(ABC):
    """What good means for a model. The data is deterministic, and no sample is in both splits.

    Attributes:
        name: Identifies the task, such as ``demo:sentiment``.
        label: The task in words.
        unit: What losses are counted per.
        metric: Name of the metric, such as ``accuracy``; it is a fraction where it is a share or a rate.
        higher_is_better: Direction of the metric.
        offers_probabilities: Whether `predictions` works; where not, `loss` is what is differentiated.
        takes_bfloat16: Whether `predictions` takes a model's outputs in bfloat16; for other tasks they are cast to float32 before.
        default_samples: Samples of each split that `batches` takes where no limit is given.
    """

    name: str
    label: str
    unit: Literal["sample", "token"]
    metric: str
    higher_is_better: bool
    offers_probabilities: bool
    takes_bfloat16: bool = False
    default_samples: Mapping[Split, int]

    @abstractmethod
    def batches(self, split: Split, limit: int | None = None) -> Sequence[Batch]:
        """The first `limit` samples of a split (`default_samples` where None; all where it has fewer), sorted by length."""

    @abstractmethod
    def predictions(self, model: nn.Module, batch: Batch) -> Predictions:
        """Logits of the batch's counted units; differentiable, the caller chooses ``no_grad``.

        Raises:
            ParedownError: If a logit is NaN or infinite, or the task offers no probabilities.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The task's loss in nats, summed over the units of each sample, [samples]; differentiable.

        Raises:
            ParedownError: If it is not finite or there are no labels.
        """

    @abstractmethod
    def scores(self, model: nn.Module, batches: Sequence[Batch], predictions: Sequence[Predictions] | None = None) -> Scores:
        """The metric in parts, samples in the order of the batches.

        Args:
            model: The model; it is run where `predictions` is not enough.
            batches: Labelled batches.
            predictions: The model's predictions for them, where they are at hand.

        Raises:
            ParedownError: If there are no labels.
        """

    def units(self, batch: Batch) -> Tensor:
        """Number of counted units of each sample, [samples]."""
        if batch.targets is None or batch.targets.dim() == 1:
            return torch.ones(len(batch.ids), dtype=torch.long)
        return (batch.targets != IGNORED).flatten(1).sum(1)

    def shown(self, split: Split, index: int) -> Shown:
        """A sample as a person sees it; its index alone, unless the task says more."""
        return Shown(index)

    def words(self, answers: Sequence[int]) -> list[str]:
        """Classes in words; as numbers, unless the task knows better."""
        return [str(answer) for answer in answers]

    def data_digest(self, split: Split, limit: int | None = None) -> str:
        """16 hexadecimal digits of the SHA-256 over inputs, targets and order of the samples that `batches` gives."""
        sha = hashlib.sha256()
        for batch in self.batches(split, limit):
            sha.update(repr(batch.ids).encode())
            for name, tensor in sorted(batch.inputs.items()):
                _update(sha, name, tensor)
            if batch.targets is not None:
                _update(sha, "targets", batch.targets)
        return sha.hexdigest()[:16]


def _update(sha: hashlib._Hash, name: str, tensor: Tensor) -> None:
    sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
    sha.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)


def device_of(model: nn.Module) -> torch.device:
    """Where the model is; a fully packed one has buffers only."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def inputs_for(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """The batch's inputs on the model's device."""
    device = device_of(model)
    return {name: tensor.to(device) for name, tensor in batch.inputs.items()}


def counted(logits: Tensor, batch: Batch) -> Predictions:
    """Keep the logits of the counted units.

    Args:
        logits: [samples, classes] or [samples, positions, classes].
        batch: Where its targets are None, every position counts.

    Raises:
        ParedownError: If a counted logit is NaN or infinite.
    """
    rows = torch.arange(len(batch.ids), device=logits.device)
    targets = None if batch.targets is None else batch.targets.to(logits.device)
    if logits.dim() == 2:
        sample = rows
    elif targets is None:
        sample = rows.repeat_interleave(logits.shape[1])
        logits = logits.flatten(0, 1)
    else:
        mask = targets != IGNORED
        sample = rows[:, None].expand_as(mask)[mask]
        logits, targets = _where(mask, logits), targets[mask]
    logits = logits.float()
    check_finite(logits, batch, "logits")
    return Predictions(logits, targets, sample)


def _where(mask: Tensor, logits: Tensor) -> Tensor:
    """Logits [samples, positions, classes] where the mask is set; a slice, where it is the same one in all samples, is copied faster."""
    places = mask[0].nonzero().flatten()
    alike = len(places) > 0 and bool((mask == mask[0]).all())
    if alike and int(places[-1] - places[0]) + 1 == len(places):
        return logits[:, int(places[0]) : int(places[-1]) + 1].float().flatten(0, 1)
    return logits[mask]


def check_finite(values: Tensor, batch: Batch, what: str) -> None:
    """Refuse NaN and infinite values.

    Raises:
        ParedownError: Naming the batch.
    """
    # both ends are NaN where a value is, and are found far faster than which values are finite
    least, most = torch.aminmax(values.detach()) if values.numel() else (values, values)
    if not bool(torch.isfinite(least).all() and torch.isfinite(most).all()):
        raise ParedownError(
            f"the model returned NaN or infinite {what} for {describe(batch)}; look for such values in its weights or inputs, or for a scheme with too few bits"
        )


def cross_entropy(predictions: Predictions, batch: Batch) -> Tensor:
    """Cross-entropy in nats, summed over the units of each sample, [samples].

    Raises:
        ParedownError: If there are no targets.
    """
    targets = require(predictions.targets, batch, "the loss")
    each = row_losses(predictions.logits, targets)
    return each.new_zeros(len(batch.ids)).index_add(0, predictions.sample, each)


def row_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats of each row, [units]; a few rows at once, so that those of a whole vocabulary stay in the caches."""
    rows = rows_at_once(logits)
    pairs = zip(logits.split(rows), targets.split(rows), strict=True)
    return torch.cat([nn.functional.cross_entropy(some, right, reduction="none") for some, right in pairs])


def rows_at_once(logits: Tensor) -> int:
    """How many rows [units, classes] to work on at once: a million numbers, or one row."""
    return max(1, 2**20 // max(1, logits.shape[-1]))


def require(targets: Tensor | None, batch: Batch, what: str) -> Tensor:
    """The targets, which `what` needs.

    Raises:
        ParedownError: If there are none.
    """
    if targets is None:
        raise ParedownError(f"expected labels for {what}, {describe(batch)} has none; give the labels of this split when the task is made")
    return targets


def describe(batch: Batch) -> str:
    """The batch in words, by its samples."""
    shown = ", ".join(map(str, batch.ids[:4])) + (", ..." if len(batch.ids) > 4 else "")
    return f"the batch of samples {shown}"


def chosen(lengths: Sequence[int], limit: int | None, default: int, batch_size: int) -> list[list[int]]:
    """Indices of the first `limit` samples in batches of like length, shortest first, so that there is little padding.

    Raises:
        ParedownError: If the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ParedownError(f"limit must be at least 1, got {limit}")
    count = min(len(lengths), default if limit is None else limit)
    order = sorted(range(count), key=lambda i: (lengths[i], i))
    return [order[start : start + batch_size] for start in range(0, count, batch_size)]


def check_split(split: str) -> None:
    """Refuse an unknown split.

    Raises:
        ParedownError: If it is neither calibration nor held_out.
    """
    if split not in ("calibration", "held_out"):
        raise ParedownError(f"split must be calibration or held_out, got {split!r}")


def check_samples(what: str, samples: Sized, labels: Sized | None, *, needed: bool) -> None:
    """Check that there are samples, and as many labels.

    Raises:
        ParedownError: If there are none, or the numbers differ, or labels are missing that the metric needs.
    """
    if not len(samples):
        raise ParedownError(f"expected at least one {what} sample, got none")
    if labels is None:
        if needed:
            raise ParedownError(
                f"expected labels for the {what} samples, got none: the metric is computed from them; calibration alone can do without"
            )
        return
    if len(labels) != len(samples):
        raise ParedownError(f"expected one label for each {what} sample, got {len(samples)} samples and {len(labels)} labels")
