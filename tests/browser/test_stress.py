"""The stress run in short: gestures at random on a study that streams, in the Panel app. `stress.py` goes on for twenty minutes and reads memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from browser.gestures import GESTURES, one_gesture
from browser.person import Person
from browser.stress import panel

pytestmark = pytest.mark.browser


def test_no_gesture_is_lost_while_plans_stream(tmp_path: Path, chromium: str) -> None:
    with panel(tmp_path / "study", 60, chromium) as (page, ask, watch):
        one = Person(page, ask, random.Random(0))
        measured, drawn = one.python()["events"], one.screen()["draws"]
        for gesture in one.draw.sample(list(GESTURES), 20):
            problem = one_gesture(one, gesture)
            assert problem is None, f"{gesture.__name__}: {problem}"
        assert one.python()["events"] > measured + 20  # the study went on meanwhile, and the front with it
        assert one.screen()["draws"] > drawn + 5
        assert watch.errors == []
        assert watch.outside == []
