"""What plans of a `FakeStudy` did to each sample: answers that flip as often as its measurement says, on reviews of our own."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from paredown.outcomes import Outcomes
from paredown.specs import Measurement, Plan, Shown

CLASSES = {0: "negative", 1: "positive"}
REVIEWS = (
    "Slow to start, but the last half hour earns every minute of it.", "The cast is game; the script is not.", "I laughed twice, and once was at the credits.",
    "Not the disaster I had been promised.", "It looks wonderful and means nothing at all.", "A minor film by a major director, and still better than most.",
    "Every joke lands a second too late.", "You could do worse on a wet Sunday, and you could do better.", "So quiet that it takes an hour to notice how good it is.",
    "Two fine actors look for a film to be in, and for long stretches of its three hours one almost believes that they are about to find it just around the next corner of a city which nobody involved seems ever to have visited.",
    "Warm, slight, and over before it can wear out its welcome.", "The twist is visible from the car park.",
)  # fmt: skip


def samples(count: int, *, hostile: bool = False) -> list[Shown]:
    """Reviews with their labels, told apart by a number; `hostile` ones try to be markup."""
    draw = np.random.default_rng(5)
    texts = [REVIEWS[i % len(REVIEWS)] + (f" ({i // len(REVIEWS) + 1})" if i >= len(REVIEWS) else "") for i in range(count)]
    if hostile:
        texts = [f'<img src=x onerror="window.pwned = 1"> {text}' for text in texts]
    return [Shown(i, text, (CLASSES[int(label)],)) for i, (text, label) in enumerate(zip(texts, draw.integers(0, 2, count), strict=True))]


def outcomes(plan: Plan, measured: Measurement, shown: Sequence[Shown]) -> Outcomes:
    """Each sample has its own margin, the same for every plan; a plan moves the margins by noise of its own, the more the higher its KL.

    Its KL, loss and metric are about those of the measurement.
    """
    n = len(shown)
    easy = np.random.default_rng(1)
    margin = easy.gamma(1.6, 0.9, n) * np.where(easy.random(n) < 0.86, 1, -1)  # above 0: the original is right
    own = np.random.default_rng(zlib.crc32(plan.digest.encode()))
    moved = margin + (own.normal(-0.15, 1, n) * np.sqrt(1.5 * (measured.kl or 0.0)) if plan.schemes else 0.0)
    label = np.array([1 if one.labels == ("positive",) else 0 for one in shown])
    right = moved > 0
    sure = 1 / (1 + np.exp(-np.abs(moved)))
    kl = (measured.kl or 0.0) * own.gamma(0.7, 1 / 0.7, n) if plan.schemes else np.zeros(n)
    return Outcomes(
        np.ones(n), kl, np.log1p(np.exp(-moved)), right.astype(float), np.ones(n), np.where(right, label, 1 - label).astype(np.int32),
        sure.astype(np.float32), right, (), CLASSES,
    )  # fmt: skip
