"""What a plan did to each sample, from what two models answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from paredown.evaluation.comparison import sample_divergences
from paredown.evaluation.observation import Observation
from paredown.outcomes import Outcomes
from paredown.tasks import Predictions
from paredown.tasks.base import row_losses


def outcomes(
    original: Observation,
    compressed: Observation,
    sizes: Sequence[int],
    words: Callable[[Sequence[int]], Sequence[str]] | None = None,
) -> Outcomes:
    """Hold what a compressed model answered against the original, sample by sample.

    Args:
        original: The original model's observation.
        compressed: The compressed model's, of the same batches.
        sizes: Samples in each batch, those without a counted unit among them.
        words: Puts classes in words, `paredown.tasks.Task.words`.
    """
    made, scores = compressed.predictions, compressed.scores
    metric = (np.asarray(scores.numerator, float), np.asarray(scores.denominator, float))
    if not made:
        none = np.empty(0)
        return Outcomes(none, none, none, *metric, written=scores.written)
    kl, units = sample_divergences(original.predictions, made, sizes)
    answers, probabilities = (torch.cat(parts) for parts in zip(*map(_most_likely, made), strict=True))
    loss = right = torch.empty(0)
    targets = [one.targets for one in made if one.targets is not None]
    if len(targets) == len(made):
        loss = torch.cat([_losses(one, target, size) for one, target, size in zip(made, targets, sizes, strict=True)])
        right = answers == torch.cat(targets)
    distinct = answers.unique().tolist()
    return Outcomes(
        units.numpy(),
        kl.numpy(),
        loss.double().numpy(),
        *metric,
        answers=answers.int().numpy(),
        probabilities=probabilities.numpy(),
        right=right.bool().numpy(),
        written=scores.written,
        words={} if words is None else dict(zip(distinct, words(distinct), strict=True)),
    )


def _most_likely(made: Predictions) -> tuple[Tensor, Tensor]:
    largest, answers = made.logits.max(-1)
    return answers, (largest - made.logits.logsumexp(-1)).exp()


def _losses(made: Predictions, targets: Tensor, size: int) -> Tensor:
    """Summed over the units of each sample, [samples]."""
    each = row_losses(made.logits, targets).double()
    return torch.zeros(size, dtype=torch.float64).index_add_(0, made.sample, each)
