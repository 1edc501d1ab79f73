"""Building and loading our own kernels; the compiler is a small script here, so that nothing is compiled."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from paredown.errors import ParedownError
from paredown.kernels.cpu import build, library

ROOT = Path(__file__).parents[2]

FAKE = """#!{python}
import os, sys, time
if any(word.endswith({refused!r}) for word in sys.argv):
    sys.exit("error: unknown instruction set")
target = sys.argv[sys.argv.index("-o") + 1]
time.sleep(0.01)
open(target, "w").write("made by " + str(os.getpid()))
"""


@pytest.fixture
def fake_compiler(tmp_path, monkeypatch):
    def make(refused: str = "nothing") -> Path:
        path = tmp_path / "fake-c++"
        path.write_text(FAKE.format(python=sys.executable, refused=refused))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(path))
        return path

    return make


def test_without_a_compiler_nothing_is_built_and_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    path, reason = build.build(tmp_path)
    assert path is None
    assert "no C++ compiler (no-such-compiler)" in reason
    assert list(tmp_path.iterdir()) == []


def test_an_instruction_set_that_the_compiler_does_not_know_is_left_out(tmp_path, fake_compiler):
    isa = next(iter(build._OBJECTS[build.machine()]))
    fake_compiler(f"isa_{isa}.cpp")
    path, reason = build.build(tmp_path)
    assert path is not None
    assert f"does not know {isa};" in reason


def test_sources_that_do_not_compile_are_no_crash(tmp_path, fake_compiler):
    fake_compiler("isa_scalar.cpp")
    path, reason = build.build(tmp_path)
    assert path is None
    assert "could not compile the kernels: error: unknown instruction set" in reason


def test_processes_that_build_at_once_leave_one_whole_library(tmp_path, fake_compiler):
    fake_compiler()
    code = f"from pathlib import Path; from paredown.kernels.cpu import build; print(build.build(Path({str(tmp_path / 'out')!r}))[0])"
    (tmp_path / "out").mkdir()
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate(timeout=120)[0].strip() for process in started}
    assert answers == {str(build.library(tmp_path / "out"))}
    assert [path.read_text().startswith("made by") for path in (tmp_path / "out").iterdir()] == [True]


def test_the_library_of_other_sources_is_not_taken_and_can_be_removed(tmp_path, fake_compiler):
    fake_compiler()
    folder = _made(tmp_path / "out")
    old = folder / "_kernels-0123456789abcdef.so"
    old.touch()
    path, _ = build.build(folder)
    assert path != old
    build.clean(folder)
    assert list(folder.iterdir()) == [path]


def test_an_installation_without_a_compiler_succeeds(tmp_path):
    """The hook of a wheel: no library in it, any platform's tag, and a warning."""
    code = "import sys; sys.argv = ['hatchling', 'build', '-t', 'wheel', '-d', sys.argv[1]]; from hatchling.cli import hatchling; sys.exit(hatchling())"
    copy = tmp_path / "copy"
    subprocess.run(
        [
            "cp",
            "-r",
            "--",
            *[str(ROOT / name) for name in ("toolkit", "widgets", "data", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE")],
            str(_made(copy)),
        ],
        check=True,
    )
    for built in (copy / "toolkit").rglob("_kernels-*.so"):
        built.unlink()
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=copy,
        env=os.environ | {"CXX": "no-such-compiler"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "torch stands in" in done.stdout + done.stderr
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name.endswith("py3-none-any.whl")
    with zipfile.ZipFile(wheel) as file:
        assert not [name for name in file.namelist() if name.endswith(".so")]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_an_unknown_instruction_set_is_refused_with_those_that_there_are():
    found, reason = library.load()
    if found is None:
        pytest.skip(reason)
    with pytest.raises(ParedownError, match=r"expected an instruction set of this machine, scalar.*got 'mmx'"):
        found.isa("mmx")
    assert found.isa("scalar").name == "scalar"


def test_an_environment_variable_forces_an_instruction_set_or_none(monkeypatch):
    found, reason = library.load()
    if found is None:
        pytest.skip(reason)
    monkeypatch.setenv(library.ISA_VARIABLE, "scalar")
    assert found.isa().name == "scalar"
    monkeypatch.setenv(library.ISA_VARIABLE, "none")
    assert library.load.__wrapped__() == (None, "PAREDOWN_ISA is none")
