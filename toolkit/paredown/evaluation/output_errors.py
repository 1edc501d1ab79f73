r"""What a scheme does to a layer's own outputs, from the second moment of its inputs alone: no forward pass for any scheme."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from paredown.apply import Variants
from paredown.errors import ParedownError
from paredown.evaluation.weights import product_with
from paredown.sizes import fit
from paredown.specs import KEEP, LayerRef, Scheme


def output_errors(
    variants: Variants, layers: Sequence[LayerRef], moments: Mapping[str, Tensor], schemes: Sequence[Scheme]
) -> dict[str, dict[Scheme, float]]:
    r"""Relative squared error of every layer's output under every scheme.

    \[ \frac{E\|\Delta W x\|^2}{E\|W x\|^2} = \frac{\mathrm{tr}(\Delta W H \Delta W^\top)}{\mathrm{tr}(W H W^\top)}, \quad H = E[x x^\top] . \]

    It knows nothing of the loss, so that it orders the schemes of one layer and not the layers; what it leaves over is to be confirmed by
    evaluating it. One product of [out, in] by [in, in] for each pair.

    Args:
        variants: Makes the weights.
        layers: The layers.
        moments: H of each layer [in, in], or the share of each row [rows] of a lookup, as `paredown.curvature.input_moment` gives them.
        schemes: The schemes.

    Returns:
        Layer name to scheme, as asked, to error; 0 where a layer gives nothing but zeros.

    Raises:
        ParedownError: If a scheme rounds inputs: the second moment does not say what that does.
    """
    if rounding := [scheme for scheme in schemes if scheme.activation is not None]:
        raise ParedownError(f"{rounding[0]} rounds inputs, which their second moment says nothing about; leave it out, or evaluate it")
    table: dict[str, dict[Scheme, float]] = {}
    for layer in layers:
        squared_norm, original = _squared_norm(moments[layer.name]), variants.weight(layer.name, KEEP)
        norm = squared_norm(_rows(original, layer))
        known: dict[Scheme, float] = {}
        for scheme in {fit(scheme, layer)[0] for scheme in schemes}:
            error = squared_norm(_rows(variants.weight(layer.name, scheme) - original, layer))
            known[scheme] = error / norm if norm else 0.0
        table[layer.name] = {scheme: known[fit(scheme, layer)[0]] for scheme in schemes}
    return table


def _rows(weight: Tensor, layer: LayerRef) -> Tensor:
    return weight.detach().T if layer.kind == "conv1d" else weight.detach()


def _squared_norm(moment: Tensor) -> Callable[[Tensor], float]:
    """Of a matrix [out, in]: the mean squared norm of its outputs; of a table the mean of its rows'."""
    if moment.dim() == 1:
        return lambda table: float((table.square().sum(1) * moment).sum())
    product = product_with(moment)  # it is symmetric

    @torch.inference_mode()
    def of(matrix: Tensor) -> float:
        matrix = matrix.contiguous()
        return float(torch.dot(product(matrix, None).flatten(), matrix.flatten()))

    return of
