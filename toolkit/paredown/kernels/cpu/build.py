"""Compile the C++ of this folder into one library: at installation, and again when a checkout's sources have changed.

Only Python's own library is used here, because the build hook runs this file before anything is installed. The library's name holds
the digest of all that goes into it, and it appears by a rename; so processes that build at once do each other no harm, and none
loads what another one is still writing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "src"
BUILT = HERE / "built"  # no package: Python would take the library for a module

_COMMON = ("-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math")
_AVX2 = ("-mavx2", "-mfma", "-mf16c", "-mbmi2", "-mpopcnt")
_AVX512 = (*_AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "vnni", "vbmi", "vbmi2")), "-mprefer-vector-width=512")
_INTRINSICS = ("-Wno-uninitialized", "-Wno-maybe-uninitialized")  # GCC's own headers, bug 105593
_FAST = ("-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic")
_OBJECTS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "avx2": (*_AVX2, *_FAST),
        "avx_vnni": (*_AVX2, "-mavxvnni", *_FAST),
        "avx512": (*_AVX512, "-mavx512bf16", *_FAST, *_INTRINSICS),
        "scalar": ("-O2",),
    },
    "aarch64": {"neon_dotprod": ("-march=armv8.2-a+dotprod+fp16", *_FAST), "scalar": ("-O2",)},
}
"""Flags of each object, the slowest to compile first. None is compiled for the machine that happens to build."""


def machine() -> str:
    """The architecture, by the name that `_OBJECTS` has for it."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def library(folder: Path = BUILT) -> Path:
    """Where the library of these sources is, or would be."""
    digest = hashlib.sha256(f"{sys.platform} {machine()}".encode())
    for path in sorted([Path(__file__), *SOURCES.iterdir()]):
        digest.update(path.read_bytes())
    return folder / f"_kernels-{digest.hexdigest()[:16]}.so"


def compiler() -> list[str] | None:
    """The C++ compiler's command: ``CXX`` where it is set, or what is on the path."""
    asked = os.environ.get("CXX", "").split()
    candidates = [asked] if asked else [["c++"], ["g++"], ["clang++"]]
    return next((command for command in candidates if shutil.which(command[0])), None)


def build(folder: Path = BUILT, *, flags: tuple[str, ...] = (), to: Path | None = None) -> tuple[Path | None, str]:
    """Compile and link, unless it was done before.

    Args:
        folder: Where the library goes.
        flags: More flags, for every object.
        to: The library's path, where it is not the usual one.

    Returns:
        The library's path, None where there is none; and what is missing, in words, empty where nothing is.
    """
    target = library(folder) if to is None else to
    if target.exists():
        return target, ""
    command = compiler()
    if os.name != "posix" or command is None:
        asked = os.environ.get("CXX") or "c++, g++ or clang++"
        return None, f"no C++ compiler ({asked}): Paredown's own CPU kernels are left out and torch stands in; install one, such as g++"
    with contextlib.suppress(OSError):
        target.parent.mkdir(exist_ok=True)
    if not os.access(target.parent, os.W_OK):
        return None, f"the kernels are not compiled, and {target.parent} can't be written; install Paredown again"
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="paredown-") as scratch:
        parts = Path(scratch)

        def compile_one(source: str, extra: tuple[str, ...]) -> Path | None:
            made = parts / f"{source}.o"
            done = _run([*command, *_COMMON, *extra, *flags, "-c", str(SOURCES / f"{source}.cpp"), "-o", str(made)])
            if done.returncode:
                failed[source] = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
            return made if done.returncode == 0 else None

        objects = _OBJECTS.get(machine(), {"scalar": ("-O2",)})
        with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
            made = dict(zip(objects, threads.map(lambda isa: compile_one(f"isa_{isa}", objects[isa]), objects), strict=True))
            defines = tuple(f"-DPAREDOWN_WITH_{isa.upper()}" for isa, path in made.items() if path is not None)
            rest = list(threads.map(lambda source: compile_one(source, ("-O2", *defines)), ("paredown", "pack", "pool")))
        if made["scalar"] is None or None in rest:
            return None, f"{' '.join(command)} could not compile the kernels: {'; '.join(failed.values())}"
        linked = parts / target.name
        parts_made = [str(path) for path in (*made.values(), *rest) if path is not None]
        done = _run([*command, "-shared", "-pthread", *flags, *parts_made, "-o", str(linked)])
        if done.returncode:
            return None, f"{' '.join(command)} could not link the kernels: {done.stderr[:300]}"
        beside = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.copy(linked, beside)
        beside.replace(target)
    missing = ", ".join(isa.removeprefix("isa_") for isa in failed)
    return target, f"{' '.join(command)} does not know {missing}; such machines take the next instruction set" if missing else ""


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (the compiler of the one who installs)


def clean(folder: Path = BUILT) -> None:
    """Remove the libraries of other sources."""
    kept = library(folder)
    for path in folder.glob("_kernels-*.so"):
        if path != kept:
            path.unlink(missing_ok=True)


if __name__ == "__main__":  # says once, after an installation, what is missing
    clean()
    if message := build()[1]:
        print(f"paredown: {message}", file=sys.stderr)
