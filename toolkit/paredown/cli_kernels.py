"""`paredown kernels`: which backend serves each scheme on this machine, how fast, and why others were passed over."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from paredown.cli_output import WIDE, console, only_json, print_json
from paredown.errors import ParedownError

if TYPE_CHECKING:
    from paredown.kernels.speed import Speed

EXAMPLE = "Example: paredown kernels --schemes int4g128,int8g64a8+2:4 --shape 3072x768"
SCHEMES = "int2g128a8,int3g128a8,int4g128a8,int8g128a8,int4g128,nf4g64,int8g128a8+2:4,int8g128a8+80%,50%"


def kernels(
    schemes: Annotated[str, typer.Option(help="Comma separated.")] = SCHEMES,
    shape: Annotated[str, typer.Option(help="Of the weight, outputs x inputs.")] = "3072x768",
    tokens: Annotated[str, typer.Option(help="Inputs at once, comma separated.")] = "1,16,128",
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; the smallest time counts.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Measure, with one thread, what multiplies with a weight of each scheme: times torch's bfloat16 product. Takes a minute."""
    import torch

    from paredown.kernels.cpu.library import load
    from paredown.kernels.gpu.backends import without_device, without_triton
    from paredown.kernels.speed import measure

    out, _, inputs = shape.partition("x")
    counts = [int(count) if count.isdigit() else 0 for count in tokens.split(",")]
    if not (out.isdigit() and inputs.isdigit() and int(out) and int(inputs) and all(counts)):
        raise ParedownError(f"expected a shape such as 3072x768 and tokens such as 1,16,128, got {shape!r} and {tokens!r}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with only_json() if as_json else nullcontext():
            found = [speed for scheme in schemes.split(",") for speed in measure(scheme, (int(out), int(inputs)), counts, rounds=rounds)]
    finally:
        torch.set_num_threads(threads)
    library, reason = load()
    no_gpu = "; ".join(why for why in (without_triton(), without_device()) if why)
    if as_json:
        return print_json(
            {
                "isa": library.isa().name if library else None,
                "reason": reason,
                "no_gpu_kernels": no_gpu,
                "shape": [int(out), int(inputs)],
                "rows": [
                    {"scheme": s.scheme, "backend": s.backend, "how": s.how, "bits": s.bits, "chosen": s.chosen, "ratios": dict(s.ratios)}
                    for s in found
                ],
            }
        )
    own = (
        f"our kernels: {library.isa().name}, of {', '.join(isa.name for isa in library.isas if isa.supported)}"
        if library
        else "our kernels: none"
    )
    console.print(f"{own}{f'; {reason}' if reason else ''}", markup=False)
    console.print(f"GPU kernels: {no_gpu or 'there is a device for them; benchmarks/gpu_kernels.py measures them'}", markup=False)
    Console(width=None if console.is_terminal else WIDE).print(_table(found, counts, shape))
    console.print("• chosen; figures are times the speed of torch's bfloat16 product, one thread, CPU time")
    return None


def _table(found: list[Speed], counts: list[int], shape: str) -> Table:
    table = Table(title=f"Products with a weight of {shape}", title_justify="left")
    for heading in ("", "scheme", "backend"):
        table.add_column(heading, no_wrap=True)
    for heading in ("bits", *(f"M={count}" for count in counts)):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("how, or why not")
    last = ""
    for speed in found:
        figures = (
            "–" if speed.bits is None else f"{speed.bits:.2f}",
            *(f"{speed.ratios[n]:.2f}" if n in speed.ratios else "–" for n in counts),
        )
        table.add_row("•" if speed.chosen else "", "" if speed.scheme == last else speed.scheme, speed.backend, *figures, speed.how)
        last = speed.scheme
    return table
