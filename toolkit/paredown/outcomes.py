"""What one plan did to each held-out sample, as arrays; and samples as arrays, to be stored beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise, repeat

import numpy as np

from paredown.specs import Shown

_EACH = ("units", "kl", "loss", "numerator", "denominator")


@dataclass(frozen=True, eq=False, slots=True)
class Outcomes:
    """What a plan did to each sample of a split, in the order of the task's batches.

    What the original model did is the outcome of the plan that changes nothing, on the same samples: what was answered before and after
    is read off the two.

    Attributes:
        units: Counted units, [samples]; empty where the task offers no predictions.
        kl: KL from the original, summed over the units, nats, [samples]; empty where the task offers no predictions.
        loss: The task's loss, summed over the units, nats, [samples]; empty where the data has no labels.
        numerator: Of the metric, [samples].
        denominator: Of the metric, [samples].
        answers: The most likely class of each counted unit, sample after sample, [sum of units]; empty in studies of before it was kept.
        probabilities: Its probability, [sum of units].
        right: Whether it is the label, [sum of units]; empty where the data has no labels.
        written: What the model wrote for each sample, where the task lets it write.
        words: The classes among the answers in words.
    """

    units: np.ndarray
    kl: np.ndarray
    loss: np.ndarray
    numerator: np.ndarray
    denominator: np.ndarray
    answers: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    probabilities: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    right: np.ndarray = field(default_factory=lambda: np.empty(0, np.bool_))
    written: tuple[str, ...] = ()
    words: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Outcomes:
        """What `arrays` gave; without answers where an earlier version wrote them."""
        made = cls(arrays["units"], arrays["kl"], arrays["loss"], arrays["numerator"], arrays["denominator"])
        if "answers" not in arrays:
            return made
        told = json.loads(arrays["told"].tobytes())
        return replace(
            made,
            answers=arrays["answers"],
            probabilities=arrays["probabilities"],
            right=arrays["right"].astype(np.bool_),
            written=tuple(told["written"]),
            words={int(answer): word for answer, word in told["words"].items()},
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """To be stored."""
        told = {"written": self.written, "words": {str(answer): word for answer, word in self.words.items()}}
        kept = {name: np.ascontiguousarray(getattr(self, name)) for name in (*_EACH, "answers", "probabilities")}
        return {**kept, "right": np.ascontiguousarray(self.right, np.uint8), "told": _bytes(told)}

    @property
    def answered(self) -> bool:
        """Whether the answers were kept."""
        return len(self.answers) > 0

    def changed(self, original: Outcomes) -> np.ndarray:
        """Units of each sample whose most likely class is not the original's, [samples].

        Args:
            original: Of the same samples.
        """
        sample = np.repeat(np.arange(len(self.units)), self.units.astype(int))
        return np.bincount(sample, self.answers != original.answers, len(self.units)).astype(int)


def shown_arrays(samples: Sequence[Shown], *, most_bytes: int = 2**25) -> dict[str, np.ndarray]:
    """Samples to be stored.

    Args:
        samples: In the order of the outcomes.
        most_bytes: Of pictures and sounds together; the samples behind keep their labels alone.
    """
    ends = np.cumsum([len(sample.content) for sample in samples], dtype=np.int64)
    fit = int((ends <= most_bytes).sum())
    told = [[s.index, s.text, s.labels, s.places, s.media if i < fit else ""] for i, s in enumerate(samples)]
    content = b"".join(sample.content for sample in samples[:fit])
    return {"told": _bytes(told), "ends": ends[:fit], "content": np.frombuffer(content, np.uint8)}


def shown_from_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[Shown, ...]:
    """What `shown_arrays` gave."""
    content, ends = arrays["content"].tobytes(), arrays["ends"].tolist()
    spans = chain(pairwise([0, *ends]), repeat((0, 0)))
    return tuple(
        Shown(index, text, tuple(labels), tuple(places), media, content[start:end])
        for (index, text, labels, places, media), (start, end) in zip(json.loads(arrays["told"].tobytes()), spans, strict=False)
    )


def _bytes(value: object) -> np.ndarray:
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), np.uint8)
