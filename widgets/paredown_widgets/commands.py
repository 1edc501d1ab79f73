"""The console script: the toolkit's commands, and those that draw, `report` and `app`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from paredown.cli import AsJson, Debug, StudyFolder, app
from paredown.cli import main as run_commands
from paredown.cli_output import console, megabytes, print_json

__all__ = ["main"]


@app.command(epilog="Example: paredown report studies/sentiment --to report.html")
def report(
    study: StudyFolder,
    to: Annotated[Path | None, typer.Option(help="File to write. [default: report.html in the study's folder]")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write a study as one HTML file with interactive plots; it opens from disk and needs no network."""
    from paredown_widgets.report import write_report

    path = write_report(study, to or study / "report.html")
    if as_json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
    else:
        console.print(f"Wrote {path} ({megabytes(path.stat().st_size)})", markup=False)


@app.command(name="app", epilog="Example: paredown app studies/sentiment")
def serve_app(
    studies: Annotated[list[Path], typer.Argument(help="Folders of the studies to show.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 picks a free one.")] = 5006,
    show: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
    debug: Debug = False,
) -> None:
    """Serve the explorer on this machine with Panel; stop it with Ctrl C."""
    from paredown_widgets.app import serve

    serve(studies, port=port, show=show)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``paredown``."""
    run_commands(arguments)
