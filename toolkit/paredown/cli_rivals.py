"""`paredown compare` and `paredown agreement`: the allocators of the literature side by side on one study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from paredown.cli_output import WIDE, console, megabytes, only_json, print_json
from paredown.specs import Scheme

if TYPE_CHECKING:
    import pandas as pd

COMPARE_EXAMPLE = "Example: paredown compare studies/sentiment --bits 4"
AGREEMENT_EXAMPLE = "Example: paredown agreement studies/sentiment --scheme int4g64sym"

_Study = Annotated[Path, typer.Argument(help="Folder of the study.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def compare(
    study: _Study,
    bits: Annotated[float, typer.Option(help="At the bytes of the uniform plan of so many bits.")] = 4.0,
    as_json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Show what each allocator of the literature would choose; `paredown run --scores all` gives them the scores that they sum."""
    from paredown.study import Study

    with only_json():
        rows = _plain(Study(study).classics(bits=bits).reset_index())
    if as_json:
        print_json([{**row, "bytes": row["bytes"] and int(row["bytes"]), "schemes": _named(row["schemes"])} for row in rows])
        return
    table = Table(title=f"Plans at the bytes of uniform {bits:g} bits", title_justify="left")
    for heading in ("", "sums", "size", "predicted", "KL, held out", "plan"):
        table.add_column(heading, justify="right" if heading in ("size", "predicted", "KL, held out") else "left", no_wrap=True)
    for row in rows:
        if not row["refused"]:
            size, predicted = megabytes(int(row["bytes"])), f"{row['loss_increase']:.3g}"
            kl = "not measured" if row["kl"] is None else f"{row['kl']:.3g}"
            table.add_row(row["name"], row["formula"], size, predicted, kl, row["plan"][:8])
    Console(width=None if console.is_terminal else WIDE).print(table)
    for row in rows:
        if row["refused"]:
            console.print(f"{row['name']}: {row['refused']}", markup=False)


def agreement(
    study: _Study,
    scheme: Annotated[str | None, typer.Option(help="Rank the layers at this scheme. [default: all layers under all schemes]")] = None,
    as_json: _Json = False,
    debug: _Debug = False,
) -> None:
    """Show how alike the scores that a study knows rank its choices: Spearman's correlation with 95 % intervals."""
    from paredown.study import Study

    with only_json():
        found = Study(study).agreement(scheme=None if scheme is None else Scheme.parse(scheme))
    if as_json:
        print_json(_plain(found))
        return
    table = Table(title=f"Rank agreement over {int(found.n.iloc[0])} choices", title_justify="left")
    for heading in ("", "with", "Spearman (95 %)"):
        table.add_column(heading, no_wrap=True)
    for row in _plain(found):
        known = None not in (row["spearman"], row["low"], row["high"])
        table.add_row(row["first"], row["second"], f"{row['spearman']:.3f} ({row['low']:.3f} to {row['high']:.3f})" if known else "–")
    Console(width=None if console.is_terminal else WIDE).print(table)


def _plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows without NaN, which JSON has none of."""
    return [{str(name): None if value != value else value for name, value in row.items()} for row in table.to_dict("records")]


def _named(schemes: dict[str, Scheme] | None) -> dict[str, str] | None:
    return None if schemes is None else {name: str(scheme) for name, scheme in schemes.items()}
