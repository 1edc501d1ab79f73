"""Spectra without a model: invented eigenvalues with a bulk around zero and a few outliers, seen through real Lanczos quadrature."""

from __future__ import annotations

import math
import random

import numpy as np

from paredown.specs import (
    EigenvalueEstimate,
    LayerRef,
    QuadraticFit,
    QuadraticStep,
    SpectralDensity,
    TraceEstimate,
)

SAMPLES = 64
STEPS = 20
_RANK = 96  # of a Gauss-Newton block: one eigenvalue a sample and output
_VERDICTS = (
    ("yes", "predictions hold down to 3 bits; at 2 bits the loss rose 2.4 times as much as predicted"),
    ("with care", "predictions hold down to 4 bits; at 3 bits the loss rose 1.8 times as much as predicted"),
    ("no", "at 4 bits the loss rose 3.1 times as much as predicted, and 31 % of the curvature is negative"),
    ("unknown", "too few samples to tell predicted from measured"),
)


def ggn(layer: LayerRef, index: int, scale: float) -> tuple[TraceEstimate, EigenvalueEstimate, SpectralDensity]:
    """An exact spectrum of some samples: few eigenvalues, no negative ones, zero for the rest."""
    values = _outliers(index, scale) + _tail(index, scale, _RANK - 5)
    spectrum = sorted(values, reverse=True)
    trace, n = sum(spectrum), layer.parameters
    nodes = (0.0, *reversed(spectrum))
    weights = ((n - _RANK) / n, *(1 / n for _ in spectrum))
    top = tuple(spectrum[:8])
    return (
        TraceEstimate(layer.name, "ggn", trace, 0.07 * trace, 0.0, SAMPLES, 1, 0),
        EigenvalueEstimate(layer.name, "ggn", top, (0.0,) * 8, (), (), SAMPLES, 0, 0, half_sample_top=top[0] * (1.05 + 0.3 * (index % 3))),
        SpectralDensity(layer.name, "ggn", (nodes,), (weights,), n, SAMPLES, 0, exact=True),
    )


def hessian(layer: LayerRef, index: int, scale: float, probes: int = 2) -> tuple[TraceEstimate, EigenvalueEstimate, SpectralDensity]:
    """The same outliers over a bulk of both signs; the trace of k is below zero."""
    bulk, share, above, below = _hessian_spectrum(layer, index, scale)
    trace = float(np.dot(bulk, share)) + sum(above) + sum(below)
    yardstick = sum(_outliers(index, scale)) + sum(_tail(index, scale, _RANK - 5))
    seen = [_quadrature(bulk, share, [*above, *below], random.Random(f"{layer.name} {probe}")) for probe in range(probes)]
    top, bottom = tuple(sorted(above, reverse=True)), tuple(sorted(below))
    return (
        TraceEstimate(layer.name, "hessian", trace, 0.08 * yardstick, 0.05 * yardstick / math.sqrt(probes), SAMPLES, probes, 0, scale=yardstick),
        EigenvalueEstimate(
            layer.name, "hessian", top, tuple(0.006 * value for value in top), bottom, tuple(0.02 * abs(value) for value in bottom),
            SAMPLES, 24, 0, half_sample_top=1.25 * top[0], slice_tops=(1.1 * top[0], 0.9 * top[0]),
        ),
        SpectralDensity(layer.name, "hessian", tuple(x for x, _ in seen), tuple(w for _, w in seen), layer.parameters, SAMPLES, 0),
    )  # fmt: skip


def fit(layer: LayerRef, index: int) -> QuadraticFit:
    """Each verdict in turn."""
    verdict, reason = _VERDICTS[index % len(_VERDICTS)]
    steps = tuple(
        QuadraticStep(f"int{bits}g64", 0.02 * 4.0 ** (2 - bits), 0.002 * 4.0 ** (2 - bits), 0.025 * 4.0 ** (2 - bits), 0.003, 0.002)
        for bits in (8, 4, 3, 2)
    )
    return QuadraticFit(layer.name, 0.02, 0.018, None if verdict == "unknown" else 0.08 * (index % 4), steps, verdict, reason, SAMPLES, 0)


def _outliers(index: int, scale: float) -> list[float]:
    draw = random.Random(f"outliers {index}")
    return [scale * 0.6**rank * math.exp(0.04 * draw.gauss(0, 1)) for rank in range(5)]


def _tail(index: int, scale: float, count: int) -> list[float]:
    draw = random.Random(f"tail {index}")
    return [0.02 * scale * (rank + 1) ** -0.9 * math.exp(0.25 * draw.gauss(0, 1)) for rank in range(count)]


def _hessian_spectrum(layer: LayerRef, index: int, scale: float) -> tuple[np.ndarray, np.ndarray, list[float], list[float]]:
    """Values of the bulk, how many eigenvalues each stands for, and the outliers above and below it."""
    draw = random.Random(f"bulk {index}")
    places = np.linspace(0.02, 1, 240)
    sizes = 0.015 * scale * 10 ** (-4.5 * (1 - places))
    counts = layer.parameters * 10.0 ** (-(math.log10(layer.parameters) - 0.9) * places)
    lean = 0.53 if layer.role in ("q", "k") else 0.62
    reach = 0.5 if layer.role in ("q", "k") else 0.25
    bulk = np.concatenate([-sizes * reach, sizes])
    share = np.concatenate([counts * (1 - lean), counts * lean])
    share *= (layer.parameters - 8) / share.sum()
    # the bulk carries as much of the trace, however large the layer
    strength = {"q": 0.25, "k": 1.0}.get(layer.role, 0.08)
    below = [-strength * scale * 0.6**rank * math.exp(0.1 * draw.gauss(0, 1)) for rank in range(3)]
    above = _outliers(index, scale)
    if layer.role in ("q", "k"):
        above = [0.4 * value for value in above]
        share[: len(sizes)] *= 1.35
    return bulk, share, above, below


def _quadrature(
    bulk: np.ndarray, share: np.ndarray, alone: list[float], draw: random.Random
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lanczos on the diagonal matrix of these eigenvalues, from random signs in another basis: nodes and weights."""
    values = np.concatenate([bulk, alone])
    counts = np.concatenate([share, np.ones(len(alone))])
    start = (
        np.array([draw.gammavariate(count / 2, 2 / count) if count < 1e3 else draw.gauss(1, math.sqrt(2 / count)) for count in counts])
        * counts
    )
    basis = [np.sqrt(start / start.sum())]
    alphas: list[float] = []
    betas: list[float] = []
    for _ in range(STEPS):
        vector = values * basis[-1]
        alphas.append(float(vector @ basis[-1]))
        known = np.array(basis)
        for _ in range(2):
            vector = vector - known.T @ (known @ vector)
        betas.append(float(np.linalg.norm(vector)))
        basis.append(vector / betas[-1])
    nodes, vectors = np.linalg.eigh(np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1))
    return tuple(nodes.tolist()), tuple((vectors[0] ** 2).tolist())
