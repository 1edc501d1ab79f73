"""The explorer on a study with bits, sparsity and rank: the real view model behind the page, so that an edit is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_refinement
from browser.harness import View
from fake_study import RICH, FakeStudy, filled
from paredown_widgets.handlers import handle
from paredown_widgets.model import ExplorerModel
from paredown_widgets.snapshot import snapshot

EDITS: dict[int, tuple[str, Any]] = {
    1: ("sparsity", "2:4"), 4: ("rank", 16), 5: ("rank", 32), 10: ("sparsity", "50%"), 13: ("sparsity", "2:4"), 17: ("sparsity", "2:4"), 22: ("rank", 16),
}  # fmt: skip

Q, K, V, OUT, FC1, FC2 = range(1, 7)
"""Places of the layers of Block 0 among all."""


def rich_study(folder: Path, blocks: int = 6) -> FakeStudy:
    """A study that is over, written to the folder unless it is there."""
    study = FakeStudy(folder, blocks=blocks, schemes=RICH)
    if study.record().info is None:
        filled(folder, blocks=blocks, schemes=RICH)
    return study


def refined_study(folder: Path) -> FakeStudy:
    """A study whose plans were refined and whose layers were timed."""
    return fake_refinement.refined(filled(folder, timed=True))


class Rich:
    """A model, and a page that shows it."""

    def __init__(self, study: FakeStudy) -> None:
        self.model = ExplorerModel(study)
        self.model.refresh()
        self.names = list(self.model.editor.schemes)
        self.seen = 0

    def do(self, kind: str, **fields: Any) -> None:
        handle(self.model, {"type": kind, **fields})
        assert self.model.error is None, self.model.error

    def edited(self) -> Rich:
        """Some layers sparse, some corrected, some both; one locked, one selected."""
        for index, (kind, value) in EDITS.items():
            self.do(kind, layers=[self.names[index]], **{kind: value})
        self.do("scheme", layers=[self.names[24]], scheme="int4g64+2:4+eora16")
        self.do("scheme", layers=[self.names[16]], scheme="int8g64a8")
        self.do("lock", layers=[self.names[10]], locked=True)
        self.do("select", layers=[self.names[24]], mode="replace")
        return self

    def state(self, **changes: Any) -> dict[str, Any]:
        return {**snapshot(self.model), "theme": "light", "seq": 1, "want_png": 0} | changes

    def answer(self, view: View, *more: str) -> None:
        """Have the model do what the page sent since the last time, and push what changed."""
        sent = view.messages()
        for message in sent[self.seen :]:
            if message["type"] != "ack":
                handle(self.model, message)
        self.seen = len(sent)
        for trait in ("plan", "summary", "what_if", *more):
            view.set(trait, snapshot(self.model)[trait])

    @classmethod
    def at_four_bits(cls, study: FakeStudy, view: View) -> Rich:
        """A page that shows all layers at 4 bits, Block 0 o selected."""
        made = cls(study)
        made.do("scheme", layers=made.names, scheme="int4g64")
        made.do("select", layers=[made.names[OUT]], mode="replace")
        view.mount(made.state())
        view.drawn("front")
        view.forget()
        return made

    def scheme(self, index: int) -> str:
        return str(self.model.editor.schemes[self.names[index]])
