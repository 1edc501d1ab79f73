"""One scheme on one weight: drop, round what is kept, correct what both lost. The methods themselves have files of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks
from paredown.methods.error_feedback import InverseFactor, Order, inverse_factor
from paredown.methods.factors import Bits, StoredFactors, store
from paredown.methods.gptq import gptq
from paredown.methods.low_rank import svd, whitened_svd
from paredown.methods.masks import NOfM, Pattern, Unstructured
from paredown.methods.normal_float import NormalFloat, NormalFloatFormat, dequantize_normal_float, quantize_normal_float
from paredown.methods.pruning import Pruned, prune
from paredown.methods.quantize import Quantized, quantize
from paredown.methods.quantize import dequantize as dequantize_codes
from paredown.methods.saliency import magnitude, wanda
from paredown.methods.sparse_gpt import sparse_gpt, sparse_gptq
from paredown.specs import KEEP, Scheme, Solver, Sparsity, WeightFormat

Numbers = Quantized | NormalFloat | Tensor
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
        note: What was done about degenerate input; empty where nothing was.
    """

    scheme: Scheme
    shape: tuple[int, int]
    numbers: Numbers | None
    mask: Tensor | None = None
    factors: StoredFactors | None = None
    note: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Inputs:
    """What is known of a layer's inputs, with what several schemes make of it kept.

    Attributes:
        moment: Mean of x xᵀ over tokens, [in, in].
        tokens: How many there were; None where nobody counted.
    """

    moment: Tensor
    tokens: int | None = None
    _factors: dict[tuple[Order, int], InverseFactor] = field(default_factory=dict, repr=False)

    def factor(self, order: Order, unit: int) -> InverseFactor:
        """Of the inverse second moment, made once."""
        if (order, unit) not in self._factors:
            self._factors[order, unit] = inverse_factor(self.moment, order=order, unit=unit, tokens=self.tokens)
        return self._factors[order, unit]


def compress(weight: Tensor, scheme: Scheme, inputs: Inputs | None = None, *, dtype: torch.dtype | None = None) -> Compressed:
    """Compress one weight by a scheme that fits it: prune, quantize the weights that are kept, correct what is left by low rank.

    Args:
        weight: [out, in], any floating type.
        scheme: What `paredown.sizes.fit` returned.
        inputs: Of the layer; only schemes that `needs_inputs` look at them.
        dtype: What numbers that no format quantizes are stored in; None takes the weight's own.

    Returns:
        What the file will hold.

    Raises:
        ParedownError: If the scheme keeps the weight, needs inputs and gets none, or a method refuses the weight or the inputs.
    """
    if scheme == KEEP:
        raise ParedownError("the scheme keeps the weight as it is, so that there is nothing to compress; ask for one such as int4g64")
    if scheme.needs_inputs and inputs is None:
        raise ParedownError(
            f"{scheme} is found with the second moment of the layer's inputs, which is not at hand; calibrate the layer, or take a scheme without gptq, wanda, sparsegpt and eora"
        )
    weight = checks.matrix(weight)
    shape = (weight.shape[0], weight.shape[1])
    numbers, mask, notes = _numbers(weight, scheme, inputs, dtype or weight.dtype)
    factors = None
    if scheme.low_rank is not None:
        rest = checks.finite(weight)
        rest = rest if numbers is None else rest - _dense(numbers)
        if scheme.low_rank.kind == "eora":
            correction = whitened_svd(rest, _given(inputs).moment, scheme.low_rank.rank)
        else:
            correction = svd(rest, scheme.low_rank.rank)
        factors = store(correction, cast(Bits, scheme.low_rank.bits))
        notes.append(correction.note)
    return Compressed(scheme, shape, numbers, mask, factors, "; ".join(dict.fromkeys(filter(None, notes))))


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


def _numbers(weight: Tensor, scheme: Scheme, inputs: Inputs | None, dtype: torch.dtype) -> tuple[Numbers | None, Tensor | None, list[str]]:
    format, sparsity = scheme.weight, scheme.sparsity
    if format is not None and scheme.solver == "gptq":
        if sparsity is None:
            made = gptq(weight, _given(inputs).factor("activation", 1), format)
        else:
            pattern = pattern_of(sparsity)
            made = sparse_gptq(weight, _factor(_given(inputs), pattern), pattern, format)
        return made.quantized, made.mask, [made.note]
    if sparsity is None:
        return (None if format is None else _round(weight, format, scheme)), None, []
    pruned = _pruned(weight, scheme, pattern_of(sparsity), inputs)
    numbers = checks.finite(pruned.weight).to(dtype) if format is None else _round(pruned.weight, format, scheme)
    return numbers, pruned.mask, [pruned.note]


def _pruned(weight: Tensor, scheme: Scheme, pattern: Pattern, inputs: Inputs | None) -> Pruned:
    if scheme.solver == "sparsegpt":
        return sparse_gpt(weight, _factor(_given(inputs), pattern), pattern)
    if scheme.solver == "wanda":
        return prune(weight, wanda(weight, _given(inputs).moment), pattern)
    return prune(weight, magnitude(weight), pattern)


def _round(weight: Tensor, format: WeightFormat, scheme: Scheme) -> Quantized | NormalFloat:
    if format.kind == "nf":
        return quantize_normal_float(weight, normal_float_format(format, weight.shape[1]))
    solver: Solver = "mse" if scheme.solver == "mse" else "rtn"
    return quantize(weight, format, solver)


def normal_float_format(format: WeightFormat, inputs: int) -> NormalFloatFormat:
    """How LQ-LoRA stores the scales of a format of kind ``nf``."""
    return NormalFloatFormat(format.bits, format.group_size or inputs)


def pattern_of(sparsity: Sparsity) -> Pattern:
    """A sparsity as the pruning methods take it."""
    pair = sparsity.n_of_m
    return Unstructured(sparsity.fraction) if pair is None else NOfM(*pair)


def _factor(inputs: Inputs, pattern: Pattern) -> InverseFactor:
    return inputs.factor("activation", pattern.m) if isinstance(pattern, NOfM) else inputs.factor("natural", 1)


def _given(inputs: Inputs | None) -> Inputs:
    assert inputs is not None  # `compress` has looked
    return inputs


def _dense(numbers: Numbers) -> Tensor:
    if isinstance(numbers, Quantized):
        return dequantize_codes(numbers)
    return dequantize_normal_float(numbers) if isinstance(numbers, NormalFloat) else numbers.to(torch.float32)
