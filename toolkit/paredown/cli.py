"""The command line: run, status, plans, curvature, compare, agreement, export, fetch, shrink, kernels; `report` and `app`, which draw, are added by paredown_widgets."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from paredown.cli_curvature import curvature_rows, matching, print_curvature
from paredown.cli_kernels import EXAMPLE as KERNELS_EXAMPLE
from paredown.cli_kernels import kernels
from paredown.cli_output import STAGES, Bars, console, how_to_load, megabytes, only_json, print_json, print_plans, rows
from paredown.cli_rivals import AGREEMENT_EXAMPLE, COMPARE_EXAMPLE, agreement, compare
from paredown.cli_shrink import EXAMPLE, shrink
from paredown.errors import ParedownError
from paredown.record import Record
from paredown.specs import GRAMMAR, CurvatureRequest, ExportFormat, Score, StudyConfig
from paredown.store import Store

app = typer.Typer(
    help="Compress pre-trained transformers: price every layer, search plans at every budget, measure them, export the one you choose.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

StudyFolder = Annotated[Path, typer.Argument(help="Folder of the study.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

MISTAKE, INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> None:
    """Entry point: a user's mistake is a line on standard error and exit code 2; ``--debug`` shows where it came from.

    Raises:
        SystemExit: Always; 0 where all went well, 2 for a user's mistake, 130 after an interrupt (Ctrl C).
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app(args=arguments, prog_name="paredown")
    except ParedownError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        print(f"paredown: {error}", file=sys.stderr)
        raise SystemExit(MISTAKE) from error
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of an interrupt
            print("paredown: interrupted; what was written is kept, and the same command goes on from there", file=sys.stderr)
        raise


@app.command(epilog="Example: paredown run demo:sentiment --study studies/sentiment")
def run(
    model: Annotated[str, typer.Argument(help="Hub id, local folder, or demo:NAME (sentiment, vision, speech, lm).")] = "demo:sentiment",
    study: Annotated[
        Path | None, typer.Option(help="Folder of the study; goes on where it was if it exists. [default: studies/NAME]")
    ] = None,
    task: Annotated[str | None, typer.Option(help="What good means, demo:NAME. [default: the model's own demo]")] = None,
    schemes: Annotated[
        str | None,
        typer.Option(
            help=f"Schemes that a layer may get, comma separated, such as int4g64sym,int4g64-gptq+2:4,nf3g64+eora32: {GRAMMAR}. [default: 2 to 8 bits, groups of 64]"
        ),
    ] = None,
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
    scaling: Annotated[
        str | None,
        typer.Option(
            help="Scale the layers' inputs, folded into what makes them: awq, or smoothquant where inputs are rounded too. [default: not]"
        ),
    ] = None,
    hessian_seconds: Annotated[float, typer.Option(help="Time for the true Hessian at the end; 0 leaves it out.")] = 60.0,
    kv_cache_bits: Annotated[
        int | None, typer.Option(help="Measure plans of a decoder with keys and values cached at 8 or 4 bits. [default: in full]")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(help="What plans are measured in: float32 is exact; bfloat16, and int8 on our kernels, are faster and approximate."),
    ] = "float32",
    latency_tokens: Annotated[
        int | None,
        typer.Option(
            help="Time every layer under every scheme on this machine with so many tokens at once, and search at latencies too. [default: not]"
        ),
    ] = None,
    refine: Annotated[
        int, typer.Option(help="Plans that measured refinement may try on the search split, beyond those it begins with; 0 leaves it out.")
    ] = 0,
    refine_by: Annotated[str, typer.Option(help="What refinement lowers: kl, the task's loss, or its metric.")] = "kl",
    scores: Annotated[
        str | None,
        typer.Option(
            help=f"Score candidates as other allocators do besides, comma separated: {', '.join(get_args(Score))}; or all. [default: none]"
        ),
    ] = None,
    interactions: Annotated[
        int,
        typer.Option(help="Plans that may be run on the search split for what pairs of layers lose together; 0 leaves it out."),
    ] = 0,
    interaction_scheme: Annotated[
        str | None, typer.Option(help="What the layers of a pair get. [default: the width nearest to 4 bits]")
    ] = None,
    search: Annotated[int | None, typer.Option(help="Samples of the search split. [default: as many as are held out]")] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            help="Measure plans in so many processes, such as 2; or ray, ray:2 for a local Ray; or ray://HOST:PORT, ray://HOST:PORT/8 for a Ray cluster. [default: in this process]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Price every layer, search plans at every budget and measure them on held-out data."""
    from paredown.study import Study

    model, name = _model(model)
    folder = study or Path("studies") / name
    config = StudyConfig(
        model=model,
        task=_task(task, model),
        schemes=None if schemes is None else tuple(scheme.strip() for scheme in schemes.split(",")),
        budgets=_numbers(budgets),
        calibration_samples=calibration,
        held_out_samples=held_out,
        export_format=export_format,  # pyright: ignore[reportArgumentType]  (checked there)
        fuse=fuse,
        scaling=scaling,  # pyright: ignore[reportArgumentType]  (checked there)
        hessian_seconds=hessian_seconds,
        precision=precision,  # pyright: ignore[reportArgumentType]  (checked there)
        latency_tokens=latency_tokens,
        refine_plans=refine,
        refine_objective=refine_by,  # pyright: ignore[reportArgumentType]  (checked there)
        search_samples=search,
        scores=_scores(scores),
        interactions=interactions,
        interaction_scheme=interaction_scheme,
        kv_cache_bits=kv_cache_bits,  # pyright: ignore[reportArgumentType]  (checked there)
        seed=seed,
    )
    work = Study(folder, config)
    if as_json:
        with only_json():
            record = work.run(workers=workers)
        print_json(rows(record))
        return
    console.print(f"Study {folder}: {model} on {config.task}", markup=False)
    with _progress() as progress:
        record = work.run(Bars(progress), workers=workers)
    if record.state == "cancelled":
        console.print(record.message, markup=False)
        return
    print_plans(record)
    console.print(
        f"\nOpen the explorer:  paredown app {folder}    or, in a notebook:  from paredown_widgets import Explorer; Explorer({str(folder)!r})",
        markup=False,
    )


@app.command(epilog="Example: paredown status studies/sentiment")
def status(
    study: StudyFolder,
    watch: Annotated[bool, typer.Option(help="Keep printing until the run ends.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what a study is doing, or how it ended."""
    while True:
        record = _read(study)
        at_work = Store(study).busy
        state = "interrupted" if record.state in ("running", "paused") and not at_work else record.state
        if as_json:
            print_json(
                {
                    "state": state,
                    "stage": record.stage,
                    "done": record.done,
                    "total": record.total,
                    "message": record.message,
                    "plans": len(record.plans),
                    "measured": len(record.measurements),
                },
                indent=None if watch else 1,
            )
        else:
            name = record.info.label if record.info else "?"
            console.print(
                f"{name}: {state}, {STAGES[record.stage].lower()} {record.done} of {record.total}; {len(record.measurements)} of {len(record.plans)} plans measured",
                markup=False,
            )
            if record.message not in ("", state):
                console.print(record.message, markup=False)
            for words in _remarks(record):
                console.print(words, markup=False)
        if not watch or not at_work:
            return
        time.sleep(1)


@app.command(epilog="Example: paredown plans studies/sentiment --json")
def plans(study: StudyFolder, as_json: AsJson = False, debug: Debug = False) -> None:
    """List the measured plans of a study."""
    record = _read(study)
    if as_json:
        print_json(rows(record))
    else:
        print_plans(record)


@app.command(epilog="Example: paredown curvature studies/sentiment --layers '*query' --seconds 60")
def curvature(
    study: StudyFolder,
    layers: Annotated[str | None, typer.Option(help="Layers whose name the pattern matches, such as '*query'. [default: all]")] = None,
    quantities: Annotated[
        str | None, typer.Option(help="Estimate these, comma separated: trace, eigenvalues, density, fit. [default: all of them]")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Estimate from so many calibration samples. [default: as many as the time allows]")
    ] = None,
    relative_error: Annotated[float | None, typer.Option(help="Estimate traces to that relative standard error. [default: 0.05]")] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Estimate for so long, then show what is there. [default: until it is done]")
    ] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show what is known of the layers' curvature. Given what to estimate, or how well, or for how long, estimate the Hessian first."""
    asked = {
        "quantities": None if quantities is None else tuple(part.strip() for part in quantities.split(",")),
        "samples": samples,
        "relative_error": relative_error,
        "seconds": seconds,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    record = _read(study)
    if asked:
        CurvatureRequest(**asked)  # pyright: ignore[reportArgumentType]  (a mistake is said before anything is loaded)
        record = _estimated(study, layers, asked, as_json)
    chosen = matching(record, layers)
    if as_json:
        print_json(curvature_rows(record, chosen))
    else:
        print_curvature(record, chosen)


app.command(epilog=COMPARE_EXAMPLE)(compare)
app.command(epilog=AGREEMENT_EXAMPLE)(agreement)


@app.command(epilog="Example: paredown export studies/sentiment --bits 3 --to sentiment-3bit")
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
    from paredown.export import load_plan, native
    from paredown.study import Study

    asked_format = _format(export_format) if export_format else None
    opened = Study(study)
    if plan is not None and plan.endswith(".json") and bits is None:
        chosen = load_plan(plan, model_digest=opened.loaded().digest)
    else:
        chosen = opened.choose(plan, bits=bits)
    folder = opened.export(chosen, to, export_format=asked_format)
    chosen_format = "paredown" if (folder / native.WEIGHTS).exists() else "compressed-tensors"
    written = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if as_json:
        print_json({"folder": str(folder), "plan": chosen.digest, "bytes": written, "format": chosen_format})
    else:
        console.print(f"Wrote plan {chosen.digest} ({chosen.found_by}) to {folder}: {megabytes(written)}", markup=False)
        console.print(f"Load it:  {how_to_load(folder, type(opened.loaded().model).__name__, chosen_format)}", markup=False)


@app.command(epilog="Example: paredown fetch sentiment vision")
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Demos to fetch. [default: sentiment]")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Fetch demo models into the user's cache: once, pinned by digest."""
    from paredown import demos

    found = {name: demos.find(name) for name in names or ["sentiment"]}  # a mistyped name before anything is downloaded

    def say(words: str) -> None:
        if not as_json:
            console.print(words, markup=False)

    folders = {name: str(demos.fetch(demo.name, progress=say)) for name, demo in found.items()}
    if as_json:
        print_json(folders)
    else:
        for name, folder in folders.items():
            console.print(f"{name}: {folder}", markup=False)


app.command(epilog=EXAMPLE)(shrink)
app.command(epilog=KERNELS_EXAMPLE)(kernels)


def _model(name: str) -> tuple[str, str]:
    """The model as a study keeps it, readable from any folder, and a short name."""
    from paredown import demos

    if name.startswith("demo:"):
        return name, demos.find(name).name
    folder = Path(name).expanduser()
    return (str(folder.resolve()), folder.resolve().name) if name and folder.is_dir() else (name, name.replace("/", "--"))


def _task(name: str | None, model: str) -> str:
    from paredown import demos

    known = [f"demo:{demo}" for demo in demos.names]
    if name is None and model in known:
        return model
    if name not in known:
        raise ParedownError(
            f"expected --task {' or '.join(known)}, got {name or 'none'} for {model}; tasks of your own are given from Python, see README.md"
        )
    return name


def _read(study: Path) -> Record:
    """A study's record, without loading torch."""
    record = Record()
    record.update(Store(study).events())
    if record.config is None:
        raise ParedownError(f"the study in {study} was never started; start it with `paredown run --study {study}`")
    return record


def _remarks(record: Record) -> list[str]:
    """What was noted when the model was loaded, such as where its scales are folded."""
    return [event.message for event in record.log if event.kind == "notice" and event.stage == "load"]


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )


def _estimated(folder: Path, pattern: str | None, asked: dict[str, Any], as_json: bool) -> Record:
    """The record after the study has estimated what was asked."""
    from paredown.study import Study

    names = matching(_read(folder), pattern) if pattern is not None else ()
    opened, request = Study(folder), CurvatureRequest(layers=tuple(names), **asked)
    if as_json:
        with only_json():
            opened.estimate(request).wait()
    else:
        with _progress() as progress:
            opened.estimate(request, Bars(progress)).wait()
    return opened.record()


def _format(text: str) -> ExportFormat:
    if text not in get_args(ExportFormat):
        raise ParedownError(f"--format must be one of {', '.join(get_args(ExportFormat))}, got {text!r}")
    return text  # pyright: ignore[reportReturnType]  (just checked)


def _scores(text: str | None) -> tuple[Score, ...]:
    if text == "all":
        return get_args(Score)
    return tuple(part.strip() for part in text.split(",")) if text else ()  # pyright: ignore[reportReturnType]  (checked by StudyConfig)


def _numbers(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ParedownError(f"expected numbers with commas between them, such as 2.5,3,4, got {text!r}") from error


if __name__ == "__main__":
    main()
