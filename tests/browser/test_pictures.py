"""Six key screens look as they did when somebody last looked at them: `PAREDOWN_ACCEPT_PICTURES=1 pytest tests/browser/test_pictures.py` accepts new ones.

Compared are averages over squares of eight pixels, so that another version of a font's hinting makes no difference and a panel that moved, lost
its colour or its lines does.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser.harness import View
from browser.shoot import SHOTS, ready

pytestmark = pytest.mark.browser
PICTURES = Path(__file__).parent / "pictures"
SCREENS = ("light_1280", "dark_620", "rich_dark_1280", "layer_light_1280", "compare_light_1280", "search_light_1280")
SQUARE = 8
FAR = 0.06
"""Difference of a square's mean colour, of the whole range, that an eye sees."""
SHARE = 0.01
"""Of the squares that may be that far apart: a number or two, not a panel."""


def averaged(picture: Image.Image) -> np.ndarray:
    """Mean colour of each square, [down, across, 3], 0 to 1."""
    pixels = np.asarray(picture.convert("RGB"), float) / 255
    down, across = (side // SQUARE for side in pixels.shape[:2])
    return pixels[: down * SQUARE, : across * SQUARE].reshape(down, SQUARE, across, SQUARE, 3).mean((1, 3))


def apart(one: Image.Image, other: Image.Image) -> float:
    """Share of the squares in which two pictures differ; all where their sizes do by more than a line of text."""
    if max(abs(a - b) for a, b in zip(one.size, other.size, strict=True)) > 16:
        return 1.0
    left, right = averaged(one), averaged(other)
    down, across = (min(sides) for sides in zip(left.shape[:2], right.shape[:2], strict=True))
    return float((np.abs(left[:down, :across] - right[:down, :across]).max(-1) > FAR).mean())


@pytest.mark.parametrize("name", SCREENS)
def test_a_key_screen_looks_as_it_did(view: View, name: str, tmp_path: Path) -> None:
    width, build, page = SHOTS[name]
    view.page.set_viewport_size({"width": width, "height": 862})
    state = build()
    view.mount(state, **page)
    ready(view, state)
    now = Image.open(io.BytesIO(view.page.locator(".pd").screenshot()))
    kept = PICTURES / f"{name}.png"
    if os.environ.get("PAREDOWN_ACCEPT_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        now.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(kept, optimize=True)
    share = apart(Image.open(kept), now)
    now.save(tmp_path / f"{name}.png")
    assert share <= SHARE, f"{share:.1%} of the squares differ from {kept}; look at {tmp_path / name}.png, and accept it if it is right"


def test_a_panel_that_loses_its_bars_is_seen(view: View) -> None:
    width, build, page = SHOTS["light_1280"]
    view.page.set_viewport_size({"width": width, "height": 862})
    state = build()
    view.mount(state, **page)
    ready(view, state)
    view.page.add_style_tag(content=".pd-srow .t { visibility: hidden }")
    now = Image.open(io.BytesIO(view.page.locator(".pd").screenshot()))
    assert apart(Image.open(PICTURES / "light_1280.png"), now) > SHARE
