"""How long a person waits: from a plan edit to new predicted figures, for a new budget, and from the command to the first spectrum and point.

Each figure is the median over interleaved rounds; the rival of an edit is what a tool without a prediction has to do, measure the plan
anew. ``python benchmarks/interaction.py --study studies/sentiment`` takes a finished study and spares the run.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from _rows import Row, options, row, show
from paredown.record import Record
from paredown.search import allocate, pareto_front
from paredown.specs import Measurement, SpectralDensity
from paredown.store import Store
from paredown.study import Study
from paredown_widgets import Explorer
from paredown_widgets.figures import spectrum
from paredown_widgets.handlers import handle
from paredown_widgets.snapshot import snapshot

ROUNDS = 20


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--study", type=Path, help="a finished study of demo:sentiment, in place of a new run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [] if arguments.study else first_sights(Path(folder) / "study")
        study = Study(arguments.study or Path(folder) / "study")
        rows += waits(study)
    show(
        "What a person waits for on demo:sentiment, one thread, CPU time (wall time for the first spectrum and point)", rows, arguments.json
    )


def first_sights(folder: Path) -> list[Row]:
    """Seconds from the command's start to the first spectrum, to every layer's, and to the first measured point in the store."""
    command = [sys.executable, "-m", "paredown.cli", "run", "demo:sentiment", "--study", str(folder), "--json"]
    subprocess.run([sys.executable, "-m", "paredown.cli", "fetch", "sentiment"], check=True, stdout=subprocess.DEVNULL)
    started = time.time()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        process.wait()
    events = Store(folder).events(kinds=["measurement"])
    assert any(isinstance(value, Measurement) for event in events for value in event.payload)
    spectra: dict[str, float] = {}  # layer to the time of its first spectrum
    for event in Store(folder).events(kinds=["curvature"]):
        spectra |= {value.layer: event.time for value in event.payload if isinstance(value, SpectralDensity) and value.layer not in spectra}
    return [
        row("command to the first spectrum, model in the cache", min(spectra.values()) - started, "s"),
        row("command to the spectra of all layers", max(spectra.values()) - started, "s"),
        row("command to the first point", events[0].time - started, "s"),
    ]


def waits(study: Study) -> list[Row]:
    problem = study.problem()
    assert problem is not None
    record = study.record()
    budgets = [
        problem.smallest_bytes + (problem.largest_bytes - problem.smallest_bytes) * step // (ROUNDS + 1) for step in range(1, ROUNDS + 1)
    ]
    front = pareto_front(problem)
    explorer = Explorer(study)
    model = explorer.model
    layer = record.layers[5].name
    session = study.session()
    session.original()
    plans = [plan for plan in record.plans.values() if plan.schemes][:3]

    def edit(index: int) -> None:
        handle(model, {"type": "bits", "layers": [layer], "bits": (3, 4)[index % 2]})
        snapshot(model)

    def spectrum_view(index: int, mode: str = "selected") -> None:
        model.spectrum_mode, model.selection = mode, [record.layers[index].name]
        spectrum.view(model)
        model.spectrum_mode = "selected"

    jobs: dict[str, Callable[[int], object]] = {
        "edit": edit,
        "solve": lambda index: allocate(problem, budgets[index]),
        "look up": lambda index: front.schemes(front.within(budgets[index]) or 0),
        "front": lambda index: pareto_front(problem),
        "spectrum": lambda index: spectrum_view(index),
        "ridges": lambda index: spectrum_view(index, "all"),
        "fold": lambda index: Record().update(study.store.events()),
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for index in range(ROUNDS):
        for name, job in jobs.items():
            times[name].append(spent(job, index))
    measured = statistics.median(spent(lambda index: session.measure(plans[index]), index) for index in range(len(plans)))
    median = {name: 1000 * statistics.median(values) for name, values in times.items()}
    return [
        row("plan edit to all panels' new figures vs measuring the plan", median["edit"], "ms", 1000 * measured),
        row("re-solve one budget, integer program", median["solve"], "ms"),
        row("re-solve one budget, from the front vs the integer program", median["look up"], "ms", median["solve"]),
        row("the whole additive front", median["front"], "ms"),
        row("another layer's spectral density", median["spectrum"], "ms"),
        row("ridges of all layers", median["ridges"], "ms"),
        row("open a finished study (fold its events)", median["fold"], "ms"),
    ]


def spent(job: Callable[[int], object], index: int) -> float:
    started = time.process_time()
    job(index)
    return time.process_time() - started


if __name__ == "__main__":
    main()
