r"""Gauss-Newton traces of all layers at the price of one forward and one backward pass: the default sensitivity.

A probe \(u\) with \(E[u u^\top] = \nabla_z^2 \ell\) (`paredown.curvature.probes`), sent backward from the logits z, gives per-sample weight
gradients \(P_s = \sum_t g_t a_t^\top\) whose mean squared norm is the trace of the layer's block. The norm does not need \(P_s\):
\(\|P_s\|^2 = \sum_{t,t'} (a_t \cdot a_{t'}) (g_t \cdot g_{t'})\), which Goodfellow ("Efficient per-example gradient computations", 2015)
used for vectors and Li et al. ("Large language models can be strong differentially private learners", 2022) for sequences, as ghost norms.
It is computed inside the backward pass, when g arrives, by whichever of the two ways is cheaper; activations go as soon as they are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.calibration import Call, listening
from paredown.curvature.probes import exact_directions, generator_for, output_probe
from paredown.curvature.surface import LossSurface
from paredown.curvature.uncertainty import Moments, probe_error, ratio
from paredown.errors import ParedownError
from paredown.specs import CurvatureMatrix, LayerRef, TraceEstimate
from paredown.tasks import Batch
from paredown.tasks.base import check_finite

CHUNK_BYTES = 64_000_000
"""Dense per-sample gradients that exist at once, where they are cheaper than ghosts."""


def gauss_newton_traces(
    surface: LossSurface, layers: Sequence[LayerRef], *, seed: int, probes: int = 1, exact: bool | None = None
) -> Iterator[tuple[TraceEstimate, ...]]:
    r"""Traces of the layers' Gauss-Newton blocks, refined batch by batch.

    Cost of a batch: one forward pass, and for each probe one backward pass to the layers' outputs and
    \(\min(T^2 (in + out), T\, in\, out)\) operations a sample and layer for T tokens. Memory: the model, one batch's activations, and
    [samples, layers] numbers. A tied tensor is one layer: the terms between its uses count.

    Data errors come from the spread of what the probes show of each sample, so they hold the probes' noise too; the probe error alone is
    known from two probes on.

    Args:
        surface: The loss; where it has no logits, the traces are of the empirical Fisher matrix, and say so.
        layers: The layers.
        seed: Of the probes. They depend on it and on the samples of a batch, not on what came before.
        probes: Random probes of each sample; more lower the probe error only, more samples both.
        exact: Whether to send the columns of \(\mathrm{diag}(p) - p p^\top\) instead, one backward pass for each class but one and each
            unit of a sample; None where that costs no more: with two classes and one unit a sample, one probe is exact.

    Yields:
        After each batch, an estimate from all samples so far for each layer that they ran.

    Raises:
        ParedownError: If logits or gradients are not finite, naming the samples, or there are no probes.
    """
    if probes < 1:
        raise ParedownError(f"expected at least one probe of each sample, got {probes}")
    means: list[Tensor] = []
    squares: list[Tensor] = []
    ran: set[str] = set()
    for batch in surface.batches:
        traces = _batch_traces(surface, layers, batch, seed, probes, exact)
        ran |= traces.ran
        means.append(traces.moments.mean)
        squares.append(traces.moments.squares)
        seen = Moments(traces.moments.count, torch.cat(means), torch.cat(squares))
        units = surface.units[: len(seen.mean)]
        value, data_sd = ratio(seen.mean, units)
        probe_sd = torch.zeros_like(value) if traces.exact else probe_error(seen, units)
        matrix: CurvatureMatrix = "ggn" if surface.logits is not None else "empirical_fisher"
        yield tuple(
            TraceEstimate(
                layer.name,
                matrix,
                float(value[i]),
                float(data_sd[i]),
                None if seen.count == 1 and not traces.exact else float(probe_sd[i]),
                len(units),
                seen.count,
                seed,
            )
            for i, layer in enumerate(layers)
            if layer.name in ran
        )


@dataclass(frozen=True, eq=False, slots=True)
class _BatchTraces:
    """One batch's: moments over the probes of [samples, layers], the layers that ran, whether the probes leave no noise."""

    moments: Moments
    ran: set[str]
    exact: bool


def _batch_traces(
    surface: LossSurface, layers: Sequence[LayerRef], batch: Batch, seed: int, probes: int, exact: bool | None
) -> _BatchTraces:
    norms = _Norms()
    with torch.enable_grad(), listening(surface.model, layers, batch, norms.heard) as calls:
        if surface.logits is None:
            output, directions, exact = surface.losses(batch), iter([torch.ones(len(batch.ids))]), True
            count = 1
        else:
            predictions = surface.logits(batch)
            output = predictions.logits
            check_finite(output, batch, "logits")
            columns = output.shape[-1] - 1
            exact = columns * int(surface.units.max()) <= probes if exact is None else exact  # the same for every batch
            count = columns * int(predictions.sample.bincount().max()) if exact else probes
            directions = (
                exact_directions(predictions) if exact else _draws(output, generator_for(seed, "gauss_newton_traces", batch.ids), probes)
            )
        moments: Moments | None = None
        for index, direction in enumerate(directions):
            norms.begin(calls, last=index == count - 1)
            torch.autograd.backward(output, direction.to(output), retain_graph=index < count - 1)
            found = torch.stack([norms.squared.get(layer.name, torch.zeros(len(batch.ids))).double().cpu() for layer in layers], 1)
            moments = Moments.of(found) if moments is None else moments.plus(found)
    assert moments is not None
    if exact:  # the columns add up
        moments = Moments.of(moments.mean * count)
    bad = (~torch.isfinite(moments.mean)).any(0).nonzero()
    if len(bad):
        raise ParedownError(
            f"the gradients of {layers[int(bad[0])].name} are NaN or infinite for the batch of samples {batch.ids[0]} to {batch.ids[-1]};"
            " look for such values in the model's weights or inputs"
        )
    return _BatchTraces(moments, {name for name, made in calls.items() if made}, exact)


def _draws(logits: Tensor, generator: torch.Generator, probes: int) -> Iterator[Tensor]:
    return (output_probe(logits, generator) for _ in range(probes))


@dataclass(frozen=True, eq=False, slots=True)
class _Factors:
    r"""What one use of a weight adds to its gradient, \(\sum_t l_t r_t^\top\), or what is left of it to meet the other uses.

    Attributes:
        left: [samples, tokens, out], or the token ids [samples, tokens] that stand for unit vectors.
        right: [samples, tokens, in].
        columns: The outputs that `left` is cut down to, ascending; None where it has all.
    """

    left: Tensor
    right: Tensor
    columns: Tensor | None = None

    @property
    def dense(self) -> bool:
        return self.left.dim() == 3


class _Norms:
    """Listens to one backward pass after the other: squared norms of each sample's gradient, per layer."""

    def begin(self, calls: dict[str, list[Call]], *, last: bool) -> None:
        """Forget the pass before.

        Args:
            calls: The forward pass's calls.
            last: Whether no other backward pass follows, so that inputs can go.
        """
        self.squared: dict[str, Tensor] = {}
        self._waiting = {name: list(made) for name, made in calls.items()}
        self._met: dict[str, list[_Factors]] = {}
        self._last = last

    def heard(self, call: Call, gradient: Tensor) -> None:
        """Add the norm of one use, and its products with the uses that came before."""
        assert call.inputs is not None
        name, inputs = call.layer.name, call.inputs
        mine = _Factors(inputs, gradient) if call.kind == "lookup" else _Factors(gradient, inputs)
        waiting, met = self._waiting[name], self._met.setdefault(name, [])
        waiting.remove(call)
        total = _squared_norms(mine)
        for other in met:
            total = total + 2 * _products(other, mine)
        self.squared[name] = self.squared[name] + total if name in self.squared else total
        if waiting:
            met.append(_kept(mine, waiting))
        if self._last:
            call.inputs = None


def _squared_norms(factors: _Factors) -> Tensor:
    r"""\(\|\sum_t l_t r_t^\top\|^2\) of each sample, the cheaper way; [samples]."""
    tokens, width = factors.right.shape[1:]
    rows = factors.left.shape[-1]
    if not factors.dense or tokens * (rows + width) < rows * width:
        return _products(factors, factors)
    step = max(1, CHUNK_BYTES // (factors.right.element_size() * rows * width))
    pairs = zip(factors.left.split(step), factors.right.split(step), strict=True)
    return torch.cat([torch.bmm(left.mT, right).flatten(1).square_().sum(1) for left, right in pairs])


def _products(first: _Factors, second: _Factors) -> Tensor:
    r"""\(\langle \sum_t l_t r_t^\top, \sum_{t'} l'_{t'} r'^\top_{t'} \rangle\) of each sample, [samples]."""
    return (torch.bmm(first.right, second.right.mT) * _left_products(first, second)).sum((1, 2))


def _left_products(first: _Factors, second: _Factors) -> Tensor:
    if first.dense and second.dense:
        return torch.bmm(first.left, second.left.mT)
    if not first.dense and not second.dense:
        return first.left[:, :, None] == second.left[:, None, :]
    if not first.dense:
        return _left_products(second, first).mT
    places = second.left if first.columns is None else torch.searchsorted(first.columns, second.left)
    return first.left.gather(2, places[:, None, :].expand(-1, first.left.shape[1], -1))


def _kept(factors: _Factors, waiting: Sequence[Call]) -> _Factors:
    """What the uses that are still to come need: of a head's gradient, the columns of the tokens that they look up."""
    if not factors.dense or any(call.kind == "dense" for call in waiting):
        return factors
    columns = torch.cat([call.inputs.flatten() for call in waiting if call.inputs is not None]).unique()
    return _Factors(factors.left[:, :, columns], factors.right, columns)
