"""Every linear layer of the sentiment demo by every family at 4 and 3 bits, compressed, and priced as a study does: time and memory.

Wall time means something on an idle machine only; CPU time over wall time says how much ran at once. ``python benchmarks/pricing.py --help``.
"""

from __future__ import annotations

import functools
import os
import resource
import time

import torch

from _rows import options, row, show
from paredown import models, tasks
from paredown.calibration import Captured, capture, passes
from paredown.curvature import probe_objective
from paredown.layers import find_layers, weight_of
from paredown.methods import compress
from paredown.sensitivity import price, statistics_of
from paredown.sizes import fit
from paredown.specs import LayerRef, Scheme
from paredown.study.session import tokens_of
from paredown.study.side_by_side import side_by_side

AT_EACH_WIDTH = [
    *("int{}g64", "int{}g64-mse", "int{}g64-hqq", "int{}g64-signround", "int{}g64-gptq", "int{}n128", "nf{}g64"),
    *("int{}g64a8", "int{}g64a8static", "int{}g64+svd16", "int{}g64+eora16", "nf{}g64+lq16", "int{}g64-gptq+2:4"),
    *("int{}g64+2:4", "int{}g64+2:4-wanda", "int{}g64+2:4-fisher", "int{}g64+2:4-mfac", "int{}g64+2:4-kfac"),
]
NAMES = ["mxfp4", "nvfp4", "int4g64sym-sawb", *(name.format(bits) for bits in (4, 3) for name in AT_EACH_WIDTH)]
SCHEMES = [Scheme.parse(name) for name in NAMES]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="only layers with this in their name, such as layer.2")
    parser.add_argument("--work", default="compress,price", help="what to do with them; one of the two, or both")
    arguments = parser.parse_args()
    loaded = models.load("demo:sentiment")
    task = tasks.load("demo:sentiment", loaded)
    layers = [
        layer for layer in find_layers(loaded.model, dtype=loaded.dtype) if layer.kind != "embedding" and arguments.only in layer.name
    ]
    batches = task.batches("calibration", None)
    units = torch.cat([task.units(batch) for batch in batches])

    def compressed(layer: LayerRef, seen: Captured) -> int:
        weight, statistics = weight_of(loaded.model, layer), statistics_of(seen)
        applied = sorted({fit(scheme, layer)[0] for scheme in SCHEMES}, key=lambda scheme: (scheme.criterion, str(scheme.sparsity)))
        return len([compress(weight, scheme, statistics) for scheme in applied])

    def priced(layer: LayerRef, seen: Captured) -> int:
        return len(price(layer, weight_of(loaded.model, layer), seen, units, SCHEMES)) - 1

    rows = []
    for name in arguments.work.split(","):
        work = {"compress": compressed, "price": priced}[name]
        wall, cpu, capturing, made = time.perf_counter(), time.process_time(), 0.0, 0
        for some in passes(layers, tokens_of(batches)):
            before = time.process_time()
            captured = capture(loaded.model, some, batches, probe_objective(loaded.model, task, seed=0))
            capturing += time.process_time() - before
            made += sum(side_by_side(functools.partial(work, layer, captured.pop(layer.name)) for layer in some))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        what = f"{name}: {len(layers)} layers x {made / len(layers):.0f} schemes, {torch.get_num_threads()} threads"
        rows += [
            row(f"{what}: wall time" + (" (bar 120 on 2 cores)" if name == "compress" else ""), wall, "s"),
            row(f"{what}: CPU time", cpu, "s"),
            row(f"{what}: of it the forward and backward passes", capturing, "s"),
            row(f"{what}: CPU time over wall time", cpu / wall, ""),
        ]
    rows += [
        row("load average of the machine at the end; above the threads others were at work", os.getloadavg()[0], ""),
        row("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, "MB"),
    ]
    show("Every family on the sentiment demo", rows, arguments.json)


if __name__ == "__main__":
    main()
