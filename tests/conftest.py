"""For every test: one thread, and a rule for machines without a browser."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

torch.set_num_threads(1)  # two test processes share two cores; the same sums in the same order everywhere

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A browser test without a browser is skipped loudly on a person's machine, and fails where CI=true."""
    if item.get_closest_marker("browser") is None or CHROMIUM is not None:
        return
    reason = "NOT RUN: no Chromium on the path; `make test` installs it where it may, or install the package chromium"
    if os.environ.get("CI", "").lower() in ("true", "1"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser to drive: ``playwright.chromium.launch(executable_path=chromium)``."""
    assert CHROMIUM is not None  # the rule above came first
    return CHROMIUM
