"""The scales of every folding of a model: searched (AWQ) or computed (SmoothQuant) one after the other, and folded at once.

Rows come before norms, as `paredown.folding.find_foldings` returns them: dividing the rows of v and up changes their part in the error that
the search for their norm sees. So each search sees the weights that are rounded in the end, and none leaves more error than no scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paredown.errors import ParedownError
from paredown.folding.foldings import Folding, fold_
from paredown.folding.inputs import Seen
from paredown.layers import weight_of
from paredown.methods import dequantize, quantize
from paredown.methods.scaling import Scaling, awq, smooth_quant
from paredown.sizes import fit
from paredown.specs import LayerRef, ScalingMethod, Scheme, WeightFormat


@dataclass(frozen=True, eq=False, slots=True)
class Scaled:
    """A folding with its scale.

    Attributes:
        folding: Where.
        scaling: s [in], its exponent, and AWQ's errors by exponent, the first of which is 0: no scale.
    """

    folding: Folding
    scaling: Scaling


@torch.no_grad()
def scale_(
    model: nn.Module,
    layers: Mapping[str, LayerRef],
    foldings: Sequence[Folding],
    seen: Mapping[Folding, Seen],
    method: ScalingMethod,
    format: WeightFormat | None = None,
) -> list[Scaled]:
    """Find the scales of all foldings and fold them, in place.

    Args:
        model: The model.
        layers: Its layers by name.
        foldings: Where, in this order.
        seen: What their readers see.
        method: How the scales are found.
        format: What AWQ searches for; each layer gets it as `paredown.sizes.fit` has it.

    Raises:
        ParedownError: If AWQ has no format, or weights or inputs are not finite.
    """
    if method == "awq" and format is None:
        raise ParedownError("AWQ searches the scales for an int format; give one, such as int4g64")
    done: list[Scaled] = []
    for folding in foldings:
        weights = [weight_of(model, layers[name]).float() for name in folding.readers]
        try:
            if format is not None and method == "awq":
                scaling = _awq(folding, weights, seen[folding], fit(Scheme(format), layers[folding.readers[0]])[0].weight or format)
            else:
                scaling = _smooth(folding, weights, seen[folding])
        except ParedownError as error:
            raise ParedownError(f"{folding}: {error}") from error
        fold_(model, layers, folding, scaling.scale)
        done.append(Scaled(folding, scaling))
    return done


@torch.no_grad()
def round_(model: nn.Module, layers: Mapping[str, LayerRef], foldings: Sequence[Folding]) -> None:
    """Round the layers that were folded to the checkpoint's dtype, in place: what is kept is stored in it. Norms and biases stay as they are."""
    for name in dict.fromkeys(name for folding in foldings for name in (folding.source, *folding.readers) if name in layers):
        weight = weight_of(model, layers[name])
        weight.copy_(weight.to(getattr(torch, layers[name].dtype)))


def _awq(folding: Folding, weights: Sequence[Tensor], seen: Seen, format: WeightFormat) -> Scaling:
    def round_trip(weight: Tensor) -> Tensor:
        return dequantize(quantize(weight, format))

    square = seen.moment.diagonal().clamp(min=0)
    return awq(weights, seen.moment, round_trip, magnitude=_shared(folding, square, "mean").sqrt().float())


def _smooth(folding: Folding, weights: Sequence[Tensor], seen: Seen) -> Scaling:
    largest = torch.stack([weight.abs().amax(dim=0) for weight in weights]).amax(dim=0)
    return smooth_quant([_shared(folding, largest, "amax")[None]], _shared(folding, seen.largest, "amax"))


def _shared(folding: Folding, values: Tensor, reduce: str) -> Tensor:
    """One value for all inputs that come from one element of the source, [in]."""
    if folding.repeats == 1:
        return values
    index = folding.index(len(values))
    elements = values.new_zeros(int(index.max()) + 1)
    return elements.scatter_reduce(0, index, values, reduce, include_self=False)[index]
