r"""Scales of the inputs that leave the function as it is and make it easier to quantize: \(W x = (W \operatorname{diag}(s))(\operatorname{diag}(1/s)\, x)\).

The weight takes s, and what comes before the layer (a norm, the rows of another linear layer) takes 1/s. Layers that read the same
inputs share one s, so that they are scaled together.

- AWQ (Lin et al., 2024): inputs of large activation get more of the grid, \(s_j = m_j^\alpha\), with the exponent that leaves the
  least output error after rounding. Weights alone are quantized.
- SmoothQuant (Xiao et al., 2023): \(s_j = \max|x_j|^\alpha / \max|w_j|^{1-\alpha}\) moves outliers from the activations to the
  weights. Both are quantized.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks
from paredown.methods.moments import usable

EXPONENTS = tuple(step / 20 for step in range(20))
"""AWQ's grid. Its first entry is no scaling, so that the result is never worse on the data of the moment."""

_LEAST = 1e-4  # of the largest magnitude: what a dead input is taken for


@dataclass(frozen=True, eq=False, slots=True)
class Scaling:
    """A scale for each input.

    Attributes:
        scale: s, float32 [in], positive.
        exponent: α.
        errors: Mean squared output error by exponent as far as they were tried: tr(Δ M Δᵀ) summed over the layers; empty for SmoothQuant.
        note: What was done about degenerate input; empty where nothing was.
    """

    scale: Tensor
    exponent: float
    errors: tuple[float, ...] = ()
    note: str = ""


def awq(
    weights: Sequence[Tensor],
    moment: Tensor,
    round_trip: Callable[[Tensor], Tensor],
    *,
    magnitude: Tensor | None = None,
    exponents: Sequence[float] = EXPONENTS,
) -> Scaling:
    r"""Search the exponent of AWQ.

    The output error is exact for the inputs of the moment, \(\operatorname{tr}(\Delta M \Delta^T)\) with
    \(\Delta = Q(W \operatorname{diag}(s)) \operatorname{diag}(1/s) - W\); no inputs have to be kept. Scales are divided by the root of their
    largest times their smallest, as published, which only keeps them in a good range.

    Cost: for each exponent a rounding and a product [out, in] x [in, in] of each weight.

    Args:
        weights: [out, in] of each layer that reads these inputs.
        moment: Mean of x xᵀ over tokens, [in, in].
        round_trip: The quantizer: from a weight to the dense weight that its codes stand for.
        magnitude: Mean |x| of each input, [in], as published; None takes the root mean square, from the moment.
        exponents: What is tried.

    Raises:
        ParedownError: If there is no weight or no exponent, shapes differ, or something is not finite.
    """
    checked = _weights(weights)
    if not exponents:
        raise ParedownError("expected at least one exponent to try")
    moment, note = usable(moment, checked[0].shape[1])
    size = moment.diagonal().clamp(min=0).sqrt() if magnitude is None else _magnitude(magnitude, checked[0]).to(torch.float64)
    least = _LEAST * float(size.max()) or 1.0
    notes = [note] if note else []
    if small := int((size < least).sum()):
        notes.append(f"{small} inputs without activation are taken for {_LEAST:g} of the largest")
    size = size.clamp(min=least) / least
    products = moment.to(torch.float32)
    best, errors = Scaling(torch.ones_like(products[0]), 0.0), []
    for exponent in exponents:
        scale = size.pow(exponent)
        scale = (scale / (scale.max() * scale.min()).sqrt()).to(torch.float32)
        error = 0.0
        for weight in checked:
            change = round_trip(weight * scale) / scale - weight
            error += float((change @ products * change).sum(dtype=torch.float64))
        if not errors or error < min(errors):
            best = Scaling(scale, exponent)
        errors.append(error)
    return Scaling(best.scale, best.exponent, tuple(errors), "; ".join(notes))


def smooth_quant(weights: Sequence[Tensor], input_abs_max: Tensor, *, exponent: float = 0.5) -> Scaling:
    """SmoothQuant's scale. Inputs that are never active, or whose weights are all zero, keep 1.

    Args:
        weights: [out, in] of each layer that reads these inputs.
        input_abs_max: Largest magnitude of each input over the calibration data, [in].
        exponent: α: 0 leaves the activations' outliers where they are, 1 moves them to the weights altogether.

    Raises:
        ParedownError: If there is no weight, shapes differ, something is not finite, or the exponent is not from 0 to 1.
    """
    checked = _weights(weights)
    if not 0 <= exponent <= 1:
        raise ParedownError(f"the exponent is from 0 to 1, got {exponent}")
    active = _magnitude(input_abs_max, checked[0])
    largest = torch.stack([weight.abs().amax(dim=0) for weight in checked]).amax(dim=0)
    usual = (active > 0) & (largest > 0)
    one = torch.ones_like(active)
    scale = torch.where(usual, active, one).pow(exponent) / torch.where(usual, largest, one).pow(1 - exponent)
    note = "" if usual.all() else f"{int((~usual).sum())} inputs without activation or weight keep their scale"
    return Scaling(scale.clamp(torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max), exponent, note=note)


def _weights(weights: Sequence[Tensor]) -> list[Tensor]:
    checked = [checks.finite(checks.matrix(weight)) for weight in weights]
    if len({weight.shape[1] for weight in checked}) != 1:
        raise ParedownError(f"expected weights of one number of inputs, got {[list(weight.shape) for weight in checked]}")
    return checked


def _magnitude(values: Tensor, weight: Tensor) -> Tensor:
    if values.shape != weight.shape[1:] or not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise ParedownError(f"expected a finite magnitude for each of the {weight.shape[1]} inputs, got shape {list(values.shape)}")
    return values.to(torch.float32)
