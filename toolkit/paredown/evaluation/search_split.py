"""The samples that a search decides by. None of them is held out, so that what is shown as a result decided nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch

from paredown.errors import ParedownError
from paredown.evaluation.comparison import sample_divergences
from paredown.evaluation.evaluator import Evaluator
from paredown.evaluation.screening import drawn
from paredown.sizes import fit
from paredown.specs import KEEP, RefineObjective, Scheme
from paredown.tasks import Batch, Predictions
from paredown.tasks.base import cross_entropy

ALL = 10**9


class SearchSplit:
    """Calibration samples that priced nothing, where there are enough, else the calibration samples.

    Args:
        evaluator: Runs the plans.
        calibration_samples: Samples that the candidates were priced with; None for the task's own number.
        samples: How many are wanted. The samples that priced nothing do alone if they are at least half as many.
        objective: What is lowered.

    Raises:
        ParedownError: If the task does not offer what the objective needs.
    """

    def __init__(self, evaluator: Evaluator, calibration_samples: int | None, samples: int, objective: RefineObjective) -> None:
        task = evaluator.task
        if objective == "kl" and not task.offers_probabilities:
            raise ParedownError(f"the objective kl needs predictions, and {task.label} offers none; choose the objective loss")
        self.objective: RefineObjective = objective
        self._evaluator = evaluator
        pool = task.batches("calibration", ALL)
        numbers = np.array([i for batch in pool for i in batch.ids])
        priced = {i for batch in task.batches("calibration", calibration_samples) for i in batch.ids}
        used = np.array([i in priced for i in numbers])
        order = np.lexsort((numbers, used))  # those that priced nothing first, each in the data's order
        self.fresh = bool((~used).sum() * 2 >= samples)
        """Whether none of the samples priced the candidates."""
        chosen = order[: min(samples, int((~used).sum()) if self.fresh else len(order))]
        self.batches: Sequence[Batch] = drawn(pool, np.sort(chosen))
        self.units = np.concatenate([task.units(batch).numpy() for batch in self.batches]).astype(float)
        """Units of each sample, [samples]."""
        identity = f"{task.data_digest('calibration', ALL)} {sorted(numbers[chosen].tolist())} {objective}"
        self.digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        """Identifies the samples and the objective."""
        self._pieces: dict[bytes, list[Batch]] = {}
        self._original: dict[bytes, tuple[Predictions, ...]] = {}
        self._base: dict[bytes, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.units)

    def prepare(self, pieces: Sequence[np.ndarray]) -> None:
        """Ask the original model about these samples, piece by piece; what is measured in the same pieces shares the work of like plans."""
        for places in pieces:
            self._piece(places)

    def losses(self, schemes: Mapping[str, Scheme], pieces: Sequence[np.ndarray]) -> np.ndarray:
        """What a plan loses on samples, beyond the original model.

        Args:
            schemes: Layer name to scheme.
            pieces: Places of the samples, each array one of those that were prepared.

        Returns:
            Of each sample, summed over its units; less is better. In the order of the places.

        Raises:
            ParedownError: If the plan can't be evaluated, or the metric is not one of samples.
        """
        found = []
        for places in pieces:
            key = self._piece(places)
            each = self._damage(schemes, key)
            back = np.empty_like(each)
            back[np.argsort(places)] = each
            found.append(back)
        return np.concatenate(found)

    def once(self, schemes: Mapping[str, Scheme], places: np.ndarray) -> np.ndarray:
        """The same for samples that are not asked for again: nothing is kept of them."""
        prepared = places.tobytes() in self._pieces
        try:
            return self.losses(schemes, [places])
        finally:
            if not prepared:
                for kept in (self._pieces, self._original, self._base):
                    kept.pop(places.tobytes(), None)

    def _piece(self, places: np.ndarray) -> bytes:
        key = places.tobytes()
        if key not in self._pieces:
            batches = self._pieces[key] = drawn(self.batches, places)
            if self.objective == "kl":
                self._original[key] = self._evaluator.predictions({}, batches)
            else:
                self._base[key] = self._values({}, key)
        return key

    def _damage(self, schemes: Mapping[str, Scheme], key: bytes) -> np.ndarray:
        if self.objective != "kl":
            return self._values(schemes, key) - self._base[key]
        batches = self._pieces[key]
        made = self._evaluator.predictions(schemes, batches, keep=True)
        sums, _ = sample_divergences(self._original[key], made, [len(batch.ids) for batch in batches])
        return sums.numpy()

    def _values(self, schemes: Mapping[str, Scheme], key: bytes) -> np.ndarray:
        """The loss or the metric's terms of each sample, turned so that less is better."""
        evaluator, batches = self._evaluator, self._pieces[key]
        task = evaluator.task
        if self.objective == "metric":
            scores = evaluator.observe(schemes, keep=True, batches=batches).scores
            if len(scores.numerator) != sum(len(batch.ids) for batch in batches):
                raise ParedownError(
                    f"the {task.metric} of {task.label} is one number for all data, not one a sample; choose another objective"
                )
            return -scores.numerator if task.higher_is_better else scores.numerator
        if task.offers_probabilities:
            made = evaluator.predictions(schemes, batches, keep=True)
            each = [cross_entropy(predictions, batch) for predictions, batch in zip(made, batches, strict=True)]
        else:
            applied = {layer.name: fit(schemes.get(layer.name, KEEP), layer)[0] for layer in evaluator.layers}
            with evaluator.variants.applied(applied), torch.no_grad():
                each = [task.loss(evaluator.model, batch) for batch in batches]
        return torch.cat(each).double().cpu().numpy()


def cut(order: np.ndarray, ends: Sequence[int], start: int, stop: int) -> list[np.ndarray]:
    """The pieces of an order that make up a stretch of it; the stretch begins and ends where pieces do."""
    return [order[a:b] for a, b in pairwise([0, *ends]) if start <= a and b <= stop]
