"""Pricing every linear layer of the sentiment demo by every family at 4 and 3 bits, as a study does: wall and CPU time, and memory.

Wall time means something on an idle machine only; CPU time over wall time says how much ran at once. ``python benchmarks/pricing.py --help``.
"""

from __future__ import annotations

import os
import resource
import time

import torch

from _rows import options, row, show
from paredown import models, tasks
from paredown.calibration import Captured, capture, passes
from paredown.curvature import probe_objective
from paredown.layers import find_layers, weight_of
from paredown.sensitivity import price
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
    arguments = parser.parse_args()
    loaded = models.load("demo:sentiment")
    task = tasks.load("demo:sentiment", loaded)
    layers = [
        layer for layer in find_layers(loaded.model, dtype=loaded.dtype) if layer.kind != "embedding" and arguments.only in layer.name
    ]
    batches = task.batches("calibration", None)
    units = torch.cat([task.units(batch) for batch in batches])

    def job(layer: LayerRef, seen: Captured):
        return lambda: price(layer, weight_of(loaded.model, layer), seen, units, SCHEMES)

    wall, cpu, capturing, candidates = time.perf_counter(), time.process_time(), 0.0, 0
    for some in passes(layers, tokens_of(batches)):
        before = time.process_time()
        captured = capture(loaded.model, some, batches, probe_objective(loaded.model, task, seed=0))
        capturing += time.process_time() - before
        for priced in side_by_side(job(layer, captured.pop(layer.name)) for layer in some):
            candidates += len(priced) - 1
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    what = f"{len(layers)} layers x {candidates // len(layers)} schemes, {torch.get_num_threads()} threads"
    rows = [
        row(f"{what}: wall time (bar 120 on 2 cores)", wall, "s"),
        row(f"{what}: CPU time", cpu, "s"),
        row(f"{what}: of it the forward and backward passes", capturing, "s"),
        row("CPU time over wall time", cpu / wall, ""),
        row("load average of the machine at the end; above the threads others were at work", os.getloadavg()[0], ""),
        row("peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, "MB"),
    ]
    show("Pricing the sentiment demo", rows, arguments.json)


if __name__ == "__main__":
    main()
