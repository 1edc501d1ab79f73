"""Classification of texts and of images: accuracy, and the cross-entropy of the labels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from paredown.errors import ParedownError
from paredown.models import LoadedModel
from paredown.specs import Shown, Split
from paredown.tasks.base import (
    Batch,
    Predictions,
    Scores,
    Task,
    check_samples,
    check_split,
    chosen,
    counted,
    cross_entropy,
    inputs_for,
    require,
)
from paredown.tasks.showing import png, shortened


class Classification(Task):
    """One class per sample. What the samples are is the subclasses' matter."""

    unit: Literal["sample", "token"] = "sample"
    metric = "accuracy"
    higher_is_better = True
    offers_probabilities = True

    name: str
    label: str
    batch_size: int
    _labels: Mapping[Split, Tensor | None]
    _classes: Mapping[int, str]

    @abstractmethod
    def _lengths(self, split: Split) -> Sequence[int]: ...

    @abstractmethod
    def _inputs(self, split: Split, indices: Sequence[int]) -> Mapping[str, Tensor]: ...

    @override
    def batches(self, split: Split, limit: int | None = None) -> Sequence[Batch]:
        check_split(split)
        labels = self._labels[split]
        return [
            Batch(self._inputs(split, indices), None if labels is None else labels[indices], tuple(indices))
            for indices in chosen(self._lengths(split), limit, self.default_samples[split], self.batch_size)
        ]

    @override
    def predictions(self, model: nn.Module, batch: Batch) -> Predictions:
        return counted(model(**inputs_for(model, batch)).logits, batch)

    @override
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return cross_entropy(self.predictions(model, batch), batch)

    @override
    @torch.no_grad()
    def scores(self, model: nn.Module, batches: Sequence[Batch], predictions: Sequence[Predictions] | None = None) -> Scores:
        right: list[np.ndarray] = []
        for i, batch in enumerate(batches):
            targets = require(batch.targets, batch, self.metric)
            predicted = predictions[i] if predictions is not None else self.predictions(model, batch)
            right.append((predicted.logits.argmax(-1).cpu() == targets).double().numpy())
        numerator = np.concatenate(right)
        return Scores(numerator, np.ones_like(numerator))

    @override
    def words(self, answers: Sequence[int]) -> list[str]:
        return [self._classes.get(answer, str(answer)) for answer in answers]

    def _label_words(self, split: Split, index: int) -> tuple[str, ...]:
        labels = self._labels[split]
        return () if labels is None else tuple(self.words([int(labels[index])]))


class SequenceClassification(Classification):
    """Texts and the class of each.

    Args:
        loaded: A model with a classification head, and its tokenizer.
        calibration: Texts to calibrate on.
        held_out: Other texts, which results are measured on.
        held_out_labels: The class of each held-out text.
        calibration_labels: The class of each calibration text; only losses need them, and KL does not.
        max_length: Tokens that longer texts are cut to.
        batch_size: Texts in a batch.
        name: Identifies the task.
        label: The task in words.
        default_samples: Samples of each split that are taken by default; all where not given.

    Raises:
        ParedownError: If the model has no tokenizer or head, or labels are missing or out of its classes.

    Example::

        task = SequenceClassification(models.load("my-model"), calibration=texts[:256], held_out=texts[256:], held_out_labels=labels[256:])
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        calibration: Sequence[str],
        held_out: Sequence[str],
        held_out_labels: Sequence[int] | Tensor | None,
        calibration_labels: Sequence[int] | Tensor | None = None,
        max_length: int = 128,
        batch_size: int = 32,
        name: str = "sequence-classification",
        label: str = "Text classification",
        default_samples: Mapping[Split, int] | None = None,
    ) -> None:
        if not callable(loaded.processor):
            raise ParedownError(
                f"expected a tokenizer with {loaded.id}, it has none; save one into its folder with tokenizer.save_pretrained(folder)"
            )
        self.name, self.label, self.batch_size = name, label, batch_size
        self._labels = _labels(loaded, calibration, calibration_labels, held_out, held_out_labels)
        self._classes = _classes(loaded)
        self.default_samples = default_samples or {"calibration": len(calibration), "held_out": len(held_out)}
        self._texts: dict[Split, Sequence[str]] = {"calibration": calibration, "held_out": held_out}
        self._tokenizer: Any = loaded.processor
        self._encoded: dict[Split, list[list[int]]] = {
            "calibration": self._tokenizer(list(calibration), truncation=True, max_length=max_length)["input_ids"],
            "held_out": self._tokenizer(list(held_out), truncation=True, max_length=max_length)["input_ids"],
        }

    @override
    def shown(self, split: Split, index: int) -> Shown:
        return Shown(index, shortened(self._texts[split][index]), self._label_words(split, index))

    def _lengths(self, split: Split) -> Sequence[int]:
        return [len(ids) for ids in self._encoded[split]]

    def _inputs(self, split: Split, indices: Sequence[int]) -> Mapping[str, Tensor]:
        encoded = [self._encoded[split][i] for i in indices]
        ids = torch.full((len(encoded), max(map(len, encoded))), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return {"input_ids": ids, "attention_mask": mask}


class ImageClassification(Classification):
    """Images and the class of each.

    Args:
        loaded: A model with a classification head.
        calibration: Images to calibrate on: a tensor [samples, ...] or a sequence of whatever `prepare` takes.
        held_out: Other images, which results are measured on.
        held_out_labels: The class of each held-out image.
        calibration_labels: The class of each calibration image; only losses need them, and KL does not.
        prepare: Makes ``pixel_values`` [samples, channels, height, width] of some images. Where it is not given, a tensor is taken
            as it is, and anything else goes through the model's own image processor.
        batch_size: Images in a batch.
        name: Identifies the task.
        label: The task in words.
        default_samples: Samples of each split that are taken by default; all where not given.

    Raises:
        ParedownError: If the model has no head, labels are missing or out of its classes, or nothing can prepare the images.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        calibration: Tensor | Sequence[Any],
        held_out: Tensor | Sequence[Any],
        held_out_labels: Sequence[int] | Tensor | None,
        calibration_labels: Sequence[int] | Tensor | None = None,
        prepare: Callable[[Any], Tensor] | None = None,
        batch_size: int = 32,
        name: str = "image-classification",
        label: str = "Image classification",
        default_samples: Mapping[Split, int] | None = None,
    ) -> None:
        self.name, self.label, self.batch_size = name, label, batch_size
        self._labels = _labels(loaded, calibration, calibration_labels, held_out, held_out_labels)
        self._classes = _classes(loaded)
        self.default_samples = default_samples or {"calibration": len(calibration), "held_out": len(held_out)}
        self._images: dict[Split, Tensor | Sequence[Any]] = {"calibration": calibration, "held_out": held_out}
        self._prepare = prepare
        self._processor: Any = loaded.processor
        ready = isinstance(calibration, Tensor) and isinstance(held_out, Tensor)
        if prepare is None and not ready and not callable(loaded.processor):
            raise ParedownError(
                f"expected an image processor with {loaded.id}, it has none; give pixel values as a tensor, or prepare=a function that makes them"
            )

    @override
    def shown(self, split: Split, index: int) -> Shown:
        content = png(self._images[split][index])
        return Shown(index, "", self._label_words(split, index), media="image/png" if content else "", content=content)

    def _lengths(self, split: Split) -> Sequence[int]:
        return [0] * len(self._images[split])  # all alike

    def _inputs(self, split: Split, indices: Sequence[int]) -> Mapping[str, Tensor]:
        images = self._images[split]
        picked = images[list(indices)] if isinstance(images, Tensor) else [images[i] for i in indices]
        if self._prepare is not None:
            return {"pixel_values": self._prepare(picked)}
        if isinstance(picked, Tensor):
            return {"pixel_values": picked}
        return {"pixel_values": self._processor(images=picked, return_tensors="pt")["pixel_values"]}


def _classes(loaded: LoadedModel) -> Mapping[int, str]:
    """What the model's own config calls the classes; LABEL_0 and the like are transformers' names for those without one."""
    names: Mapping[Any, str] = getattr(getattr(loaded.model, "config", None), "id2label", None) or {}
    return {int(answer): f"class {answer}" if name == f"LABEL_{answer}" else name for answer, name in names.items()}


def _labels(
    loaded: LoadedModel,
    calibration: Sequence[Any] | Tensor,
    calibration_labels: Sequence[int] | Tensor | None,
    held_out: Sequence[Any] | Tensor,
    held_out_labels: Sequence[int] | Tensor | None,
) -> Mapping[Split, Tensor | None]:
    check_samples("calibration", calibration, calibration_labels, needed=False)
    check_samples("held-out", held_out, held_out_labels, needed=True)
    classes = getattr(getattr(loaded.model, "config", None), "num_labels", None)
    checked: dict[Split, Tensor | None] = {}
    given: tuple[tuple[Split, Sequence[int] | Tensor | None], ...] = (("calibration", calibration_labels), ("held_out", held_out_labels))
    for split, values in given:
        labels = None if values is None else torch.as_tensor(values, dtype=torch.long)
        if labels is not None and classes is not None and (int(labels.min()) < 0 or int(labels.max()) >= classes):
            raise ParedownError(
                f"expected labels from 0 to {classes - 1}, the classes of {loaded.id}; got {int(labels.min())} to {int(labels.max())} in the {split} split"
            )
        checked[split] = labels
    return checked
