"""What a layer's weights and inputs look like: histograms, and the few input channels that carry most."""

from __future__ import annotations

import math
from dataclasses import dataclass

from paredown.errors import ParedownError


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts in bins of one width; what lies outside is counted on its side.

    Attributes:
        low: Where the first bin begins.
        high: Where the last one ends.
        counts: How many values each bin holds.
        below: How many values are below `low`.
        above: How many are above `high`.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    below: int = 0
    above: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high and self.counts):
            raise ParedownError(f"a histogram needs finite ends and a bin, got {len(self.counts)} bins from {self.low} to {self.high}")

    @property
    def edges(self) -> tuple[float, ...]:
        """Where the bins begin and end, one more than there are bins."""
        step = (self.high - self.low) / len(self.counts)
        return (*(self.low + step * index for index in range(len(self.counts))), self.high)

    @property
    def centres(self) -> tuple[float, ...]:
        """The middle of each bin."""
        step = (self.high - self.low) / len(self.counts)
        return tuple(self.low + step * (index + 0.5) for index in range(len(self.counts)))

    @property
    def total(self) -> int:
        """All values, those outside included."""
        return sum(self.counts) + self.below + self.above


@dataclass(frozen=True, slots=True)
class InputProfile:
    r"""A layer's inputs over the real tokens of the calibration data.

    A channel is an outlier where \(|x| \ge 6 s\) in at least 6 % of the tokens, \(s\) the median over the channels of their root mean square.
    These are the two thresholds of LLM.int8() (Dettmers et al., 2022) with \(s\) as the unit of magnitude; there it is 1, and a third
    threshold, a quarter of the layers, is left out, since this is about one layer.

    Attributes:
        tokens: Real tokens.
        channels: Inputs of the layer.
        ordinary: Histogram of the inputs in all channels but the outliers.
        outliers: Histogram of the outlier channels, in the same bins; None where there are none.
        rms: Root mean square over all inputs.
        median_rms: \(s\), the median of the channels' root mean squares.
        largest: Largest magnitude.
        outlier_channels: The outlier channels, rising.
        outlier_share: Share of the energy \(E\|x\|^2\) that they carry, 0 to 1.
        top_channels: The channels with the most energy, falling, whether outliers or not.
        top_shares: Share of the energy that each of these carries.
    """

    tokens: int
    channels: int
    ordinary: Histogram
    outliers: Histogram | None
    rms: float
    median_rms: float
    largest: float
    outlier_channels: tuple[int, ...]
    outlier_share: float
    top_channels: tuple[int, ...]
    top_shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """What one layer's weights and inputs look like.

    Attributes:
        layer: The layer's name.
        weights: Histogram of the weights.
        weight_sd: Their standard deviation.
        weight_max: Their largest magnitude.
        weight_kurtosis: Their excess kurtosis: 0 for a normal distribution, large where few weights are far out.
        inputs: Its inputs; None for an embedding, which looks rows up.
    """

    layer: str
    weights: Histogram
    weight_sd: float
    weight_max: float
    weight_kurtosis: float
    inputs: InputProfile | None = None
