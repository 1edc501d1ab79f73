"""Run every benchmark of this folder and write RESULTS.md: the machine, then one table for each.

Named ones alone keep the tables of the others, and say when they were measured. What takes hours runs where it is named alone, and keeps
its table otherwise. Options after ``--`` go to the one benchmark that is named, and stand above its table.

Example: python benchmarks/run_all.py
Example: python benchmarks/run_all.py methods
Example: python benchmarks/run_all.py search -- --models sentiment --seeds 0 --keep kept
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _rows import SKIPPED

HERE = Path(__file__).parent
LONG = {"search"}
"""What takes hours."""


def machine() -> str:
    """The machine and the libraries in one sentence."""
    import torch

    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor() or "unknown CPU",
    )
    memory = next((int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), None)
    parts = [
        platform.platform(),
        cpu,
        f"{os.cpu_count()} cores",
        *([f"{memory:.0f} GiB memory"] if memory else []),
        torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("paredown", "torch", "transformers")),
    ]
    return ", ".join(parts)


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of a benchmark's rows; a ratio above 1 means that ours is ahead."""
    lines = ["| work | ours | rival | ratio | unit |", "| --- | ---: | ---: | ---: | --- |"]
    lines += [
        f"| {row['name']} | {number(row['ours'])} | {number(row['rival'])} | {number(row['ratio'])} | {row['unit']} |" for row in rows
    ]
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Four significant digits; a dash where there is none."""
    return "–" if value is None else f"{value:.4g}"


def main() -> int:
    """Run all, or those that are named; the exit code says whether each of them succeeded."""
    scripts = {script.stem: script for script in sorted(HERE.glob("[!_]*.py")) if script.name != Path(__file__).name}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(scripts)}; all if none is named")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    named, passed = parser.parse_args(sys.argv[1:end]).names, sys.argv[end + 1 :]
    names = named or [name for name in scripts if name not in LONG]
    if unknown := set(names) - scripts.keys():
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(scripts)}")
    if passed and len(names) != 1:
        parser.error(f"options after -- belong to one benchmark, and {len(names)} would run; name it")
    results = HERE / "RESULTS.md"
    head = f"# Benchmarks\n\nMeasured by these scripts on {date.today().isoformat()}: {machine()}.\nA ratio above 1 means that ours is ahead.\n"
    when = f"Measured apart on {date.today().isoformat()}: {machine()}.\n\n" if named else ""
    when += f"`python benchmarks/{names[0]}.py {shlex.join(passed)}`\n\n" if passed else ""
    new: dict[str, str] = {}
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        rows = measured(scripts[name], passed)
        if rows is None:
            failed.append(name)
        new[name] = f"## {name}\n\n" + ("Failed." if rows is None else rows if isinstance(rows, str) else when + table(rows))
    written = results.read_text(encoding="utf-8")  # only now: others may have written meanwhile
    before, *rest = re.split(r"^## ", written, flags=re.MULTILINE)
    head = before if named else head
    sections = {title: f"## {part.strip()}" for part in rest if (title := part.split("\n", 1)[0]) in scripts or named}
    sections |= new
    body = "\n\n".join(sections[name] for name in sorted(sections))
    results.write_text(f"{head.strip()}\n\n{body}\n", encoding="utf-8")
    print(f"wrote {results}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def measured(script: Path, passed: Sequence[str] = ()) -> list[dict[str, Any]] | str | None:
    """The rows of one benchmark; in words what it lacks here, where it says so; nothing where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        done = subprocess.run([sys.executable, str(script), *passed, "--json", str(rows)], check=False)
        return None if done.returncode not in (0, SKIPPED) or not rows.exists() else json.loads(rows.read_text(encoding="utf-8"))


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


if __name__ == "__main__":
    sys.exit(main())
