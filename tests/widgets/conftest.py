from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fake_study import FakeStudy, filled
from paredown_widgets.handlers import handle
from paredown_widgets.model import ExplorerModel


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("studies") / "done").folder


@pytest.fixture
def done_folder(template: Path, tmp_path: Path) -> Path:
    """A study that is over; each test has a copy of its own."""
    return Path(shutil.copytree(template, tmp_path / "done"))


@pytest.fixture
def study(done_folder: Path) -> FakeStudy:
    return FakeStudy(done_folder)


@pytest.fixture
def model(study: FakeStudy) -> ExplorerModel:
    made = ExplorerModel(study)
    made.refresh()
    return made


class Hand:
    """Plays the browser: sends messages, and fails where the explorer shows an error."""

    def __init__(self, model: ExplorerModel) -> None:
        self.model = model

    def __call__(self, kind: str, **fields: object) -> None:
        handle(self.model, {"type": kind, **fields})
        assert self.model.error is None, self.model.error

    def refused(self, kind: str, **fields: object) -> str:
        handle(self.model, {"type": kind, **fields})
        assert self.model.error is not None
        text = f"{self.model.error['text']}; {self.model.error['remedy']}"
        self.model.error = None
        return text

    def bits(self, layer: str) -> int | None:
        weight = self.model.editor.schemes[layer].weight
        return None if weight is None else weight.bits


@pytest.fixture
def hand(model: ExplorerModel) -> Hand:
    return Hand(model)
