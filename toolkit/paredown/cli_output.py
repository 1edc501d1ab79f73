"""What the command line prints: the table of the measured plans, the same as rows for a program, and the bars of a run."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from paredown.record import Record
from paredown.search import measured_front
from paredown.specs import Event, Measurement, Plan

console = Console(highlight=False, soft_wrap=True)
WIDE = 130
"""Columns of a table that goes to a file or a pipe, where nothing wraps it."""

STAGES = {
    "load": "Load",
    "spectra": "Spectra",
    "baseline": "Baseline",
    "sensitivity": "Sensitivity",
    "search": "Search",
    "measure": "Measure plans",
    "hessian": "Hessian",
    "export": "Export",
}

AUTO_CLASSES = ("ForSequenceClassification", "ForImageClassification", "ForCausalLM")
"""What transformers' AutoModel classes end in; a model that ends otherwise is loaded by its own class."""


class Bars:
    """One bar a stage, from the run's events."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bars: dict[str, Any] = {}

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event.stage not in self.bars:
            self.bars[event.stage] = self.progress.add_task(STAGES[event.stage], total=None, note="")
        bar = self.bars[event.stage]
        if event.total:
            self.progress.update(bar, total=event.total, completed=event.done)
        note = event.message or event.layer
        if note and event.kind != "error":
            self.progress.update(bar, note=note)
        if event.kind == "layers":
            self.progress.update(bar, total=1, completed=1, note=f"{len(event.payload)} compressible layers")
        for value in event.payload:
            if isinstance(value, Measurement):
                self.progress.update(bar, note=f"{_percent(value)}, KL {_number(value.kl)}, {megabytes(value.bytes)}")


def rows(record: Record) -> list[dict[str, Any]]:
    """The measured plans for a program to read, largest first."""
    original = record.info.bytes if record.info else 0
    front = _front(record)
    return [
        {
            "plan": plan.digest,
            "found_by": plan.found_by,
            "bytes": measured.bytes,
            "ratio": original / measured.bytes,
            "metric": measured.metric.name,
            "value": measured.metric.value,
            "low": measured.metric.low,
            "high": measured.metric.high,
            "loss": measured.loss,
            "kl": measured.kl,
            "kl_sd": measured.kl_sd,
            "predicted_kl": plan.loss_increase,
            "predicted_seconds_per_token": plan.seconds_per_token,
            "predicted_seconds_per_token_sd": plan.seconds_per_token_sd,
            "flips": measured.flips,
            "kv_cache_bits": measured.kv_cache_bits,
            "kv_cache_bytes": measured.kv_cache_bytes,
            "n": measured.n,
            "split": measured.split,
            "on_front": plan.digest in front,
        }
        for plan, measured in _pairs(record)
    ]


def print_plans(record: Record) -> None:
    """The measured plans as a table, with what the reader must know of the model and of schemes that did not fit."""
    if record.info is None or not record.measurements:
        console.print("Nothing is measured yet.")
        return
    info = record.info
    table = Table(
        title=f"{info.label}, {info.task_label}: held-out, {next(iter(record.measurements.values())).n} samples", title_justify="left"
    )
    front = _front(record)
    timed = any(plan.seconds_per_token is not None for plan in record.plans.values())
    for heading, side in (
        ("", "left"),
        ("plan", "left"),
        ("size", "right"),
        ("smaller", "right"),
        (f"{info.metric} (95 %)", "right"),
        ("KL, nats", "right"),
        ("flips", "right"),
        ("loss", "right"),
        ("predicted", "right"),
        *((("CPU µs/token", "right"),) if timed else ()),
        ("digest", "left"),
    ):
        table.add_column(heading, justify=side, no_wrap=True)  # pyright: ignore[reportArgumentType]
    for plan, measured in _pairs(record):
        table.add_row(
            "•" if plan.digest in front else "",
            plan.found_by,
            megabytes(measured.bytes),
            f"{info.bytes / measured.bytes:.1f}x",
            _percent(measured),
            "–" if measured.kl is None else f"{_number(measured.kl)} ± {measured.kl_sd:.1g}",
            "–" if measured.flips is None else f"{100 * measured.flips:.1f} %",
            _number(measured.loss),
            _number(plan.loss_increase),
            *(("–" if plan.seconds_per_token is None else f"{plan.seconds_per_token * 1e6:.4g}",) if timed else ()),
            plan.digest[:8],
        )
    Console(width=None if console.is_terminal else WIDE).print(table)
    console.print("• on the front: no measured plan is both smaller and nearer to the original")
    for line in (*_misfits(record), info.notice, _cache(record)):
        if line:
            console.print(line, markup=False)
    if timed and record.config is not None:
        console.print(
            f"CPU µs/token: sum of the layers' products as timed on this machine, one thread, {record.config.latency_tokens} tokens at once; the rest of the model is not in it"
        )


def how_to_load(folder: Path, architecture: str, export_format: str) -> str:
    """Python that loads an exported checkpoint.

    Args:
        folder: Where it is.
        architecture: Name of the model's class.
        export_format: What it was written as.

    Returns:
        One line.

    Example:
        >>> how_to_load(Path("small"), "LlamaForCausalLM", "compressed-tensors")
        "from transformers import AutoModelForCausalLM; model = AutoModelForCausalLM.from_pretrained('small')"
    """
    if export_format == "paredown":
        return f"from paredown.export import native; model = native.load({str(folder)!r})"
    name = next((f"AutoModel{end}" for end in AUTO_CLASSES if architecture.endswith(end)), architecture)
    return f"from transformers import {name}; model = {name}.from_pretrained({str(folder)!r})"


def megabytes(size: int) -> str:
    """A size in words."""
    return f"{size / 1e6:.3g} MB"


@contextmanager
def only_json() -> Iterator[None]:
    """Send what libraries print to standard error meanwhile, from C too (as HiGHS does), so that standard output holds JSON alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        ctypes.CDLL(None).fflush(None)  # C keeps what it printed until its own buffer is written
        os.dup2(kept, 1)
        os.close(kept)


def print_json(value: Any, *, indent: int | None = 1) -> None:
    """Print for a program; numbers that are not finite have no JSON and are a fault of ours."""
    print(json.dumps(value, indent=indent, allow_nan=False), flush=True)


def _front(record: Record) -> set[str]:
    """Digests of the measured plans that no other beats in both bytes and damage: KL, or the loss where the task offers no KL."""
    damage = {digest: m.kl if m.kl is not None else m.loss for digest, m in record.measurements.items()}
    return set(
        measured_front({digest: (record.measurements[digest].bytes, value) for digest, value in damage.items() if value is not None})
    )


def _pairs(record: Record) -> list[tuple[Plan, Measurement]]:
    measured = [(plan, record.measurements[digest]) for digest, plan in record.plans.items() if digest in record.measurements]
    return sorted(measured, key=lambda pair: (-pair[1].bytes, pair[0].found_by))


def _cache(record: Record) -> str:
    """What a token takes in the rounded cache; empty where it was full."""
    cached = {(m.kv_cache_bits, m.kv_cache_bytes) for m in record.measurements.values() if m.kv_cache_bits is not None}
    return "; ".join(f"{size:,.0f} bytes a token in the cache at {bits} bits, scales and zero points included" for bits, size in cached)


def _misfits(record: Record) -> list[str]:
    """Why layers get another scheme than asked, and what methods did about degenerate inputs; each remark once."""
    reasons = Counter(
        f"{candidate.scheme}: {candidate.note}"
        for candidates in record.candidates.values()
        for candidate in candidates.values()
        if candidate.note
    )
    return [f"{reason} ({count} of {len(record.layers)} layers)" for reason, count in sorted(reasons.items())]


def _percent(measured: Measurement) -> str:
    metric = measured.metric
    scale, unit = (100, " %") if metric.name in ("accuracy", "word error rate") else (1, "")
    text = f"{scale * metric.value:.1f}{unit}"
    return text if metric.low is None or metric.high is None else f"{text} ({scale * metric.low:.1f}–{scale * metric.high:.1f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
