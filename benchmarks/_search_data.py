"""The models that searches are compared on, and calibration data drawn anew for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from paredown import models, tasks
from paredown.curvature.surface import rows_of
from paredown.errors import ParedownError
from paredown.models import LoadedModel
from paredown.tasks import Batch, Task

FIXTURES = Path(__file__).parents[1] / "data" / "fixtures"
ALL = 10**9


class Drawn(Task):
    """A task whose calibration samples are drawn at random from all that results are not measured on.

    Args:
        task: The task.
        seed: Of the draw.
        held_out: Samples that results are measured on; the task's number where not given.
    """

    def __init__(self, task: Task, seed: int, held_out: int | None = None) -> None:
        self.task, self.name, self.label, self.unit = task, f"{task.name} drawn {seed}", task.label, task.unit
        self.metric, self.higher_is_better, self.offers_probabilities = task.metric, task.higher_is_better, task.offers_probabilities
        self.default_samples = task.default_samples
        results = {i for batch in task.batches("held_out", held_out) for i in batch.ids}
        rest = [
            rows_of(batch, torch.tensor([row for row, i in enumerate(batch.ids) if i not in results]))
            for batch in task.batches("held_out", ALL)
            if not results.issuperset(batch.ids)
        ]
        self.pool = [*task.batches("calibration", ALL), *rest]
        self.order = np.random.default_rng(seed).permutation(sum(len(batch.ids) for batch in self.pool))

    def batches(self, split, limit=None) -> Sequence[Batch]:
        """The first samples in the drawn order; the held-out ones as they are."""
        if split == "held_out":
            return self.task.batches(split, limit)
        place = np.empty_like(self.order)
        place[self.order] = np.arange(len(self.order))  # the number of each sample of the pool in the drawn order
        count = self.default_samples[split] if limit is None else limit
        found, start = [], 0
        for batch in self.pool:
            numbers = place[start : start + len(batch.ids)]
            rows = torch.from_numpy(np.flatnonzero(numbers < count))
            start += len(batch.ids)
            if len(rows):
                cut_down = rows_of(batch, rows)
                found.append(Batch(cut_down.inputs, cut_down.targets, tuple(int(i) for i in numbers[rows.numpy()])))
        return found

    def predictions(self, model, batch):
        """The task's."""
        return self.task.predictions(model, batch)

    def loss(self, model, batch):
        """The task's."""
        return self.task.loss(model, batch)

    def scores(self, model, batches, predictions=None):
        """The task's."""
        return self.task.scores(model, batches, predictions)


def loaded_case(name: str) -> tuple[LoadedModel, Task]:
    if name == "tiny-vit":
        loaded = models.load(str(FIXTURES / "tiny-vit-fashion"))
        with np.load(FIXTURES.parent / "vision" / "fashion_mnist_small.npz") as data:
            arrays = {key: torch.from_numpy(data[key]) for key in data.files}
        return loaded, tasks.ImageClassification(
            loaded,
            calibration=arrays["calib_x"],
            calibration_labels=arrays["calib_y"],
            held_out=arrays["test_x"],
            held_out_labels=arrays["test_y"],
            prepare=lambda images: (images.float()[:, None] / 255 - 0.286) / 0.353,  # mean and deviation of the training set
            batch_size=64,
            default_samples={"calibration": 64, "held_out": 500},
            name="tiny-vit",
        )
    if name == "tiny-lm":
        loaded = models.load(str(FIXTURES / "tiny-llama-austen"))
        texts = [
            (FIXTURES.parent / "text" / f"{file}.txt").read_text() for file in ("austen_persuasion_calib", "austen_northanger_abbey_test")
        ]
        return loaded, tasks.LanguageModelling(
            loaded,
            calibration=texts[0],
            held_out=texts[1],
            window=64,
            batch_size=16,
            default_samples={"calibration": 64, "held_out": 128},
            name="tiny-lm",
        )
    if name not in ("sentiment", "vision", "lm"):
        raise ParedownError(f"expected sentiment, vision, lm, tiny-vit or tiny-lm, got {name!r}")
    loaded = models.load(f"demo:{name}")
    return loaded, tasks.load(f"demo:{name}", loaded)
