"""A browser test without a browser is skipped on a person's machine, and fails where CI=true."""

from __future__ import annotations

import os
import shutil

import pytest

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
