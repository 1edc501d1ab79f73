"""A browser test without a browser is skipped on a person's machine, and fails where CI=true."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from browser import state
from browser.harness import View, launched

_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser to drive: ``playwright.chromium.launch(executable_path=chromium)``."""
    if CHROMIUM is None:
        reason = f"NOT RUN: none of {', '.join(_NAMES)} is on the path; install the package chromium"
        if os.environ.get("CI", "").lower() in ("true", "1"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return CHROMIUM


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """One Chromium for the tests of a file."""
    with launched(chromium) as one:
        yield one


@pytest.fixture(scope="module")
def view_of_file(browser: Browser) -> View:
    return View(browser)


@pytest.fixture
def view(view_of_file: View) -> Iterator[View]:
    """A page for an explorer; afterwards nothing may have been logged as an error or asked of a network."""
    view_of_file.problems.clear()
    view_of_file.page.set_viewport_size({"width": 1280, "height": 900})
    view_of_file.page.mouse.move(0, 0)
    yield view_of_file
    assert view_of_file.problems == []


@pytest.fixture
def shown(view: View) -> View:
    """The explorer in the middle of a run, drawn."""
    view.mount(state.minilm())
    view.drawn("front")
    view.drawn("spectrum")
    view.forget()
    return view
