"""One scheme on one weight: drop, round what is kept, correct what both lost. The methods themselves have files of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks, own
from paredown.methods.activations import StaticGrid, quantize_per_token, static_grid
from paredown.methods.criteria import factor_of, pattern_of, prune_by, solved
from paredown.methods.factors import Bits, StoredFactors, store
from paredown.methods.gptq import gptq
from paredown.methods.hqq import quantize_hqq
from paredown.methods.low_rank import svd, whitened_svd
from paredown.methods.lq_lora import decompose
from paredown.methods.microscaling import Microscaled, MicroscalingKind, dequantize_microscaling, quantize_microscaling
from paredown.methods.normal_float import NormalFloat, NormalFloatFormat, dequantize_normal_float, quantize_normal_float
from paredown.methods.pruning import Pruned
from paredown.methods.quantize import Quantized, quantize
from paredown.methods.quantize import dequantize as dequantize_codes
from paredown.methods.sawb import quantize_sawb
from paredown.methods.sign_round import sign_round
from paredown.methods.statistics import Statistics
from paredown.specs import KEEP, ActivationFormat, LowRank, Scheme, WeightFormat
from paredown.specs.own_roundings import OWN

Numbers = Quantized | NormalFloat | Microscaled | Tensor
"""A weight's numbers: codes, or kept values in the type that the file holds, zero where pruned."""


@dataclass(frozen=True, eq=False, slots=True)
class Compressed:
    """A weight as the exported file holds it, before its codes are packed.

    Attributes:
        scheme: What was done to it.
        shape: [out, in].
        numbers: Of the whole weight, pruned ones with the code of zero; None where the factors stand for it.
        mask: Bool [out, in], True where kept; None where nothing was pruned.
        factors: What is added to the numbers; None where nothing is.
        inputs: The static grid of the layer's inputs; None where they have none.
        note: What was done about degenerate input; empty where nothing was.
    """

    scheme: Scheme
    shape: tuple[int, int]
    numbers: Numbers | None
    mask: Tensor | None = None
    factors: StoredFactors | None = None
    inputs: StaticGrid | None = None
    note: str = ""

    @property
    def round_inputs(self) -> Callable[[Tensor], Tensor] | None:
        """What the layer does to its inputs [..., in]; None where it takes them as they come."""
        return input_rounding(self.scheme.activation, self.inputs)


def compress(weight: Tensor, scheme: Scheme, seen: Statistics | None = None, *, dtype: torch.dtype | None = None) -> Compressed:
    """Compress one weight by a scheme that fits it: prune, quantize the weights that are kept, correct what is left by low rank.

    Args:
        weight: [out, in], any floating type.
        scheme: What `paredown.sizes.fit` returned.
        seen: Of the layer; only schemes that `needs_calibration` look at it.
        dtype: What numbers that no format quantizes are stored in; None takes the weight's own.

    Returns:
        What the file will hold.

    Raises:
        ParedownError: If the scheme keeps the weight, needs calibration and gets none, or a method refuses the weight or what was seen.
    """
    if scheme == KEEP:
        raise ParedownError("the scheme keeps the weight as it is, so that there is nothing to compress; ask for one such as int4g64")
    if scheme.needs_calibration and seen is None:
        raise ParedownError(
            f"{scheme} is found with what calibration sees of the layer, which is not at hand; calibrate the layer, or take a scheme such as int4g64-mse, 2:4 or svd16"
        )
    checks.matrix(weight)
    shape = (weight.shape[0], weight.shape[1])
    low_rank, notes = scheme.low_rank, [] if weight[0].any() or weight.any() else ["all weights are zero, and stay so"]
    pruned = None if scheme.sparsity is None else prune_by(weight, scheme, seen)
    numbers = factors = None
    if low_rank is not None and low_rank.kind == "lq":
        assert scheme.weight is not None
        numbers, factors, note = _in_turns(weight, scheme.weight, scheme, low_rank, _given(seen))
        notes.append(note)
    elif scheme.weight is not None:
        numbers, note = _round(weight, pruned, scheme.weight, scheme, seen)
        notes += ["" if pruned is None else pruned.note, note]
    elif pruned is not None:
        numbers = checks.finite(pruned.weight).to(dtype or weight.dtype)
        notes.append(pruned.note)
    if low_rank is not None and factors is None:
        factors, note = _correction(weight, numbers, low_rank, seen)
        notes.append(note)
    inputs = None
    if scheme.activation is not None and scheme.activation.static:
        inputs = static_grid(_given(seen).range(scheme.activation.bits), scheme.activation.bits)
    mask = None if pruned is None else pruned.mask
    return Compressed(
        scheme, shape, numbers, mask, factors, inputs, "; ".join(dict.fromkeys(part for note in notes for part in note.split("; ") if part))
    )


def dequantize(made: Compressed | Quantized) -> Tensor:
    """The weight that the file stands for, float32 [out, in]: exactly what a reader of the file computes."""
    if isinstance(made, Quantized):
        return dequantize_codes(made)
    numbers = None if made.numbers is None else _dense(made.numbers)
    if made.factors is None:
        assert numbers is not None
        return numbers
    product = made.factors.dense()
    return product if numbers is None else numbers + product


def input_rounding(format: ActivationFormat | None, static: StaticGrid | None) -> Callable[[Tensor], Tensor] | None:
    """What a format does to a layer's inputs [..., in]; a static one has its grid."""
    if static is not None:
        return static.round
    return None if format is None else lambda x: quantize_per_token(x, format.bits)


def normal_float_format(format: WeightFormat, inputs: int) -> NormalFloatFormat:
    """How LQ-LoRA stores the scales of a format of kind ``nf``."""
    return NormalFloatFormat(format.bits, format.group_size or inputs)


def microscaling_kind(format: WeightFormat) -> MicroscalingKind:
    """The name of a format of kind ``mxfp`` or ``nvfp``."""
    return "mxfp4" if format.kind == "mxfp" else "nvfp4"


def _round(
    weight: Tensor, pruned: Pruned | None, format: WeightFormat, scheme: Scheme, seen: Statistics | None
) -> tuple[Quantized | NormalFloat | Microscaled, str]:
    if not scheme.is_solved:
        return _nearest(weight if pruned is None else pruned.weight, format, scheme), ""
    seen = _given(seen)
    pattern = None if scheme.sparsity is None else pattern_of(scheme.sparsity)
    if pruned is not None:
        weight = solved(weight, pruned, scheme.criterion, factor_of(pattern, seen))
    if scheme.rounding == "signround":
        return sign_round(weight, seen.moment, format), seen.note
    if scheme.rounding in OWN:
        return own.apply(scheme.rounding, weight, format, seen), seen.note
    made = gptq(weight, factor_of(pattern, seen), format, mask=None if pruned is None else pruned.mask)
    return made.quantized, made.note


def _nearest(weight: Tensor, format: WeightFormat, scheme: Scheme) -> Quantized | NormalFloat | Microscaled:
    """Codes of each weight for itself; zeros stay."""
    if format.kind == "nf":
        return quantize_normal_float(weight, normal_float_format(format, weight.shape[1]))
    if format.kind != "int":
        return quantize_microscaling(weight, microscaling_kind(format))
    if scheme.rounding == "sawb":
        return quantize_sawb(weight, format)
    if scheme.rounding == "hqq":
        return quantize_hqq(weight, format)
    if scheme.rounding in OWN:
        return own.apply(scheme.rounding, weight, format, None)
    return quantize(weight, format, "mse" if scheme.rounding == "mse" else "rtn")


def _in_turns(
    weight: Tensor, format: WeightFormat, scheme: Scheme, low_rank: LowRank, seen: Statistics
) -> tuple[Numbers, StoredFactors, str]:
    found = decompose(weight, low_rank.rank, lambda rest: _nearest(rest, format, scheme), _dense, fisher=seen.fisher(len(weight)))
    return found.quantized, store(found.factors, cast(Bits, low_rank.bits)), found.note


def _correction(weight: Tensor, numbers: Numbers | None, low_rank: LowRank, seen: Statistics | None) -> tuple[StoredFactors, str]:
    rest = checks.finite(weight.detach())
    rest = rest if numbers is None else rest - _dense(numbers)
    found = whitened_svd(rest, _given(seen).moment, low_rank.rank) if low_rank.kind == "eora" else svd(rest, low_rank.rank)
    return store(found, cast(Bits, low_rank.bits)), f"{found.note}; {_given(seen).note}" if low_rank.kind == "eora" else found.note


def _given(seen: Statistics | None) -> Statistics:
    assert seen is not None  # `compress` has looked
    return seen


def _dense(numbers: Numbers) -> Tensor:
    if isinstance(numbers, Tensor):
        return numbers.to(torch.float32)
    if isinstance(numbers, Quantized):
        return dequantize_codes(numbers)
    return dequantize_normal_float(numbers) if isinstance(numbers, NormalFloat) else dequantize_microscaling(numbers)
