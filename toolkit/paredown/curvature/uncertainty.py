r"""The two errors of an estimate, which are never added up.

Data error: other samples would give another matrix. Probe error: random probes don't show the matrix of these samples exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def ratio(forms: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean per unit \(\hat r = \sum_s f_s / \sum_s n_s\) and its data error, by linearisation of the ratio (Cochran, 1977, eq. 2.46).

    Args:
        forms: What each sample adds, [samples, quantities].
        units: Counted units of each sample, [samples].

    Returns:
        Mean and standard error, each [quantities].
    """
    counts = units.double()[:, None]
    mean = forms.sum(0) / counts.sum()
    samples = len(forms)
    if samples < 2:
        return mean, mean.abs()  # one sample says nothing of the spread: 100 %
    residual = forms - mean * counts
    return mean, (residual.square().sum(0) * samples / (samples - 1)).sqrt() / counts.sum()


@dataclass(frozen=True, eq=False, slots=True)
class Moments:
    """Running mean and spread of values of one shape, one value a probe (Welford, 1962): nothing else has to be kept.

    Attributes:
        count: Probes.
        mean: Their mean.
        squares: Summed squared deviations from it.
    """

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, first: Tensor) -> Moments:
        """The moments of one value."""
        return cls(1, first.double(), torch.zeros_like(first, dtype=torch.float64))

    def plus(self, value: Tensor) -> Moments:
        """The moments with another probe's value."""
        count, step = self.count + 1, value.double() - self.mean
        mean = self.mean + step / count
        return Moments(count, mean, self.squares + step * (value - mean))

    @property
    def variance(self) -> Tensor:
        """Of one probe, without bias; NaN where there was only one."""
        return self.squares / (self.count - 1) if self.count > 1 else torch.full_like(self.squares, torch.nan)


def probe_error(samples: Moments, units: Tensor) -> Tensor:
    r"""Standard error over the probes of \(\sum_s f_s / \sum_s n_s\), where the samples' probes are uncorrelated.

    \(\sqrt{\sum_s \sigma_s^2 / m} / \sum_s n_s\) for m probes: each sample's own spread \(\sigma_s\) is pooled, which two probes of 32
    samples know better than two probes of the sum.

    Args:
        samples: Moments over probes of each sample's value, [samples, ...].
        units: Counted units of each sample, [samples].

    Returns:
        [...]; NaN where there was only one probe.
    """
    return (samples.variance.sum(0) / samples.count).sqrt() / units.double().sum()
