"""Run every benchmark of this folder and write RESULTS.md: the machine, then one table for each.

Example: python benchmarks/run_all.py
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


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
    """Run all; the exit code says whether each of them succeeded."""
    sections, failed = [], []
    for script in sorted(HERE.glob("[!_]*.py")):
        if script.name == Path(__file__).name:
            continue
        print(f"== {script.name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "rows.json"
            done = subprocess.run([sys.executable, str(script), "--json", str(results)], check=False)
            if done.returncode or not results.exists():
                failed.append(script.name)
                sections.append(f"## {script.stem}\n\nFailed with exit code {done.returncode}.")
                continue
            sections.append(f"## {script.stem}\n\n{table(json.loads(results.read_text(encoding='utf-8')))}")
    head = f"# Benchmarks\n\nMeasured by these scripts on {date.today().isoformat()}: {machine()}.\nA ratio above 1 means that ours is ahead.\n"
    (HERE / "RESULTS.md").write_text(head + "\n" + "\n\n".join(sections) + "\n", encoding="utf-8")
    print(f"wrote {HERE / 'RESULTS.md'}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


if __name__ == "__main__":
    sys.exit(main())
