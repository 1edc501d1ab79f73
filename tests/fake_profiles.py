"""Profiles without a model: normal weights with a heavier tail in some layers, inputs with a few loud channels in others."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

from paredown.specs import Histogram, InputProfile, LayerProfile, LayerRef

BINS = 96
TOKENS = 4096


def profile(layer: LayerRef, index: int) -> LayerProfile:
    """Every third fc2 has outlier channels, every fourth layer heavy tails; an embedding sees no inputs."""
    sd = 0.04 * math.exp(0.3 * math.sin(index))
    tail = 0.004 if index % 4 == 3 else 0.0
    reach = 11.0 if tail else 5.2
    weights = _bell(layer.parameters, sd, reach * sd, tail=tail, tail_sd=3.4 * sd)
    kurtosis = 3 * ((1 - tail + tail * 3.4**4) / (1 - tail + tail * 3.4**2) ** 2 - 1)
    return LayerProfile(
        layer.name,
        weights,
        sd * math.sqrt(1 - tail + tail * 3.4**2),
        reach * sd,
        kurtosis,
        None if layer.kind == "embedding" else _inputs(layer, index),
    )


def _inputs(layer: LayerRef, index: int) -> InputProfile:
    channels, sd = layer.shape[1], 0.8 + 0.1 * (index % 5)
    loud = tuple(range(17, 17 + 40 * (1 + index % 3), 40)) if layer.role == "fc2" and index % 2 == 0 else ()
    limit = (20.0 if loud else 5.5) * sd
    ordinary = _bell(TOKENS * (channels - len(loud)), sd, limit)
    outliers = _two_hills(TOKENS * len(loud), 15 * sd, 2 * sd, limit) if loud else None
    quiet, noisy = (channels - len(loud)) * sd**2, len(loud) * (15 * sd) ** 2
    share = noisy / (quiet + noisy)
    rest = tuple(channel for channel in range(8) if channel not in loud)[: 8 - len(loud)]
    shares = (*(share / len(loud) for _ in loud), *(1.5 / channels for _ in rest))
    rms = math.sqrt((quiet + noisy) / channels)
    return InputProfile(TOKENS, channels, ordinary, outliers, rms, sd, limit, loud, share if loud else 0.0, (*loud, *rest), shares)


def _bell(count: int, sd: float, limit: float, *, tail: float = 0.0, tail_sd: float = 1.0) -> Histogram:
    core, wide = NormalDist(0, sd), NormalDist(0, tail_sd)
    edges = [limit * (2 * k / BINS - 1) for k in range(BINS + 1)]
    share = [(1 - tail) * (core.cdf(b) - core.cdf(a)) + tail * (wide.cdf(b) - wide.cdf(a)) for a, b in itertools.pairwise(edges)]
    return Histogram(-limit, limit, tuple(round(count * part) for part in share))


def _two_hills(count: int, centre: float, sd: float, limit: float) -> Histogram:
    left, right = NormalDist(-centre, sd), NormalDist(centre, sd)
    edges = [limit * (2 * k / BINS - 1) for k in range(BINS + 1)]
    share = [0.6 * (right.cdf(b) - right.cdf(a)) + 0.4 * (left.cdf(b) - left.cdf(a)) for a, b in itertools.pairwise(edges)]
    return Histogram(-limit, limit, tuple(round(count * part) for part in share), below=0, above=3)
