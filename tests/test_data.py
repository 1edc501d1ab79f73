from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from paredown.demos import DEMOS

DATA = Path(__file__).resolve().parents[1] / "data"
SOURCES = (DATA / "SOURCES.md").read_text()
LISTED = dict(re.findall(r"^\| `([^`]+/[^`]+)` \|.*`([0-9a-f]{64})` \|$", SOURCES, re.MULTILINE))
FILES = sorted(str(path.relative_to(DATA)) for path in DATA.rglob("*") if path.is_file() and path.name not in ("SOURCES.md", "LICENSE"))


@pytest.mark.parametrize("name", FILES)
def test_digest_is_that_of_sources(name: str) -> None:
    assert LISTED.get(name) == hashlib.sha256((DATA / name).read_bytes()).hexdigest()


def test_sources_lists_no_file_that_is_gone() -> None:
    assert sorted(LISTED) == FILES


def test_every_folder_has_its_licence() -> None:
    assert all((folder / "LICENSE").is_file() for folder in DATA.iterdir() if folder.is_dir())


@pytest.mark.parametrize("demo", DEMOS.values(), ids=list(DEMOS))
def test_sources_names_the_pinned_wheel_of_each_demo(demo) -> None:
    row = next(line for line in SOURCES.splitlines() if line.startswith(f"| `demo:{demo.name}`"))
    assert f"`{demo.project}=={demo.version}`" in row
    assert demo.sha256 in row
