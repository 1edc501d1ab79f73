"""Every scheme on one layer: bytes, predicted loss increase with its deviation, and the error of the layer's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.calibration import Captured, LayerStats, statistics
from paredown.curvature import PerSampleGradients, ratio
from paredown.errors import ParedownError
from paredown.methods import Compressed, Inputs, compress, dequantize
from paredown.methods.activations import quantize_per_token
from paredown.sizes import fit, layer_bytes
from paredown.specs import KEEP, Candidate, LayerRef, Scheme


def price(
    layer: LayerRef,
    weight: Tensor,
    captured: Captured,
    units: Tensor,
    schemes: Sequence[Scheme],
    on_made: Callable[[Compressed], None] | None = None,
) -> list[Candidate]:
    """Price the schemes on one layer.

    Args:
        layer: The layer.
        weight: Its weight, [out, in].
        captured: What it saw.
        units: Counted units of each calibration sample, [samples].
        schemes: Schemes as asked; `KEEP` is added.
        on_made: Called with each weight that was found with the layer's inputs, which can't be made again without them.

    Returns:
        The candidates.

    Raises:
        ParedownError: If the weight, the activations or the gradients hold NaN or infinite values.
    """
    effective = {scheme: fit(scheme, layer) for scheme in schemes if scheme != KEEP}
    stats = statistics(captured)
    inputs, dtype = Inputs(stats.input_second_moment, stats.tokens), getattr(torch, layer.dtype)
    errors: dict[Scheme, Tensor] = {}
    rounded: dict[Scheme, RoundedInputs] = {}
    notes: dict[Scheme, str] = {}
    for scheme in dict.fromkeys(applied for applied, _ in effective.values()):
        made = compress(weight, scheme, inputs if scheme.needs_inputs else None, dtype=dtype)
        errors[scheme], notes[scheme] = dequantize(made) - weight, made.note
        if scheme.activation is not None:
            rounded[scheme] = rounded_inputs(captured, weight, errors[scheme], scheme.activation.bits)
        if on_made is not None and scheme.needs_inputs:
            on_made(made)
    gradients = PerSampleGradients(captured)
    diagonal, full = (0.5 * form.double() for form in gradients.forms(list(errors.values())))  # [samples, schemes]
    for place, scheme in enumerate(errors):
        if scheme in rounded:
            along = gradients.products(errors[scheme][None])[:, 0].double()
            diagonal[:, place] += 0.5 * rounded[scheme].diagonal
            full[:, place] = 0.5 * (along + rounded[scheme].products).square()
    if not all(torch.isfinite(part.gradients).all() for parts in captured.batches for part in parts):
        raise ParedownError(
            f"the calibration gradients of {layer.name} are NaN or infinite; look for such values in the model's weights or inputs"
        )
    means, deviations = shrunk(diagonal, full, units)
    norm = _output_norm(weight, stats)
    predicted = {
        scheme: (
            float(mean),
            float(deviation),
            (rounded[scheme].output_error if scheme in rounded else _output_norm(error, stats)) / norm if norm else 0.0,
        )
        for (scheme, error), mean, deviation in zip(errors.items(), means, deviations, strict=True)
    }
    sizes = {scheme: float(error.double().square().sum()) for scheme, error in errors.items()}
    candidates = [Candidate(layer.name, KEEP, KEEP, layer_bytes(layer, KEEP), 0.0, 0.0, 0.0)]
    candidates += [
        Candidate(
            layer.name,
            scheme,
            applied,
            layer_bytes(layer, applied),
            *predicted[applied],
            "; ".join(filter(None, (note, notes[applied]))),
            sizes[applied],
        )
        for scheme, (applied, note) in effective.items()
    ]
    return candidates


@dataclass(frozen=True, eq=False, slots=True)
class RoundedInputs:
    r"""What rounding a layer's inputs adds to the change \(\Delta W x\) of its outputs: \(\hat W e\), \(e = \hat x - x\).

    Attributes:
        products: \(\sum_t g_t \cdot \hat W e_t\) of each sample, [samples], float64.
        diagonal: \(\sum_{t,j} (\hat W^T g_t)_j^2 e_{tj}^2\) of each sample, as if the errors were independent, [samples], float64.
        output_error: \(E\|\hat W \hat x - W x\|^2\) over real tokens.
    """

    products: Tensor
    diagonal: Tensor
    output_error: float


def rounded_inputs(captured: Captured, weight: Tensor, error: Tensor, bits: int) -> RoundedInputs:
    """See what a layer does when its inputs are rounded to each token's grid.

    Args:
        captured: What the layer saw.
        weight: W, [out, in].
        error: Ŵ - W, [out, in].
        bits: Width of an input.
    """
    compressed = weight + error
    products, diagonal, squares, tokens = [], [], 0.0, 0
    for parts in captured.batches:
        product = torch.zeros(len(parts[0].inputs), dtype=torch.float64)
        squared = product.clone()
        for part in parts:
            rounding = quantize_per_token(part.inputs, bits) - part.inputs
            seen = (part.gradients @ compressed) * rounding
            product += seen.sum((1, 2)).double()
            squared += seen.square().sum((1, 2)).double()
            change = rounding @ compressed.T + part.inputs @ error.T
            real = change.flatten(0, 1) if part.mask is None else change[part.mask]
            squares += float(real.square().sum(dtype=torch.float64))
            tokens += len(real)
        products.append(product)
        diagonal.append(squared)
    return RoundedInputs(torch.cat(products), torch.cat(diagonal), squares / max(tokens, 1))


def shrunk(diagonal: Tensor, full: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    r"""The quadratic form, shrunk towards its diagonal by what the samples don't support.

    The full form \(\frac{1}{2n} \sum_s \langle P_s, \Delta W \rangle^2\) is unbiased for any change, but noisy, and a search picks the schemes
    whose noise is lucky. Its diagonal part is far less noisy, and nearly right for rounding errors that look random; it misses what
    adds up or cancels, as with few bits. So the difference counts as far as it stands out of its own standard error \(\sigma\), by the
    positive-part rule of James and Stein (1961): \(d + \max(0, 1 - \sigma^2 / (f - d)^2)\, (f - d)\).

    Args:
        diagonal: Diagonal part of each sample, [samples, schemes].
        full: Full form of each sample, [samples, schemes].
        units: Counted units of each sample, [samples].

    Returns:
        Mean per unit and its standard error, each [schemes].
    """
    difference, noise = ratio(full - diagonal, units)
    weight = (1 - noise.square() / difference.square().clamp(min=torch.finfo(torch.float64).tiny)).clamp(min=0)
    return ratio(diagonal + weight * (full - diagonal), units)


def _output_norm(matrix: Tensor, stats: LayerStats) -> float:
    r"""\(E\|A x\|^2 = \mathrm{tr}(A\, E[x x^\top] A^\top)\); for a lookup the mean squared norm of the rows that are looked up."""
    moment = stats.input_second_moment
    if moment.dim() == 1:
        return float((matrix.square().sum(1) * moment).sum())
    return float(((matrix @ moment) * matrix).sum())
