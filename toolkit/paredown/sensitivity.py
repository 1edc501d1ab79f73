"""Every scheme on one layer: bytes, predicted loss increase with its deviation, and the error of the layer's output."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from paredown.calibration import Captured, LayerStats, statistics
from paredown.curvature import PerSampleGradients, ratio
from paredown.errors import ParedownError
from paredown.methods import Compressed, Inputs, compress, dequantize
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
    inputs, dtype = Inputs(stats), getattr(torch, layer.dtype)
    errors: dict[Scheme, Tensor] = {}
    notes: dict[Scheme, str] = {}
    for scheme in dict.fromkeys(applied for applied, _ in effective.values()):
        made = compress(weight, scheme, inputs if scheme.needs_inputs else None, dtype=dtype)
        errors[scheme], notes[scheme] = dequantize(made) - weight, made.note
        if on_made is not None and scheme.needs_inputs:
            on_made(made)
    gradients = PerSampleGradients(captured)
    diagonal, full = (0.5 * form.double() for form in gradients.forms(list(errors.values())))  # [samples, schemes]
    if not all(torch.isfinite(part.gradients).all() for parts in captured.batches for part in parts):
        raise ParedownError(
            f"the calibration gradients of {layer.name} are NaN or infinite; look for such values in the model's weights or inputs"
        )
    means, deviations = shrunk(diagonal, full, units)
    norm = _output_norm(weight, stats)
    predicted = {
        scheme: (float(mean), float(deviation), _output_norm(error, stats) / norm if norm else 0.0)
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
