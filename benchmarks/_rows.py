"""What every benchmark here shares: its rows, its table, its JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

SKIPPED = 77
"""The exit code of a benchmark that measures nothing, because the machine lacks something."""


@dataclass(frozen=True)
class Row:
    """One comparison; ``ratio`` is how many times better ours is, so that above 1 always means ahead."""

    name: str
    ours: float
    rival: float | None
    ratio: float | None
    unit: str


def row(name: str, ours: float, unit: str, rival: float | None = None, *, better: Literal["less", "more"] = "less") -> Row:
    """A row with its ratio."""
    ours, rival = float(ours), None if rival is None else float(rival)  # NumPy's own don't go into JSON
    if rival is None:
        return Row(name, ours, None, None, unit)
    top, bottom = (rival, ours) if better == "less" else (ours, rival)
    return Row(name, ours, rival, top / bottom if bottom else None, unit)


def spent(job: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU time, and what came out."""
    started = time.process_time()
    result = job()
    return time.process_time() - started, result


def interleaved(jobs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each job, all in turn, round after round; the first round warms up and does not count."""
    times = [{name: spent(job)[0] for name, job in jobs.items()} for _ in range(rounds + 1)][1:]
    return {name: statistics.median(each[name] for each in times) for name in jobs}


def options(description: str) -> argparse.ArgumentParser:
    """The command line that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    return parser


def show(title: str, rows: list[Row], to: Path | None) -> None:
    """Print the rows, and write them where asked."""
    table = Table(title=title, title_justify="left")
    for heading in ("name", "ours", "rival", "ratio", "unit"):
        table.add_column(heading, justify="left" if heading in ("name", "unit") else "right", no_wrap=heading != "name")
    for each in rows:
        table.add_row(each.name, *("" if value is None else f"{value:.3g}" for value in (each.ours, each.rival, each.ratio)), each.unit)
    Console(width=140).print(table)
    if to is not None:
        to.write_text(json.dumps([asdict(each) for each in rows], indent=1) + "\n", encoding="utf-8")


def skip(lacking: str, to: Path | None) -> int:
    """Say what the machine lacks, in the file too that rows would go to; the exit code."""
    said = f"Nothing was measured: {lacking}."
    print(said, file=sys.stderr)
    if to is not None:
        to.write_text(json.dumps(said) + "\n", encoding="utf-8")
    return SKIPPED
