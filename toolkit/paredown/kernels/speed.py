"""How fast the backends are on this machine: CPU seconds of one product, against torch's bfloat16 in the same rounds."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from paredown import sizes
from paredown.errors import ParedownError
from paredown.kernels.dispatch import Backend, Kernel, linear, prepare
from paredown.kernels.packing import pack
from paredown.methods import compress
from paredown.specs import LayerRef, Scheme

BFLOAT16 = "bf16"
"""The name of torch's own dense product among the jobs."""


@dataclass(frozen=True, slots=True)
class Speed:
    """One backend under one scheme.

    Attributes:
        scheme: Of the weight.
        backend: What multiplies.
        how: In words; where the backend can't serve, why not.
        bits: Bits a weight that it reads; None where it can't serve.
        ratios: By tokens at once: how many times faster than torch's bfloat16 product.
        chosen: Whether the dispatch takes it.
    """

    scheme: str
    backend: Backend
    how: str
    bits: float | None
    ratios: Mapping[int, float]
    chosen: bool


def in_turn(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """A job that makes another of the calls each time: with copies of one weight, what it reads was read long ago."""
    turns = itertools.cycle(calls)
    return lambda: next(turns)()


def least_seconds(jobs: Mapping[str, Callable[[], object]], rounds: int, seconds: float = 2e-3) -> dict[str, float]:
    """Smallest CPU seconds of each job over interleaved rounds; others may use the machine meanwhile."""
    return {name: min(each) for name, each in seconds_by_round(jobs, rounds, seconds).items()}


def seconds_by_round(
    jobs: Mapping[str, Callable[[], object]], rounds: int, seconds: float = 2e-3, *, clock: Callable[[], float] = time.process_time
) -> dict[str, list[float]]:
    """CPU seconds of each job in each of some interleaved rounds, each long enough to be timed."""
    counts: dict[str, int] = {}
    for name, job in jobs.items():
        job()
        started = clock()
        job()
        counts[name] = max(1, int(seconds / max(clock() - started, 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            started = clock()
            for _ in range(counts[name]):
                job()
            found[name].append((clock() - started) / counts[name])
    return found


def measure(scheme: str, shape: tuple[int, int], tokens: Sequence[int], *, rounds: int = 5, seed: int = 0) -> list[Speed]:
    """Measure every backend that can serve a scheme.

    Args:
        scheme: Of a weight of random numbers.
        shape: [out, in].
        tokens: How many inputs at once.
        rounds: Interleaved rounds; the smallest time counts.
        seed: Of the numbers.

    Returns:
        One entry a backend, best first as the dispatch asks them; the reference only where nothing else serves.
    """
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=generator)
    layer = LayerRef("weight", "linear", "fc1", "", shape, "float32")
    packed = pack(compress(weight, sizes.fit(Scheme.parse(scheme), layer)[0]))
    served: dict[Backend, Kernel | str] = {}
    for backend in get_args(Backend)[:-1]:
        try:
            served[backend] = prepare(packed, backend=backend, dtype=torch.bfloat16)
        except ParedownError as error:
            served[backend] = str(error)
    chosen = prepare(packed, dtype=torch.bfloat16).backend
    dense = weight.bfloat16()
    ratios: dict[Backend, dict[int, float]] = {backend: {} for backend in served}
    for count in tokens:
        x = torch.randn(count, shape[1], generator=generator).bfloat16()
        jobs: dict[str, Callable[[], Tensor]] = {BFLOAT16: lambda x=x: functional.linear(x, dense)}
        jobs |= {name: lambda x=x, kernel=kernel: linear(x, kernel) for name, kernel in served.items() if isinstance(kernel, Kernel)}
        with torch.inference_mode():
            seconds = least_seconds(jobs, rounds)
        for name in ratios:
            if name in seconds:
                ratios[name][count] = seconds[BFLOAT16] / seconds[name]
    return [
        Speed(scheme, name, kernel.how, kernel.bytes * 8 / weight.numel(), ratios[name], name == chosen)
        if isinstance(kernel, Kernel)
        else Speed(scheme, name, kernel.partition(": ")[2].rpartition("; ")[0], None, {}, False)
        for name, kernel in served.items()
    ]
