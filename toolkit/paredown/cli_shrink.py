"""`paredown shrink`: what a model loses, and what it weighs and does before and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from paredown.cli_output import WIDE, console, megabytes, only_json, print_json
from paredown.errors import ParedownError

if TYPE_CHECKING:
    from paredown.structure import Figures, Shrunk, Step

EXAMPLE = "Example: paredown shrink demo:sentiment --to small --mlp 0.75"


def shrink(
    model: Annotated[str, typer.Argument(help="Hub id, local folder, or demo:NAME (sentiment, vision, speech, lm).")],
    to: Annotated[Path, typer.Option(help="Folder to write the smaller model to.")],
    drop_blocks: Annotated[int, typer.Option(help="Blocks to drop, those that change the hidden states least.")] = 0,
    modegpt: Annotated[
        float | None, typer.Option(help="Share of the blocks' parameters to keep, such as 0.8, allotted by how much each block matters.")
    ] = None,
    mlp: Annotated[float, typer.Option(help="Share of MLP channels to keep in every block.")] = 1.0,
    heads: Annotated[float, typer.Option(help="Share of heads to keep in every attention; with grouped queries whole groups.")] = 1.0,
    qk: Annotated[float, typer.Option(help="Share of query and key dimensions to keep in every head.")] = 1.0,
    vo: Annotated[float, typer.Option(help="Share of the values' rank to keep in every head.")] = 1.0,
    greedy: Annotated[
        bool, typer.Option(help="Try to remove attentions, MLPs, heads, channels one by one; keep what the loss allows.")
    ] = False,
    threshold: Annotated[float, typer.Option(help="With --greedy: how much the loss may rise on the search data, nats per unit.")] = 0.01,
    compensate: Annotated[bool, typer.Option(help="Refit what is left when channels or heads go.")] = True,
    task: Annotated[str | None, typer.Option(help="What good means, demo:NAME. [default: the model's own demo]")] = None,
    calibration: Annotated[int | None, typer.Option(help="Calibration samples, also searched on. [default: the task's own]")] = None,
    held_out: Annotated[int | None, typer.Option(help="Held-out samples of the figures. [default: the task's own]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Take heads, channels, ranks or whole blocks out of a model; what is left is a dense model, smaller for any runtime.

    Removals come in the order of the options. The least important pieces go, by calibration data; the figures are of held-out data, too.
    """
    from paredown import demos, models, structure, tasks

    fractions = structure.Fractions(mlp=mlp, heads=heads, qk=qk, vo=vo)
    known = [f"demo:{demo}" for demo in demos.names]
    name = task or model
    if name not in known:
        raise ParedownError(
            f"expected --task {' or '.join(known)}, got {task or 'none'} for {model}; tasks of your own are given from Python, see paredown.structure"
        )
    if not drop_blocks and modegpt is None and fractions == structure.Fractions() and not greedy:
        raise ParedownError("expected something to remove: --drop-blocks, --modegpt, --mlp, --heads, --qk or --vo below 1, or --greedy")

    def work() -> Shrunk:
        loaded = models.load(model)
        made = structure.shrink(
            loaded,
            tasks.load(name, loaded),
            drop_blocks=drop_blocks,
            modegpt=modegpt,
            fractions=fractions,
            threshold=threshold if greedy else None,
            compensate=compensate,
            calibration=calibration,
            held_out=held_out,
            on_step=lambda step: None if as_json else console.print(_step(step), markup=False),
        )
        made.save(to)
        return made

    if as_json:
        with only_json():
            made = work()
        print_json({"folder": str(to), **made.report()})
    else:
        print_shrunk(work(), to)


def print_shrunk(made: Shrunk, folder: Path) -> None:
    """What was removed, the table, and how to load the result."""
    for line in made.removed:
        console.print(line, markup=False)
    table = Table(title=f"{made.loaded.label}: before and after", title_justify="left")
    for heading in ("", "before", "after", ""):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    before, after = _figures(made.before), _figures(made.after)
    for name in before:
        table.add_row(name, before[name], after[name], _ratio(made, name))
    Console(width=None if console.is_terminal else WIDE).print(table)
    loader = f"{type(made.loaded.model).__name__}.from_pretrained" if made.plain else "paredown.models.load"
    reason = "" if made.plain else "; its config can't say these shapes, so that plain transformers refuses the folder"
    console.print(f"Wrote {folder}; load it with {loader}({str(folder)!r}){reason}", markup=False)


def _figures(figures: Figures) -> dict[str, str]:
    metric = figures.metric
    scale, unit = (100, " %") if metric.name in ("accuracy", "word error rate") else (1, "")
    return {
        "parameters": f"{figures.parameters:,}",
        "size": megabytes(figures.bytes),
        "loss, search data": _number(figures.search_loss),
        "KL, search data": _number(figures.search_kl),
        "loss, held-out": _number(figures.loss),
        "KL, held-out": _number(figures.kl) + ("" if not figures.kl_sd else f" ± {figures.kl_sd:.1g}"),
        "flips, held-out": "–" if figures.flips is None else f"{100 * figures.flips:.1f} %",
        f"{metric.name}, held-out": f"{scale * metric.value:.1f}{unit}",
    }


def _ratio(made: Shrunk, name: str) -> str:
    pairs: dict[str, Any] = {
        "parameters": (made.after.parameters, made.before.parameters),
        "size": (made.after.bytes, made.before.bytes),
    }
    return f"{pairs[name][0] / pairs[name][1]:.0%}" if name in pairs else ""


def _step(step: Step) -> str:
    if step.loss is None:
        return f"left   {step.piece}: {step.note}"
    return f"{'gone  ' if step.accepted else 'kept  '} {step.piece}, {step.lost}: loss {step.loss:.4f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
