"""What a layer's weights and inputs look like, from what the calibration pass holds anyway."""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.calibration import Captured, token_rows
from paredown.errors import ParedownError
from paredown.specs.profiles import Histogram, InputProfile, LayerProfile

BINS = 96
"""Of a histogram: an even number, so that zero stands between two bins."""
REACH = 20.0
"""Widest a histogram reaches on each side, standard deviations of the weights or `InputProfile.median_rms`; what is beyond is counted."""
FACTOR, FREQUENCY = 6.0, 0.06
"""Magnitude of an outlier over the median channel's, and share of the tokens that have it (after LLM.int8(), Dettmers et al., 2022)."""
TOP = 8
"""Channels that are named, the most energy first."""


def profile(layer: str, weight: Tensor, captured: Captured | None = None) -> LayerProfile:
    """Profile one layer.

    Args:
        layer: Its name.
        weight: Its weight, [out, in].
        captured: What it saw; a layer that looked rows up, or saw no token, has no profile of its inputs.

    Returns:
        The profile. A constant weight has a kurtosis of 0, for it has no tails.

    Raises:
        ParedownError: If weights or inputs are NaN or infinite.
    """
    values = weight.detach().to(torch.promote_types(weight.dtype, torch.float32)).flatten()
    mean, largest = values.mean(dtype=torch.float64), float(values.abs().max())
    centred = values - mean.to(values.dtype)
    variance = float(centred.square().mean(dtype=torch.float64))
    _check(layer, "weights", largest, variance)
    fourth = float(centred.square_().square_().mean(dtype=torch.float64))
    kurtosis = fourth / variance**2 - 3 if variance**2 > 0 else 0.0
    parts = [part for batch in captured.batches for part in batch if part.kind == "dense"] if captured else []
    rows = [each for part in parts if len(each := token_rows(part))]
    limit = _limit(largest, variance**0.5)
    weights = _histogram([values], limit, largest)
    return LayerProfile(layer, weights, variance**0.5, largest, kurtosis, _inputs(layer, rows) if rows else None)


def _inputs(layer: str, rows: list[Tensor]) -> InputProfile:
    """Of inputs [tokens, in], a few batches of them."""
    tokens = sum(map(len, rows))
    energy = torch.stack([part.square().sum(0).double() for part in rows]).sum(0)
    peaks = torch.stack([part.abs().amax(0) for part in rows]).amax(0)
    largest, total = float(peaks.max()), float(energy.sum())
    _check(layer, "inputs", largest, total)
    unit = float((energy / tokens).sqrt().median())
    outliers = _outliers(rows, peaks, unit, tokens)
    limit = _limit(largest, unit)
    every = _histogram(rows, limit, largest)
    theirs = _histogram([part[:, outliers] for part in rows], limit, largest) if len(outliers) else None
    shares = energy / total if total else energy
    top = shares.topk(min(TOP, len(shares)))
    return InputProfile(
        tokens,
        len(energy),
        _without(every, theirs) if theirs else every,
        theirs,
        (total / tokens / len(energy)) ** 0.5,
        unit,
        largest,
        tuple(outliers.tolist()),
        min(1.0, float(shares[outliers].sum())),
        tuple(top.indices.tolist()),
        tuple(top.values.tolist()),
    )


def _outliers(rows: list[Tensor], peaks: Tensor, unit: float, tokens: int) -> Tensor:
    """Indices of the outlier channels. Only those whose peak is high enough are looked at."""
    able = (peaks >= FACTOR * unit).nonzero().flatten() if unit > 0 else torch.empty(0, dtype=torch.long)
    if not len(able):
        return able
    often = torch.stack([(part[:, able].abs() >= FACTOR * unit).sum(0) for part in rows]).sum(0)
    return able[often >= FREQUENCY * tokens]


def _limit(largest: float, unit: float) -> float:
    """Where a histogram ends: at the largest magnitude, but no further than `REACH` units; 1 where all is zero."""
    return min(largest, REACH * unit) or largest or 1.0


def _histogram(parts: list[Tensor], limit: float, largest: float) -> Histogram:
    """Counts between -limit and limit; the last bin holds its upper end, as in numpy. A value on an edge may fall to its other side by rounding."""
    counts = sum(_codes(part, limit) for part in parts)
    assert isinstance(counts, Tensor)
    below, *inside, above = counts.tolist()
    if largest <= limit:  # nothing is outside but what rounding put there
        inside[0], inside[-1], below, above = inside[0] + below, inside[-1] + above, 0, 0
    return Histogram(-limit, limit, tuple(inside), below, above)


def _codes(values: Tensor, limit: float) -> Tensor:
    """Counts of what is below, in each bin, and above, [bins + 2]; the bin's number as a byte, which is the fastest that torch can count."""
    numbers = (values * (BINS / (2 * limit))).add_(BINS / 2 + 1).clamp_(0, BINS + 1)
    return torch.bincount(numbers.to(torch.uint8).flatten(), minlength=BINS + 2)


def _without(every: Histogram, some: Histogram) -> Histogram:
    counts = tuple(a - b for a, b in zip(every.counts, some.counts, strict=True))
    return Histogram(every.low, every.high, counts, every.below - some.below, every.above - some.above)


def _check(layer: str, what: str, *values: float) -> None:
    if not all(torch.isfinite(torch.tensor(values, dtype=torch.float64))):
        raise ParedownError(
            f"the {what} of {layer} are NaN or infinite; look for such values in the model's weights or in the calibration data"
        )
