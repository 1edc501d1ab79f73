r"""Curvature with respect to the outputs of layers: what rounding an activation costs, channel by channel.

With z the outputs of a layer, the second-order cost of a change \(\delta z\) with independent entries is
\(\frac1{2N} \sum_s \sum_{t,j} [\nabla_z^2 \ell_s]_{tj,tj}\, \delta z_{stj}^2\): the diagonal, summed here over the tokens of each channel j.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from paredown.calibration import Call, listening
from paredown.curvature.double_backward import GRAPH_BYTES, bytes_of_a_sample, pieces
from paredown.curvature.output_space import output_graph
from paredown.curvature.probes import generator_for, output_probe, signs
from paredown.curvature.surface import LossSurface
from paredown.curvature.uncertainty import Moments, probe_error, ratio
from paredown.errors import ParedownError
from paredown.specs import LayerRef, TraceEstimate
from paredown.tasks import Batch


@dataclass(frozen=True, eq=False, slots=True)
class ActivationCurvature:
    r"""Curvature of the loss in the outputs of one layer, per counted unit.

    Attributes:
        trace: Its trace over all channels and tokens; with one probe its data error holds the probe's noise.
        channels: Each channel's part of it, [out]; summed over tokens.
    """

    trace: TraceEstimate
    channels: Tensor


def activation_curvature(
    surface: LossSurface,
    layers: Sequence[LayerRef],
    *,
    matrix: Literal["ggn", "hessian"] = "ggn",
    seed: int,
    probes: int = 1,
    limit_bytes: int = GRAPH_BYTES,
) -> tuple[ActivationCurvature, ...]:
    r"""Curvature with respect to the outputs of layers.

    Gauss-Newton: squares of an output probe's gradients, \(E[u_{tj}^2]\), one backward pass a probe for all layers. Hessian: signs E times the
    product \(\nabla_z^2 \ell_s E\), one product a layer, batch and probe (Bekas, Kokiopoulou, Saad, "An estimator for the diagonal of a
    matrix", 2007). Padded tokens don't count. Of an embedding that is tied to the head, the outputs are those of the lookups.

    Args:
        surface: The loss, with logits for the Gauss-Newton matrix.
        layers: The layers.
        matrix: Which.
        seed: Of the probes; they depend on it and on the samples of a batch.
        probes: Of each sample.
        limit_bytes: What a graph of second derivatives may take.

    Returns:
        One value a layer.

    Raises:
        ParedownError: If there are no probes, or no logits for the Gauss-Newton matrix, or a loss or derivative is not finite.
    """
    if probes < 1:
        raise ParedownError(f"expected at least one probe of each sample, got {probes}")
    if matrix == "ggn" and surface.logits is None:
        raise ParedownError("expected a loss with logits for the Gauss-Newton matrix, got one without; ask for matrix='hessian'")
    batches: Iterable[Batch] = surface.batches
    if matrix == "hessian":
        each = bytes_of_a_sample(surface.batches, lambda batch: output_graph(surface, batch, layers))
        batches = pieces(surface, max(1, limit_bytes // each))
    draw: Callable[[Batch], Iterator[list[Tensor]]] = (
        (lambda batch: _gauss_newton(surface, layers, batch, seed, probes))
        if matrix == "ggn"
        else (lambda batch: _hessian(surface, layers, batch, seed, probes))
    )
    channels = [torch.zeros(0)] * len(layers)
    means: list[Tensor] = []
    squares: list[Tensor] = []
    for batch in batches:
        moments: Moments | None = None
        for found in draw(batch):  # one [samples, out] a layer
            traces = torch.stack([part.sum(1) for part in found], 1)
            moments = Moments.of(traces) if moments is None else moments.plus(traces)
            parts = [part.sum(0) / probes / surface.total_units for part in found]
            channels = [part if not len(total) else total + part for total, part in zip(channels, parts, strict=True)]
        assert moments is not None
        means.append(moments.mean)
        squares.append(moments.squares)
    seen = Moments(probes, torch.cat(means), torch.cat(squares))
    if not bool(torch.isfinite(seen.mean).all()):
        name = layers[int((~torch.isfinite(seen.mean)).any(0).nonzero()[0])].name
        raise ParedownError(
            f"the derivatives at the outputs of {name} are NaN or infinite; look for such values in the model's weights or inputs"
        )
    value, data_sd = ratio(seen.mean, surface.units)
    probe_sd = probe_error(seen, surface.units)
    data_sd = data_sd if probes == 1 else (data_sd.square() - probe_sd.square()).clamp(min=0).sqrt()
    return tuple(
        ActivationCurvature(
            TraceEstimate(
                layer.name,
                matrix,
                float(value[i]),
                float(data_sd[i]),
                None if probes == 1 else float(probe_sd[i]),
                surface.samples,
                probes,
                seed,
            ),
            channels[i],
        )
        for i, layer in enumerate(layers)
    )


def _gauss_newton(surface: LossSurface, layers: Sequence[LayerRef], batch: Batch, seed: int, probes: int) -> Iterator[list[Tensor]]:
    found: dict[str, Tensor] = {}

    def heard(call: Call, gradient: Tensor) -> None:
        if not _counts(call):
            return
        found[call.layer.name] = found.get(call.layer.name, 0) + gradient.square().sum(1).double()

    assert surface.logits is not None
    with torch.enable_grad(), listening(surface.model, layers, batch, heard):
        logits = surface.logits(batch).logits
        generator = generator_for(seed, "activation_curvature", batch.ids)
        for index in range(probes):
            found.clear()
            torch.autograd.backward(logits, output_probe(logits, generator), retain_graph=index < probes - 1)
            yield [found.get(layer.name, _nothing(layer, batch)) for layer in layers]


def _hessian(surface: LossSurface, layers: Sequence[LayerRef], batch: Batch, seed: int, probes: int) -> Iterator[list[Tensor]]:
    graph = output_graph(surface, batch, layers)
    generator = generator_for(seed, "activation_curvature", batch.ids)
    for _ in range(probes):
        found = [_nothing(layer, batch) for layer in layers]
        for i, layer in enumerate(layers):
            calls = [j for j, call in enumerate(graph.calls) if call.layer.name == layer.name and _counts(call)]
            moves = [signs(graph.calls[j].outputs, graph.gradients[j].detach(), generator) for j in calls]
            for move, curved in zip(moves, graph.products(moves, calls) if calls else [], strict=True):
                found[i] = found[i] + (move * curved).sum(1).double()
        yield found


def _counts(call: Call) -> bool:
    return call.kind == "lookup" or call.layer.kind != "embedding"


def _nothing(layer: LayerRef, batch: Batch) -> Tensor:
    """Of a layer that the batch doesn't run, or that the loss doesn't depend on."""
    width = layer.shape[1] if layer.kind == "embedding" else layer.shape[0]
    return torch.zeros(len(batch.ids), width, dtype=torch.float64)
