"""Which product is the fastest on a device: measured there, once for each scheme and shape."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from torch import Tensor

from paredown.kernels.backends import Multiply, Prepared, UnfitError

TOKENS = (1, 128)
"""A step of decoding, and a prompt."""

_QUEUE_CYCLES = 2_000_000  # about a millisecond, in which a call is queued
_LARGEST_ERROR = 2e-2  # inputs of 8 bits, and scales in bfloat16, stay well below
_known: dict[Hashable, Mapping[str, tuple[float, ...]]] = {}


def median_seconds(jobs: Mapping[str, Callable[[], object]], rounds: int = 20, *, queued: bool = False) -> dict[str, float]:
    """Median seconds of each job between CUDA events, all in turn, round after round; two rounds before that compile and warm up.

    Args:
        jobs: What to run.
        rounds: Rounds that count.
        queued: Keep the device busy until a job is queued, so that what Python takes to launch it is left out; else it is part of the time.
    """
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in jobs}
    for counts in [False] * 2 + [True] * rounds:
        for name, job in jobs.items():
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            if queued:
                torch.cuda._sleep(_QUEUE_CYCLES)
            start.record()
            job()
            end.record()
            if counts:
                events[name].append((start, end))
    torch.cuda.synchronize()
    return {name: statistics.median(start.elapsed_time(end) / 1e3 for start, end in pairs) for name, pairs in events.items()}


def times(
    products: Mapping[str, Multiply],
    inputs: Sequence[Tensor],
    key: Hashable,
    clock: Callable[[Mapping[str, Callable[[], object]]], Mapping[str, float]] = median_seconds,
) -> Mapping[str, tuple[float, ...]]:
    """Seconds of each product on each input; those of a key are measured once in a process.

    Args:
        products: By backend.
        inputs: One for each number of tokens.
        key: The device, scheme, shape and type of inputs.
        clock: What measures.
    """
    key = (key, tuple(products))
    if key not in _known:
        with torch.inference_mode():
            rounds = [
                clock({name: lambda x=x, product=product: product(x, None, "none") for name, product in products.items()}) for x in inputs
            ]
        _known[key] = {name: tuple(found[name] for found in rounds) for name in products}
    return _known[key]


def tried(prepare: Callable[[], Prepared], inputs: Sequence[Tensor], right: Multiply | None) -> Prepared:
    """A backend that computes what it should on this device.

    Args:
        prepare: Takes up the weight.
        inputs: To try, each by itself: kernels differ with the number of tokens.
        right: Computes what is right; None asks nothing of the results.

    Raises:
        UnfitError: If it can't serve, fails, or is off by more than rounding can explain.
    """
    try:
        prepared = prepare()
        found = torch.cat([prepared[2](x, None, "none") for x in inputs]).double()
    except UnfitError:
        raise
    except Exception as error:  # a compiler's, a driver's, for want of shared memory: whatever it is, others can serve
        raise UnfitError(f"it fails on this device: {type(error).__name__}: {str(error).strip().rpartition(chr(10))[2]}") from error
    expected = found if right is None else torch.cat([right(x, None, "none") for x in inputs]).double()
    if not (found - expected).norm() <= _LARGEST_ERROR * expected.norm():
        raise UnfitError(f"its results on this device are off by {float((found - expected).norm() / expected.norm()):.1g}")
    return prepared


def fastest(times: Mapping[str, Sequence[float]]) -> str:
    """The backend of the smallest geometric mean over the numbers of tokens.

    Example:
        >>> fastest({"triton": (1e-5, 9e-5), "dense": (4e-5, 3e-5)})
        'triton'
    """
    return min(times, key=lambda name: math.prod(times[name]))


def in_words(seconds: Sequence[float]) -> str:
    """Times as they are told.

    Example:
        >>> in_words((12e-6, 1e-4))
        '12 us at 1 token, 100 us at 128'
    """
    first, *rest = (f"{each * 1e6:.0f} us at {tokens}" for each, tokens in zip(seconds, TOKENS, strict=True))
    return ", ".join([f"{first} token", *rest])
