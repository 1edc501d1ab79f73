"""The explorer on a study whose plans are compared: the real view model behind the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from browser.answered import Rich
from fake_study import FakeStudy, filled
from paredown.specs import Shown
from paredown.tasks.showing import png, wav

TRAITS = ("compare", "flips", "front")


class Compared(Rich):
    """The best plan of the run in the hands, a searched one and W3 beside it."""

    def __init__(self, study: FakeStudy) -> None:
        super().__init__(study)
        for digest in (self.searched[3], self.uniform(3)):
            self.do("compare_add", digest=digest)
        self.do("opened", id="compare")
        self.model.comparison.work(self.model)

    @property
    def searched(self) -> list[str]:
        return [digest for digest in self.model.measured_plans() if self.model.uniform_bits(digest) is None]

    def uniform(self, bits: int) -> str:
        return next(digest for digest in self.model.measured_plans() if self.model.uniform_bits(digest) == bits)

    def settled(self, view: Any) -> None:
        """Have the model answer, and wait for what it works out in the background."""
        self.answer(view)
        self.model.comparison.work(self.model)
        self.answer(view, *TRAITS)


def compared_study(folder: Path, **more: Any) -> FakeStudy:
    """A study that is over, written to the folder unless it is there."""
    study = FakeStudy(folder, timed=True, **more)
    if study.record().info is None:
        filled(folder, timed=True, **more)
    return study


def as_pictures(shown: Compared, theme: str = "light") -> dict[str, Any]:
    """Its samples as pictures of ten kinds."""
    return _of_media(shown, theme, "image/png")


def as_sounds(shown: Compared, theme: str = "light") -> dict[str, Any]:
    """Its samples as sounds, with what was written for them."""
    return _of_media(shown, theme, "audio/wav")


def _of_media(shown: Compared, theme: str, media: Any) -> dict[str, Any]:
    comparison, names = (
        shown.model.comparison,
        ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"),
    )
    y, x = np.mgrid[-1:1:28j, -1:1:28j]
    kinds = dict(enumerate(names))
    content = [png((255 * (np.hypot(x * (1 + i / 4), y) < 0.8)).astype(np.uint8)) for i in range(10)]
    if media == "audio/wav":
        content = [wav(0.3 * np.sin(np.arange(1600) * 2 * np.pi * (220 + 40 * i) / 16000), 16000) for i in range(10)]
    own = [
        Shown(
            one.index,
            "",
            ("call me back after nine",) if media == "audio/wav" else (names[one.index % 10],),
            (),
            media,
            content[one.index % 10],
        )
        for one in comparison.shown
    ]
    comparison._shown = tuple(own)
    for digest, (measured, found) in list(comparison._read.items()):
        if found is None:
            continue
        label = np.arange(len(found.answers)) % 10
        answers = np.where(found.right, label, (label + 2 * found.answers + 3) % 10)
        written = (
            ()
            if media == "image/png"
            else tuple("call me back after nine" if right else "call me back after wine" for right in found.right)
        )
        comparison._read[digest] = (
            measured,
            replace(
                found, answers=answers, words=kinds, written=written, numerator=1.0 * ~found.right, denominator=np.full(len(answers), 5.0)
            ),
        )
    comparison.ready += 1
    return shown.state(theme=theme) | {"tab": "Compare"}
