"""CPU seconds of one call of a layer on this machine: measured once by shape, scheme and tokens, and kept for every study to come."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional

from paredown.demos.fetching import cache_folder
from paredown.kernels.cpu.library import load
from paredown.kernels.dispatch import embedding, linear, prepare
from paredown.kernels.packing import Packed, pack
from paredown.kernels.speed import in_turn, seconds_by_round
from paredown.methods import Compressed, Statistics, compress
from paredown.methods.activations import Range
from paredown.methods.factors import Bits, LowRank, store
from paredown.specs import KEEP, Scheme

Use = Literal["product", "rows"]
"""What a module does with a weight: multiplies by it, or looks up its rows."""

THREADS = 1
COLD_BYTES = 32_000_000
MOST_COPIES = 8

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Call:
    """What is timed: one call of a layer.

    Attributes:
        use: What it does.
        shape: Of the weight, [out, in].
        scheme: What was done to the weight; `KEEP` is torch's own product or look-up in float32.
        tokens: Inputs at once.
    """

    use: Use
    shape: tuple[int, int]
    scheme: Scheme
    tokens: int

    @property
    def key(self) -> str:
        """Its name in the table. How the numbers were found is not in it: they are multiplied alike.

        Example:
            >>> Call("product", (64, 32), Scheme.parse("int4g32-gptq+2:4-mfac+eora8"), 16).key
            'product 64x32 int4g32+2:4+svd8 M=16'
        """
        return f"{self.use} {self.shape[0]}x{self.shape[1]} {_multiplied_as(self.scheme)} M={self.tokens}"


@dataclass(frozen=True, slots=True)
class Timing:
    r"""What a call takes.

    Attributes:
        seconds: CPU seconds, the least of the rounds.
        deviation: Its standard error by the jackknife, \((n - 1) / n\) times the gap to the second of n rounds: that of a least value
            where what others add to a call is exponential. None after one round, and in tables of earlier versions.
    """

    seconds: float
    deviation: float | None

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Timing:
        """Out of the seconds of each round."""
        least, *others = sorted(rounds)
        return cls(least, (others[0] - least) * (1 - 1 / len(rounds)) if others else None)


def machine() -> dict[str, str]:
    """What the seconds depend on besides the call: processor, instruction set, threads, our kernels' digest, torch."""
    library, _ = load()
    return {
        "cpu": _processor(),
        "isa": "none" if library is None else library.isa().name,
        "threads": str(THREADS),
        "kernels": "none" if library is None else library.path.stem,
        "torch": torch.__version__,
    }


def seconds_of(calls: Iterable[Call], *, folder: Path | None = None, rounds: int = 5, say: Say = lambda _: None) -> dict[Call, Timing]:
    """CPU seconds of each call in one thread, out of this machine's table; what it misses is measured and added.

    The inputs are float32, as loaded models have them. The least of interleaved rounds counts, since others may use the machine; weights
    are random, and take turns as the layers of a model do, so that none is in the nearest cache when it is read.

    Args:
        calls: Of schemes that fit their shapes (`paredown.sizes.fit`).
        folder: Where the tables are; None takes ``latency`` in the user's cache folder.
        rounds: Of measuring.
        say: Called before each shape is measured, and with what is wrong with the table; may raise, to stop.

    Returns:
        Timings by call. They are kept shape by shape, so that what was measured before an interruption is not measured again.
    """
    calls = list(calls)
    described = machine()
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    path = (folder or cache_folder() / "latency") / f"{digest}.json"
    known = _read(path, described, say)
    missing: dict[tuple[Use, tuple[int, int], int], dict[str, Scheme]] = {}
    for call in calls:
        if call.key not in known:
            missing.setdefault((call.use, call.shape, call.tokens), {})[call.key] = _multiplied_as(call.scheme)
    for (use, shape, tokens), schemes in missing.items():
        say(f"Timing {'look-ups in' if use == 'rows' else 'products with'} {shape[0]}x{shape[1]}, {tokens} tokens at once")
        known |= _measured(use, shape, tokens, schemes, rounds)
        _write(path, described, known, say)
    return {call: known[call.key] for call in calls}


def _multiplied_as(scheme: Scheme) -> Scheme:
    low_rank = scheme.low_rank and replace(scheme.low_rank, kind="svd")
    return replace(scheme, rounding="rtn", criterion="magnitude", low_rank=low_rank)


def _measured(use: Use, shape: tuple[int, int], tokens: int, schemes: Mapping[str, Scheme], rounds: int) -> dict[str, Timing]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    inputs = (
        torch.randn(tokens, shape[1], generator=generator) if use == "product" else torch.randint(shape[0], (tokens,), generator=generator)
    )
    with _one_thread(), torch.inference_mode():
        jobs = {key: in_turn([partial(call, inputs) for call in _copies(use, weight, scheme)]) for key, scheme in schemes.items()}
        found = seconds_by_round(jobs, rounds, clock=time.thread_time)  # of this thread: a notebook's own goes on meanwhile
    return {key: Timing.of(each) for key, each in found.items()}


def _copies(use: Use, weight: Tensor, scheme: Scheme) -> list[Callable[[Tensor], Tensor]]:
    if scheme == KEEP:
        dense = [weight.clone() for _ in range(_count(weight.nbytes))]
        return [partial(_dense_rows, each) if use == "rows" else partial(functional.linear, weight=each) for each in dense]
    packed = _random(weight, scheme)
    if use == "rows":
        return [partial(embedding, packed=packed)]
    first = prepare(packed)
    return [partial(linear, packed=kernel) for kernel in (first, *(prepare(packed) for _ in range(_count(first.bytes) - 1)))]


def _count(size: int) -> int:
    return max(1, min(MOST_COPIES, -(-COLD_BYTES // max(size, 1))))


def _dense_rows(weight: Tensor, ids: Tensor) -> Tensor:
    return functional.embedding(ids, weight)


def _random(weight: Tensor, scheme: Scheme) -> Packed:
    """Numbers and mask of a random weight, factors without a decomposition: what they hold takes no time."""
    (out, inputs), plain, rank = weight.shape, replace(scheme, low_rank=None), scheme.low_rank
    seen = Statistics(torch.eye(1), input_range=lambda _: Range(-4.0, 4.0))
    made = Compressed(scheme, (out, inputs), None) if plain == KEEP else compress(weight, plain, seen)
    factors = None
    if rank is not None:
        left, right = weight[:, :1].expand(out, rank.rank), weight[:1].expand(rank.rank, inputs)
        factors = store(LowRank(left, right, torch.ones(rank.rank)), cast(Bits, rank.bits))
    return pack(replace(made, scheme=scheme, factors=factors))


@contextmanager
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _read(path: Path, described: Mapping[str, str], say: Say) -> dict[str, Timing]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        seconds, deviations = dict(table["seconds"]), dict(table.get("deviations", {}))
        positive = all(isinstance(each, float) and 0 < each < math.inf for each in seconds.values())
        if (
            table["machine"] != described
            or not positive
            or not all(isinstance(each, float) and 0 <= each < math.inf for each in deviations.values())
        ):
            raise ValueError(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"the table of latencies {path} can't be read ({type(error).__name__}), and is measured anew")
        return {}
    return {key: Timing(each, deviations.get(key)) for key, each in seconds.items()}


def _write(path: Path, described: Mapping[str, str], known: Mapping[str, Timing], say: Say) -> None:
    """Beside, then renamed; what another process has added meanwhile stays."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            timings = {**_read(path, described, lambda _: None), **known}
            table = {
                "machine": described,
                "seconds": {key: each.seconds for key, each in timings.items()},
                "deviations": {key: each.deviation for key, each in timings.items() if each.deviation is not None},
            }
            beside.write_text(json.dumps(table, indent=1, sort_keys=True), encoding="utf-8")
            beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        say(
            f"the table of latencies {path} can't be written ({error.strerror}): it will be measured again; set PAREDOWN_CACHE to another folder"
        )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
