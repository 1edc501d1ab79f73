r"""What a scheme does to a layer's own outputs, from the second moment of its inputs alone: no forward pass for any scheme."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor

from paredown.apply import Variants
from paredown.errors import ParedownError
from paredown.sizes import fit
from paredown.specs import KEEP, LayerRef, Scheme
from paredown.symmetric import quadratic


def output_errors(
    variants: Variants, layers: Sequence[LayerRef], moments: Mapping[str, Tensor], schemes: Sequence[Scheme]
) -> dict[str, dict[Scheme, float]]:
    r"""Relative squared error of every layer's output under every scheme.

    \[ \frac{E\|\Delta W x\|^2}{E\|W x\|^2} = \frac{\mathrm{tr}(\Delta W H \Delta W^\top)}{\mathrm{tr}(W H W^\top)}, \quad H = E[x x^\top] . \]

    It knows nothing of the loss, so that it orders the schemes of one layer and not the layers; what it leaves over is to be confirmed by
    evaluating it. Half a product of [out, in] by [in, in] for each pair; of a lookup the rows that the data reads.

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
        effective = [fit(scheme, layer)[0] for scheme in schemes]
        weight, squared_norm = _parts(variants, layer, moments[layer.name])
        original = weight(KEEP)
        norm = squared_norm(original)
        known = {scheme: squared_norm(weight(scheme) - original) / norm if norm else 0.0 for scheme in dict.fromkeys(effective)}
        table[layer.name] = {scheme: known[fitted] for scheme, fitted in zip(schemes, effective, strict=True)}
    return table


def _parts(variants: Variants, layer: LayerRef, moment: Tensor) -> tuple[Callable[[Scheme], Tensor], Callable[[Tensor], float]]:
    """What of a weight counts under a scheme: all of a matrix, the rows of a table that are read; and the mean squared norm of its outputs."""
    if moment.dim() == 1:
        read = moment.nonzero()[:, 0]
        return partial(variants.rows, layer.name, chosen=read), lambda table: float(table.square().sum(1) @ moment[read])
    transposed = layer.kind == "conv1d"

    def weight(scheme: Scheme) -> Tensor:
        found = variants.weight(layer.name, scheme)
        return found.T if transposed else found

    return weight, lambda matrix: quadratic(matrix, moment)
