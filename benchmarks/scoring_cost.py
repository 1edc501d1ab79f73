"""CPU time of scoring all linear layers at 2, 3, 4 and 8 bits: ours against AutoRound's AutoScheme and ModelOpt's `auto_quantize`.

The same model, tokens and formats (groups of 64 with zero points), one thread. Ours is the calibration's passes and the pricing, with its
deviations and the errors of outputs; theirs is what `_search_rivals.Costs` says. All get the same batches; ours cuts them into shorter ones,
so that it computes with less padding, which is in its time. Ours prices embeddings too, which the rivals leave out: that is a row without rival. The bars: at most 1.0 of AutoScheme's time (a ratio of 1) and 0.5 of ModelOpt's (a ratio of 2).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from _method_rivals import MissingRivalError
from _rows import Row, options, row, show
from _search_rivals import BITS, DRIVERS, allocations
from paredown import models, tasks
from paredown.calibration import capture, passes, token_mask
from paredown.curvature import probe_objective
from paredown.evaluation.pieces import shortened
from paredown.layers import find_layers, weight_of
from paredown.models import LoadedModel
from paredown.sensitivity import price
from paredown.specs import LayerRef, Scheme
from paredown.study.session import tokens_of
from paredown.tasks import Batch, Task

SAMPLES = {"sentiment": 128, "lm": 4, "vision": 32}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--demos", default=",".join(SAMPLES))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [each for demo in arguments.demos.split(",") for each in of_demo(demo, arguments.rounds)]
    show("CPU seconds of scoring every layer at 2, 3, 4 and 8 bits, one thread", rows, arguments.json)


def of_demo(demo: str, rounds: int) -> list[Row]:
    """Ours and each rival in turn, round after round: medians, and how far the ratios of single rounds lie apart."""
    loaded = models.load(f"demo:{demo}")
    task = tasks.load(f"demo:{demo}", loaded)
    batches = task.batches("calibration", SAMPLES[demo])
    layers = find_layers(loaded.model)
    linear = [layer for layer in layers if layer.kind != "embedding"]
    price_all(loaded, task, linear[:2], batches[:1])  # warms up
    ours: list[float] = []
    theirs: dict[str, list[float]] = {}
    for _ in range(rounds):
        ours.append(price_all(loaded, task, linear, batches))
        for rival in DRIVERS:
            try:
                costs = allocations(rival, loaded, layers, batches, [float(BITS[1])]).costs
            except MissingRivalError as error:
                print(f"left out: {error}")
            else:
                name = " ".join(next(iter(costs.versions.items())))
                theirs.setdefault(name, []).append(costs.scoring_seconds)
    embeddings = price_all(loaded, task, [layer for layer in layers if layer.kind == "embedding"], batches)
    real = sum(tokens_of([batch]) if (mask := token_mask(batch)) is None else int(mask.sum()) for batch in batches)
    what = f"{demo}, {len(linear)} linear layers, {real} tokens, {tokens_of(batches)} with padding"
    rows = []
    for name, seconds in theirs.items():
        ratios = [rival / own for rival, own in zip(seconds, ours, strict=True)]
        said = f"{what}: {name}, median of {rounds}, ratios {min(ratios):.2f} to {max(ratios):.2f}"
        rows.append(row(said, statistics.median(ours), "s", statistics.median(seconds)))
    return [*rows, row(f"{what}: the embeddings besides, with a pass of their own", embeddings, "s")]


def price_all(loaded: LoadedModel, task: Task, layers: Sequence[LayerRef], batches: Sequence[Batch]) -> float:
    """CPU seconds of calibrating and pricing."""
    started = time.process_time()
    batches = shortened(batches, task, loaded.model)
    units = torch.cat([task.units(batch) for batch in batches])
    schemes = [Scheme.parse(f"int{bits}g64") for bits in BITS]
    for some in passes(layers, tokens_of(batches)):
        seen = capture(loaded.model, some, batches, probe_objective(loaded.model, task, seed=0))
        for layer in some:
            price(layer, weight_of(loaded.model, layer), seen.pop(layer.name), units, schemes)
    return time.process_time() - started


if __name__ == "__main__":
    main()
