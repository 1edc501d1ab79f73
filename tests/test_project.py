"""The project itself: the direction of imports, what may not be imported, sizes of files, pins."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("toolkit", "widgets")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".js", ".css") and path.is_file()
)
USER_INTERFACE = ("anywidget", "ipywidgets", "IPython", "panel", "param", "plotly", "paredown_widgets")
TORCH_FREE = (
    "paredown.errors",
    "paredown.specs",
    "paredown.store",
    "paredown.record",
    "paredown.sizes",
    "paredown.search",
    "paredown.smoothing",
)

IMPORT_ALL = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked in this test")

sys.meta_path.insert(0, Blocked())
import paredown
for module in pkgutil.walk_packages(paredown.__path__, "paredown."):
    importlib.import_module(module.name)
assert not [name for name in sys.modules if name.partition(".")[0] in BLOCKED]
print(len([name for name in sys.modules if name.startswith("paredown.")]))
"""


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_toolkit_imports_without_any_user_interface() -> None:
    modules = int(run_python(f"BLOCKED = {set(USER_INTERFACE)!r}\n{IMPORT_ALL}"))
    assert modules >= len(list((ROOT / "toolkit" / "paredown").glob("*.py"))) - 1  # all but __init__


@pytest.mark.parametrize("module", TORCH_FREE)
def test_values_store_and_search_import_no_torch(module: str) -> None:
    heavy = run_python(f"import sys, {module}; print(*({{'torch', 'transformers'}} & sys.modules.keys()))")
    assert heavy == ""


def test_import_contracts_hold() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(program), "--no-cache"], capture_output=True, text=True, timeout=300, cwd=ROOT, env=os.environ | {"NO_COLOR": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [1-9]\d* kept, 0 broken", done.stdout), done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines < 500, f"{path.relative_to(ROOT)} has {lines} lines; it probably holds two ideas"


def test_no_source_names_a_folder_as_a_package() -> None:
    """Started at the root, Python also finds ``toolkit.paredown``: a second copy of every class."""
    wrong = re.compile(r"^\s*(from|import) (toolkit|widgets)\b", re.MULTILINE)
    python = [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    assert [path for path in python if path.suffix == ".py" and wrong.search(path.read_text(encoding="utf-8"))] == []


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def test_every_dependency_is_pinned_and_torch_has_no_companions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = [entry for entries in project["project"]["optional-dependencies"].values() for entry in entries]
    asked = {name_of(entry) for entry in [*project["project"]["dependencies"], *extras, *project["dependency-groups"]["dev"]]} - {
        "paredown"
    }
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []  # no local versions, no addresses
    pinned = {name_of(line) for line in lines}
    assert asked - pinned == set()
    assert pinned & {"torchvision", "torchaudio"} == set()
    assert lines == sorted(lines, key=lambda line: line.upper())


def test_the_changelog_knows_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{project['project']['version']}]" in changelog


def test_make_help_lists_the_commands_of_the_readme() -> None:
    listed = subprocess.run(["make", "help"], capture_output=True, text=True, timeout=60, cwd=ROOT, check=True).stdout
    assert {"venv", "demo", "test", "lab", "app", "check", "bench", "clean"} <= set(re.findall(r"^  make (\S+)", listed, re.MULTILINE))
