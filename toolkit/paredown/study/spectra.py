r"""The first thing that a run shows: the whole Gauss-Newton spectrum of every layer, from a few samples; more samples refine it later.

The non-zero eigenvalues of \(\frac1N \sum_s P_s P_s^\top\) are those of the Gram matrix \(\langle P_s, P_r \rangle / N\) of the per-sample gradients
(`paredown.curvature.outer_products`), and the whole model's Gram matrix is the sum of the layers'. A task without probabilities
has no Gauss-Newton matrix; its spectra are of the empirical Fisher.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.calibration import Captured, Part, listening, passes
from paredown.curvature import LossSurface, OuterProducts, PerSampleGradients, empirical_fisher, exact_density, gauss_newton, ratio
from paredown.specs import WHOLE_MODEL, CurvatureMatrix, EigenvalueEstimate, LayerRef, SpectralDensity, TraceEstimate
from paredown.study.journal import Journal
from paredown.study.session import Session, tokens_of

SAMPLES = 16
"""Samples of the first spectra: on screen after two seconds, and of the right shape. The sensitivity pass brings more."""

TOKENS = 1024
"""Tokens that they have in all, at most: a language model's samples are long."""

EXACT_PASSES = 16
"""Backward passes a batch that an exact Gauss-Newton matrix may take; beyond, one random output probe stands in."""

REFINED_SAMPLES = 64
"""Samples of the refined spectra, whose cost grows with the square."""

TOP_EIGENVALUES = 20
"""Eigenvalues that an estimate keeps; the density has all."""

SLICES = 10
"""Disjoint slices of the samples for Q-BERT's statistic; as many as Shen et al. (2020) take."""

Estimates = tuple[TraceEstimate, EigenvalueEstimate, SpectralDensity]


def spectra(session: Session, journal: Journal) -> None:
    """Estimate trace, eigenvalues and density of every layer and of the whole model that are not known yet; one event a layer."""
    matrix, seed = journal.record.sensitivity_matrix, session.config.seed
    if all(journal.record.estimates(name, matrix).trace for name in (*(layer.name for layer in session.layers), WHOLE_MODEL)):
        return
    journal.stage("spectra", "Spectra from the first samples", total=len(session.layers))
    surface = few_samples(session)
    layers = sorted(run_by(surface, session.layers), key=lambda layer: layer.kind == "embedding")  # the largest come last
    exact = exact_passes(surface) <= EXACT_PASSES
    whole: _Gram | None = None
    done = 0
    for some in passes(layers, tokens_of(surface.batches)):
        journal.check()
        operator = sensitivity_operator(surface, some, seed=seed)
        for index, layer in enumerate(some):
            journal.check()
            gram = _Gram.of(operator.block(index))
            whole = gram if whole is None else whole.plus(gram)
            done += 1
            if journal.record.estimates(layer.name, matrix).trace is None:
                payload = gram.estimates(layer.name, layer.parameters, matrix, exact=exact, seed=seed)
                journal.write("curvature", layer=layer.name, done=done, total=len(layers), payload=payload)
    if whole is not None:
        size = sum(layer.parameters for layer in layers)
        journal.write("curvature", done=done, total=len(layers), payload=whole.estimates(WHOLE_MODEL, size, matrix, exact=exact, seed=seed))


def sensitivity_operator(surface: LossSurface, layers: Sequence[LayerRef], *, seed: int) -> OuterProducts:
    """The matrix of the sensitivities: Gauss-Newton, exact where that is cheap, or the empirical Fisher."""
    if surface.logits is None:
        return empirical_fisher(surface, layers)
    return gauss_newton(surface, layers, exact=exact_passes(surface) <= EXACT_PASSES, seed=seed)


def exact_passes(surface: LossSurface) -> int:
    """Backward passes a batch that the exact matrix takes: one for the empirical Fisher, and for Gauss-Newton classes − 1 of each unit."""
    if surface.logits is None:
        return 1
    with torch.no_grad():
        classes = surface.logits(surface.first(1).batches[0]).logits.shape[-1]
    return (classes - 1) * int(surface.units.max())


def refined(
    captured: Captured, units: Tensor, ids: Sequence[int], matrix: CurvatureMatrix, *, exact: bool, seed: int
) -> tuple[Tensor, Estimates]:
    """Estimates from what the sensitivity pass has captured: the trace of all samples, the spectrum of `REFINED_SAMPLES`.

    Args:
        captured: What the layer saw.
        units: Counted units of each sample, [samples].
        ids: Each sample's id.
        matrix: What the gradients are of.
        exact: Whether one pass shows it exactly.
        seed: Seed of the output probes.

    Returns:
        Each sample's part of the trace, [samples], and the estimates.
    """
    layer = captured.layer
    norms = PerSampleGradients(captured).squared_norms().double()
    step = math.ceil(len(units) / REFINED_SAMPLES)  # batches are sorted by length: every so manieth, not the first ones
    sizes = [len(parts[0].inputs) for parts in captured.batches]
    kept = torch.cat([rows[::step] for rows in torch.arange(len(units)).split(sizes)])
    some = Captured(layer, tuple(tuple(_every(part, step) for part in parts) for parts in captured.batches))
    gram = _Gram.of(OuterProducts([PerSampleGradients(some)], units[kept], 1.0, [ids[i] for i in kept.tolist()]))
    _, eigenvalues, density = gram.estimates(layer.name, layer.parameters, matrix, exact=exact, seed=seed)
    return norms, (trace_of(layer.name, matrix, norms, units, exact=exact, seed=seed), eigenvalues, density)


def trace_of(name: str, matrix: CurvatureMatrix, norms: Tensor, units: Tensor, *, exact: bool, seed: int) -> TraceEstimate:
    """The trace from each sample's part of it, [samples]; one probe of a sample doesn't tell its noise from the data's."""
    value, deviation = ratio(norms[:, None], units)
    return TraceEstimate(name, matrix, float(value), float(deviation), 0.0 if exact else None, len(units), 0 if exact else 1, seed)


@dataclass(frozen=True, eq=False, slots=True)
class _Gram:
    """Inner products of the per-sample gradients, and what turns them into a spectrum.

    Attributes:
        products: [rows, rows]; one row for each draw and sample, draw after draw.
        weight: What a draw counts.
        units: Counted units of each sample, [samples].
        order: Samples by their ids, [samples].
    """

    products: Tensor
    weight: float
    units: Tensor
    order: Tensor

    @classmethod
    def of(cls, operator: OuterProducts) -> _Gram:
        return cls(operator.gram(), operator.weight, operator.units, torch.tensor(operator.ids).argsort())

    def plus(self, other: _Gram) -> _Gram:
        """That of both layers together."""
        return _Gram(self.products + other.products, self.weight, self.units, self.order)

    def eigenvalues(self, samples: Tensor | None = None) -> Tensor:
        """Of all samples, or of some, descending."""
        some = self.order if samples is None else samples
        rows = torch.cat([some + start for start in range(0, len(self.products), len(self.units))])
        products = self.products[rows][:, rows] * self.weight / float(self.units[some].sum())
        return torch.linalg.eigvalsh(products).flip(0).clamp(min=0)

    def estimates(self, name: str, size: int, matrix: CurvatureMatrix, *, exact: bool, seed: int) -> Estimates:
        """What they say of a block of `size` weights."""
        samples = len(self.units)
        norms = self.weight * self.products.diagonal().reshape(-1, samples).sum(0)
        values = self.eigenvalues()[:size].tolist()
        half = float(self.eigenvalues(self.order[: samples // 2])[0]) if samples > 1 else None
        slices = [self.eigenvalues(self.order[start::SLICES])[0] for start in range(SLICES)] if samples >= 2 * SLICES else []
        top = tuple(values[:TOP_EIGENVALUES])
        nodes, weights = exact_density(values, size)
        return (
            trace_of(name, matrix, norms, self.units, exact=exact, seed=seed),
            EigenvalueEstimate(name, matrix, top, (0.0,) * len(top), (), (), samples, 0, seed, half, tuple(map(float, slices))),
            SpectralDensity(name, matrix, (nodes,), (weights,), size, samples, seed, exact=True),
        )


def few_samples(session: Session) -> LossSurface:
    """The samples that a run begins with."""
    surface = session.surface(SAMPLES)
    longest = tokens_of(surface.batches) // surface.samples
    return surface.first(max(2, min(SAMPLES, TOKENS // max(longest, 1))))


def run_by(surface: LossSurface, layers: Sequence[LayerRef]) -> list[LayerRef]:
    """The layers that the first sample runs; a model may have others, which its inputs never reach."""
    batch = surface.first(1).batches[0]
    with torch.no_grad(), listening(surface.model, layers, batch, lambda *_: None) as calls:
        surface.logits(batch) if surface.logits is not None else surface.losses(batch)
    return [layer for layer in layers if calls[layer.name]]


def _every(part: Part, step: int) -> Part:
    return Part(part.kind, part.inputs[::step], part.gradients[::step], None if part.mask is None else part.mask[::step])
