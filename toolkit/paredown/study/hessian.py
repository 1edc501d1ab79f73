"""The true Hessian, as far as the time goes: the last stage of a run, and what a person asks for in between.

Traces of all layers come first, from the samples that the first spectra were made of, then from twice as many, again and again: the data's
error is the larger one. Then, layer by layer, the ends of the spectrum, its density, and how far the quadratic model holds. Every
estimate is an event as soon as it exists, and what the traces need to go on with is kept beside the store.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from paredown.calibration import passes
from paredown.curvature import (
    CurvatureOperator,
    Eigenpairs,
    HessianBlocks,
    LossSurface,
    OuterProducts,
    extreme_eigenvalues,
    hessian_traces,
    probe_lanczos,
    quadrature,
    ritz_pairs,
    twice_differentiable,
)
from paredown.curvature.density import Quadrature
from paredown.curvature.double_backward import GRAPH_BYTES
from paredown.errors import ParedownError
from paredown.specs import CurvatureQuantity, CurvatureRequest, EigenvalueEstimate, LayerRef, SpectralDensity
from paredown.study.clock import Clock, TimeUp
from paredown.study.fits import Ground
from paredown.study.journal import FAILURES, Journal
from paredown.study.session import Session, tokens_of
from paredown.study.spectra import few_samples, run_by, sensitivity_operator
from paredown.study.trace_sums import KeptSums
from paredown.tasks import Batch

TRACES_SHARE = 0.25
"""Of the time, what the traces may take before anything else has its turn."""

STEPS = 20
"""Lanczos steps of a density."""

PROBES = 2
"""Probes of a density, as many as tell a spread; one in the first of several rounds, so that every layer has its turn sooner."""

RESIDUAL = 1e-2
"""Residual of the largest eigenvalue, relative to it, that a density's own Lanczos steps must have reached to be its estimate."""

MOST_PRODUCTS = 60
"""Products that the two ends of a spectrum may take where a density does not give them."""

BASIS_BYTES = 1_000_000_000
"""Most bytes of Lanczos vectors: a very large layer gets fewer steps."""

_SPENT = "hessian-seconds"


def hessian(session: Session, journal: Journal, between: Callable[[], None]) -> None:
    """Estimate the true Hessian of all layers within the configuration's time, less what earlier runs have taken of it.

    A failure, such as a loss that can't be differentiated twice, is a notice: the run has its plans by now.

    Args:
        session: Model and task.
        journal: Where the estimates go.
        between: Called after each estimate: what a person has asked for meanwhile goes first.
    """
    seconds = session.config.hessian_seconds
    kept = session.store.load_arrays(_SPENT)
    spent = 0.0 if kept is None else float(kept["seconds"])
    if spent >= seconds:
        return
    clock = Clock(seconds, spent)
    with journal.tolerating("the true Hessian could not be estimated"):
        try:
            estimate(session, journal, CurvatureRequest(seconds=seconds), between, clock)
            spent = seconds  # also if it was done sooner: nothing is left to do
        finally:
            session.store.save_arrays(_SPENT, {"seconds": np.array(max(spent, clock.spent))})


def estimate(
    session: Session, journal: Journal, request: CurvatureRequest, between: Callable[[], None], clock: Clock | None = None
) -> None:
    """Find out what a request asks for; what the record has already is not estimated again.

    Args:
        session: Model and task.
        journal: Where the estimates go.
        request: What is asked.
        between: Called after each estimate.
        clock: The time that is left; a fresh one of the request's seconds where None.

    Raises:
        ParedownError: If the request names layers that the model does not have, or that the calibration data never runs.
    """
    work = _Work(session, journal, request, between, clock or Clock(request.seconds))
    with suppress(TimeUp):
        work.run()


class _Work:
    """One request, at work."""

    def __init__(self, session: Session, journal: Journal, request: CurvatureRequest, between: Callable[[], None], clock: Clock) -> None:
        self.session, self.journal, self.request, self.clock = session, journal, request, clock
        self.between = lambda: clock.excluding(between)
        self.share = 1.0
        self.wanted = set(request.quantities)
        everything = _mixed(session.surface(), session.config.seed)
        self.surface = dataclasses.replace(everything, loss=self._checked(everything.loss))
        self.layers = self._ordered()
        self.sums = KeptSums(session.store, [i for batch in everything.batches for i in batch.ids], session.layers)

    def run(self) -> None:
        """Everything that is asked for, in the order of use."""
        self.journal.stage("hessian", f"Second derivatives of {len(self.layers)} layers", total=len(self.layers))
        self._say_what_is_switched()
        least = min(few_samples(self.session).samples, self.surface.samples)
        most = min(self.request.samples or self.surface.samples, self.surface.samples)
        sizes = [*(least * 2**i for i in range(32) if least * 2**i < most), most]
        try:
            self.share = TRACES_SHARE if self.wanted - {"trace"} else 1.0
            self._traces(sizes)
        except TimeUp:
            self.clock.check()
        self.share = 1.0
        if self.request.samples is not None:
            rounds = sizes[-1:]
        elif self.clock.seconds is not None:
            rounds = [max(2, least // 2), *sizes]  # a first look at as many layers as possible
        else:
            rounds = sizes[:2][-1:]  # eigenvalues have no error to stop at but their residual
        for samples in rounds:
            self._blocks(samples, 1 if samples < rounds[-1] and samples == rounds[0] else PROBES)
            self._traces(sizes)

    def check(self) -> None:
        """Wait while paused; stop when cancelled or out of time."""
        self.clock.excluding(self.journal.check)
        self.clock.check(self.share)

    def _checked(self, loss: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
        def checked(batch: Batch) -> Tensor:
            self.check()
            return loss(batch)

        return checked

    def _ordered(self) -> list[LayerRef]:
        """The layers that are asked for, in that order; all of them by falling trace, embeddings last, whose vectors are by far the longest."""
        known = {layer.name: layer for layer in self.session.layers}
        if unknown := set(self.request.layers) - set(known):
            raise ParedownError(f"the request names layers that the model does not have: {', '.join(sorted(unknown))}")
        asked = [known[name] for name in self.request.layers or known]
        ran = run_by(self.surface, asked)
        if self.request.layers:
            if idle := {layer.name for layer in asked} - {layer.name for layer in ran}:
                raise ParedownError(f"the calibration data never runs {', '.join(sorted(idle))}, which therefore has no curvature")
            return ran
        traces = {layer.name: getattr(self.journal.record.estimates(layer.name).trace, "value", 0.0) for layer in ran}
        return sorted(ran, key=lambda layer: (layer.kind == "embedding", -traces[layer.name]))

    def _say_what_is_switched(self) -> None:
        with twice_differentiable(self.session.loaded.model) as switched:
            pass
        if switched and not any(event.message == switched for event in self.journal.record.log):
            self.journal.write("notice", message=switched)

    def _give_up(self, error: BaseException) -> None:
        """Leave out what needs second derivatives; how far the quadratic model holds can be measured without."""
        self.journal.excuse("the true Hessian could not be estimated", error)
        self.wanted &= {"fit"}

    def _traces(self, sizes: Sequence[int]) -> None:
        """Two probes of every sample, of twice as many samples again and again; then probes, until the errors are as asked."""
        if "trace" not in self.wanted:
            return
        try:
            for samples in sizes:
                surface = self.surface.first(samples)
                self._trace_round(surface, math.inf)
                if samples == sizes[-1] or self._accurate():
                    self._trace_round(surface, self.request.relative_error)
                    return
        except FAILURES as error:
            self._give_up(error)

    def _trace_round(self, surface: LossSurface, target: float) -> None:
        self.check()
        sums = self.sums.of(surface, self.layers)
        self.journal.write("progress", message=f"Traces from {surface.samples} samples")
        for estimates in hessian_traces(surface, self.layers, seed=self.session.config.seed, target=target, sums=sums):
            self.journal.write("curvature", payload=estimates)
            self.sums.keep(surface, self.layers, sums)
            self.between()
            self.check()

    def _accurate(self) -> bool:
        traces = [self.journal.record.estimates(layer.name, "hessian").trace for layer in self.layers]
        return all(trace is not None and trace.relative_data_error <= self.request.relative_error for trace in traces)

    def _blocks(self, samples: int, probes: int) -> None:
        """Everything but the traces, layer by layer, from so many samples; densities by so many probes."""
        pending = [layer for layer in self.layers if self._missing(layer, samples, probes)]
        done = len(self.layers) - len(pending)
        surface = self.surface.first(samples)
        for some in passes(pending, tokens_of(surface.batches)):
            self.check()
            matrix = sensitivity_operator(surface, some, seed=self.session.config.seed)
            ground = Ground.of(self.session, surface, matrix, self.check) if "fit" in self.wanted else None
            halves = surface.first(surface.samples // 2) if surface.samples > 1 else surface
            blocks, fewer = (HessianBlocks(each, some, GRAPH_BYTES // 2) for each in (surface, halves))
            for index, layer in enumerate(some):
                message = f"{layer.name}, {samples} samples"
                self.journal.write("progress", layer=layer.name, done=done, total=len(self.layers), message=message)
                try:
                    for found in self._spectrum(blocks, fewer, matrix.block(index), self._missing(layer, samples, probes), probes):
                        self.journal.write("curvature", layer=layer.name, payload=[found])
                        self.between()
                except ParedownError as error:
                    self._give_up(error)
                except FAILURES as error:  # no memory for this one, perhaps for the next
                    self.journal.excuse(f"the Hessian of {layer.name} could not be estimated", error)
                done += 1
                density = self.journal.record.estimates(layer.name, "hessian").density
                fits = (
                    [ground.quadratic_fit(index, density)] if ground is not None and "fit" in self._missing(layer, samples, probes) else []
                )
                kind = "curvature" if fits else "progress"
                self.journal.write(kind, layer=layer.name, done=done, total=len(self.layers), payload=fits)
                self.between()

    def _missing(self, layer: LayerRef, samples: int, probes: int) -> set[CurvatureQuantity]:
        """What is asked for, and not known from as many samples and probes."""
        known = self.journal.record.estimates(layer.name, "hessian")
        fit = self.journal.record.quadratic_fits.get(layer.name)
        found: dict[CurvatureQuantity, int] = {
            "eigenvalues": known.eigenvalues.samples if known.eigenvalues else 0,
            "density": known.density.samples if known.density and len(known.density.nodes) >= probes else 0,
            "fit": fit.samples if fit else 0,
        }
        return {quantity for quantity, count in found.items() if quantity in self.wanted and count < samples}

    def _spectrum(
        self, blocks: HessianBlocks, fewer: HessianBlocks, kindred: OuterProducts, missing: Collection[CurvatureQuantity], probes: int
    ) -> Iterator[EigenvalueEstimate | SpectralDensity]:
        """One block's density, whose Lanczos steps know the ends too; where they don't, the ends from a kindred matrix's eigenvector on."""
        if not {"eigenvalues", "density"} & set(missing):
            return  # before a graph is built
        (layer,), seed = kindred.layers, self.session.config.seed
        block = _Watched(blocks[layer], self.check)
        samples = blocks.surface.samples
        steps = max(4, BASIS_BYTES // (layer.parameters * block.dtype.itemsize))
        known = self.journal.record.estimates(layer.name, "hessian").density
        found: list[Quadrature] = []
        if known is not None and known.samples == samples:
            found = list(zip(known.nodes, known.weights, strict=True))
        ends: Eigenpairs | None = None
        for probe in range(len(found), probes) if "density" in missing else ():
            state = probe_lanczos(block, steps=min(STEPS, steps), seed=seed, probe=probe)
            found.append(quadrature(state))
            nodes, weights = zip(*found, strict=True)
            yield SpectralDensity(layer.name, "hessian", nodes, weights, layer.parameters, samples, seed)
            if ends is None and "eigenvalues" in missing:
                ends = ritz_pairs(state, 1, 1)
                if ends.residuals[0] <= RESIDUAL * abs(ends.values[0]):
                    yield self._ends(samples, fewer, layer, ends, steps)
                    missing = [quantity for quantity in missing if quantity != "eigenvalues"]
            del state  # its basis is the largest thing here
        if "eigenvalues" in missing:
            start = kindred.top_eigenvector()
            most = min(MOST_PRODUCTS, steps)
            ends = extreme_eigenvalues(block, 1, 1, start=start if bool(start.any()) else None, max_products=most, seed=seed)
            yield self._ends(samples, fewer, layer, ends, steps)

    def _ends(self, samples: int, fewer: HessianBlocks, layer: LayerRef, ends: Eigenpairs, steps: int) -> EigenvalueEstimate:
        """Both ends, and the largest eigenvalue of half of the samples, found from the one of all."""
        half: float | None = None
        if fewer.surface.samples < samples:
            block, start = _Watched(fewer[layer], self.check), ends.vectors[:, 0]
            half = extreme_eigenvalues(block, start=start, max_products=min(STEPS, steps), seed=self.session.config.seed).values[0]
        top, bottom = ends.values[:1], ends.values[1:]
        return EigenvalueEstimate(
            layer.name,
            "hessian",
            top,
            ends.residuals[:1],
            bottom,
            ends.residuals[1:],
            samples,
            ends.products,
            self.session.config.seed,
            half,
        )


def _mixed(surface: LossSurface, seed: int) -> LossSurface:
    """The batches in a random order: an estimate of the first few must not be one of the shortest samples."""
    order = torch.randperm(len(surface.batches), generator=torch.Generator().manual_seed(seed)).tolist()
    units = surface.units.split([len(batch.ids) for batch in surface.batches])
    return dataclasses.replace(surface, batches=[surface.batches[i] for i in order], units=torch.cat([units[i] for i in order]))


class _Watched(CurvatureOperator):
    """An operator that looks at the clock and the controls before each product."""

    def __init__(self, operator: CurvatureOperator, check: Callable[[], None]) -> None:
        super().__init__(operator.layers, operator.dtype, operator.device)
        self._operator, self._check = operator, check

    @override
    def _matmat(self, vectors: Tensor) -> Tensor:
        self._check()
        return self._operator @ vectors
