"""The command line: run, status, plans, export, fetch; `report` and `app`, which draw, are added by paredown_widgets."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from paredown.errors import ParedownError
from paredown.record import Record
from paredown.specs import Event, ExportFormat, Measurement, Plan, StudyConfig

app = typer.Typer(
    help="Compress pre-trained transformers: price every layer, search plans at every budget, measure them, export the one you choose.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
console = Console(highlight=False, soft_wrap=True)
WIDE = 130
"""Columns of a table that goes to a file or a pipe, where nothing wraps it."""

StudyFolder = Annotated[Path, typer.Argument(help="Folder of the study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

STAGES = {
    "load": "Load",
    "baseline": "Baseline",
    "sensitivity": "Sensitivity",
    "search": "Search",
    "measure": "Measure plans",
    "export": "Export",
}
MISTAKE, INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> None:
    """Entry point: a user's mistake is a line on standard error and exit code 2; ``--debug`` shows where it came from."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=arguments)
    except ParedownError as error:
        if "--debug" in arguments:
            raise
        print(f"paredown: {error}", file=sys.stderr)
        raise SystemExit(MISTAKE) from error
    except KeyboardInterrupt as error:
        print("paredown: interrupted; everything so far is saved, and the same command goes on from there", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from error


@app.command(epilog="Example: paredown run demo:sentiment --study studies/sentiment")
def run(
    model: Annotated[str, typer.Argument(help="Hub id, local folder, or demo:NAME (sentiment, vision, speech, lm).")] = "demo:sentiment",
    study: Annotated[
        Path | None, typer.Option(help="Folder of the study; goes on where it was if it exists. [default: studies/NAME]")
    ] = None,
    task: Annotated[str | None, typer.Option(help="What good means, demo:NAME. [default: the model's own demo]")] = None,
    schemes: Annotated[
        str, typer.Option(help="Schemes that a layer may get, comma separated, such as int4g64,int8g64,int3g32sym-mse.")
    ] = ",".join(StudyConfig().schemes),
    budgets: Annotated[
        str | None,
        typer.Option(help="Mean bits per weight to search plans at, comma separated. [default: the uniform plans' and some in between]"),
    ] = None,
    calibration: Annotated[int | None, typer.Option(help="Calibration samples. [default: the task's own]")] = None,
    held_out: Annotated[int | None, typer.Option(help="Held-out samples of each measurement. [default: the task's own]")] = None,
    export_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="What will be exported: compressed-tensors (plain transformers loads it), paredown (holds every plan), or auto.",
        ),
    ] = "auto",
    fuse: Annotated[bool, typer.Option(help="Decide layers together that runtimes fuse (q k v, gate up).")] = True,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Price every layer, search plans at every budget and measure them on held-out data."""
    from paredown.study import Study

    folder = study or Path("studies") / model.removeprefix("demo:").replace("/", "--")
    if task is None and not model.startswith("demo:"):
        raise ParedownError(f"{model} needs a task: expected --task demo:NAME; tasks of your own are given from Python, see README.md")
    config = StudyConfig(
        model=model,
        task=task or model,
        schemes=tuple(scheme.strip() for scheme in schemes.split(",")),
        budgets=_numbers(budgets),
        calibration_samples=calibration,
        held_out_samples=held_out,
        export_format="auto" if export_format == "auto" else _format(export_format),
        fuse=fuse,
        seed=seed,
    )
    work = Study(folder, config)
    if as_json:
        _print_json(_rows(work.run()))
        return
    console.print(f"Study {folder}: {model} on {config.task}")
    with Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    ) as progress:
        record = work.run(_Bars(progress))
    if record.state == "cancelled":
        console.print(record.message)
        return
    _print_plans(record)
    console.print(
        f"\nOpen the explorer:  paredown app {folder}    or, in a notebook:  from paredown_widgets import Explorer; Explorer({str(folder)!r})"
    )


@app.command(epilog="Example: paredown status studies/sentiment")
def status(
    study: StudyFolder,
    watch: Annotated[bool, typer.Option(help="Keep printing until the run ends.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what a study is doing, or how it ended."""
    from paredown.study import Study

    opened = Study(study)
    while True:
        record = opened.record()
        state = _state(opened, record)
        if as_json:
            _print_json(
                {
                    "state": state,
                    "stage": record.stage,
                    "done": record.done,
                    "total": record.total,
                    "message": record.message,
                    "plans": len(record.plans),
                    "measured": len(record.measurements),
                }
            )
        else:
            name = record.info.label if record.info else "?"
            console.print(
                f"{name}: {state}, {STAGES[record.stage].lower()} {record.done} of {record.total}; {len(record.measurements)} of {len(record.plans)} plans measured",
                markup=False,
            )
            if record.message:
                console.print(record.message, markup=False)
        if not watch or state != "running":
            return
        time.sleep(1)


@app.command(epilog="Example: paredown plans studies/sentiment --json")
def plans(study: StudyFolder, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the measured plans of a study."""
    from paredown.study import Study

    record = Study(study).record()
    if as_json:
        _print_json(_rows(record))
    else:
        _print_plans(record)


@app.command(epilog="Example: paredown export studies/sentiment --bits 3 --to exports/sentiment-3bit")
def export(
    study: StudyFolder,
    to: Annotated[Path, typer.Option(help="Folder to write the checkpoint to.")],
    plan: Annotated[
        str | None, typer.Option(help="First digits of a measured plan's digest (see `paredown plans`), or a plan's JSON file.")
    ] = None,
    bits: Annotated[
        float | None, typer.Option(help="Instead of --plan: the measured plan with the smallest KL at the bytes of that uniform plan.")
    ] = None,
    export_format: Annotated[
        str | None, typer.Option("--format", help="compressed-tensors, which plain transformers loads, or paredown. [default: the study's]")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a plan as a checkpoint (compressed-tensors, which plain transformers loads), with the plan's JSON beside it."""
    from paredown.export import load_plan
    from paredown.study import Study

    opened = Study(study)
    if plan is not None and plan.endswith(".json"):
        session = opened.session()
        chosen = load_plan(plan, model_digest=session.loaded.digest, layers=session.layers)
    else:
        chosen = opened.choose(plan, bits=bits)
    folder = opened.export(chosen, to, export_format=_format(export_format) if export_format else None)
    written = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if as_json:
        _print_json({"folder": str(folder), "plan": chosen.digest, "bytes": written})
    else:
        console.print(f"Wrote plan {chosen.digest} ({chosen.found_by}) to {folder}: {_megabytes(written)}", markup=False)


@app.command(epilog="Example: paredown fetch sentiment vision")
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Demos to fetch. [default: sentiment]")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Fetch demo models into the user's cache: once, pinned by digest."""
    from paredown import demos

    folders = {name: str(demos.fetch(name.removeprefix("demo:"))) for name in names or ["sentiment"]}
    if as_json:
        _print_json(folders)
    else:
        for name, folder in folders.items():
            console.print(f"{name}: {folder}", markup=False)


class _Bars:
    """One bar a stage, from the run's events."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bars: dict[str, Any] = {}

    def __call__(self, event: Event) -> None:
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
                self.progress.update(bar, note=f"{_percent(value)}, KL {_number(value.kl)}, {_megabytes(value.bytes)}")


def _state(study: Any, record: Record) -> str:
    if record.state in ("running", "paused") and not (study.running or study.busy_elsewhere):
        return "interrupted"
    return record.state


def _pairs(record: Record) -> list[tuple[Plan, Measurement]]:
    measured = [(plan, record.measurements[digest]) for digest, plan in record.plans.items() if digest in record.measurements]
    return sorted(measured, key=lambda pair: (-pair[1].bytes, pair[0].found_by))


def _rows(record: Record) -> list[dict[str, Any]]:
    original = record.info.bytes if record.info else 0
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
            "flips": measured.flips,
            "n": measured.n,
            "split": measured.split,
        }
        for plan, measured in _pairs(record)
    ]


def _print_plans(record: Record) -> None:
    if record.info is None or not record.measurements:
        console.print("Nothing is measured yet.")
        return
    info = record.info
    table = Table(
        title=f"{info.label}, {info.task_label}: held-out, {next(iter(record.measurements.values())).n} samples", title_justify="left"
    )
    for heading, side in (
        ("plan", "left"),
        ("size", "right"),
        ("smaller", "right"),
        (f"{info.metric} (95 %)", "right"),
        ("KL, nats", "right"),
        ("flips", "right"),
        ("loss", "right"),
        ("predicted", "right"),
        ("digest", "left"),
    ):
        table.add_column(heading, justify=side, no_wrap=True)  # pyright: ignore[reportArgumentType]
    for plan, measured in _pairs(record):
        table.add_row(
            plan.found_by,
            _megabytes(measured.bytes),
            f"{info.bytes / measured.bytes:.1f}x",
            _percent(measured),
            "–" if measured.kl is None else f"{_number(measured.kl)} ± {measured.kl_sd:.1g}",
            "–" if measured.flips is None else f"{100 * measured.flips:.1f} %",
            _number(measured.loss),
            _number(plan.loss_increase),
            plan.digest[:8],
        )
    Console(width=None if console.is_terminal else WIDE).print(table)
    if info.notice:
        console.print(info.notice, markup=False)


def _percent(measured: Measurement) -> str:
    metric = measured.metric
    scale, unit = (100, " %") if metric.name in ("accuracy", "word error rate") else (1, "")
    text = f"{scale * metric.value:.1f}{unit}"
    return text if metric.low is None or metric.high is None else f"{text} ({scale * metric.low:.1f}–{scale * metric.high:.1f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"


def _format(text: str) -> ExportFormat:
    if text not in get_args(ExportFormat):
        raise ParedownError(f"--format must be one of {', '.join(get_args(ExportFormat))}, got {text!r}")
    return text  # pyright: ignore[reportReturnType]  (just checked)


def _numbers(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ParedownError(f"expected numbers with commas between them, such as 2.5,3,4, got {text!r}") from error


def _print_json(value: Iterable[Any] | dict[str, Any]) -> None:
    print(json.dumps(value, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()
