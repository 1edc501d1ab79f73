"""Weights in the form that is multiplied fastest: packed by oneDNN once, kept by layer and scheme up to a limit in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from paredown.apply import Variants
from paredown.kernels import pack, prepare
from paredown.specs import KEEP, LayerRef, Precision, Scheme

Form = Literal["rows", "product"]
"""What a module does with a weight: looks up its rows, or multiplies by it. Of a tied tensor both may be needed."""


@dataclass(frozen=True, eq=False, slots=True)
class Prepared:
    """A layer under a scheme, ready to compute.

    Attributes:
        compute: Inputs [..., in], or ids [...], and the module's bias, to outputs [..., out]; inputs are rounded here where the scheme says so.
        bytes: What it holds in memory.
    """

    compute: Callable[[Tensor, Tensor | None], Tensor]
    bytes: int


Key = tuple[str, Scheme, Form]


class PreparedWeights:
    """Every (layer, scheme) variant that was asked for, prepared once; those that were not used for longest go first.

    What the plan at hand uses is not dropped for its own sake: a plan that does not fit keeps as much of itself as fits, and the rest is
    made again for each batch, for to drop the oldest would drop everything in each round through the layers.

    Args:
        variants: Makes the dequantized weights; its own cache may be small.
        layers: The layers that plans decide on.
        precision: Of weights and products. With ``int8``, whatever our kernels can hold is multiplied by them.
        max_bytes: Bytes of prepared weights to keep.
    """

    def __init__(self, variants: Variants, layers: Sequence[LayerRef], precision: Precision, max_bytes: int) -> None:
        self._variants, self._precision, self._max_bytes = variants, precision, max_bytes
        self._layers = {layer.name: layer for layer in layers}
        self._kept: OrderedDict[Key, Prepared] = OrderedDict()
        self._in_use: Collection[tuple[str, Scheme]] = ()
        self._calibrated: set[tuple[str, Scheme]] = set()
        self.bytes = 0
        """Bytes that are kept; at most ``max_bytes``."""
        self.made = 0
        """How often a weight was prepared."""

    def calibrate(self, schemes: Mapping[str, Scheme]) -> None:
        """See that what needs calibration can be made while the model is not itself: whoever kept it may have to run the model for it.

        Args:
            schemes: Layer name to a scheme that fits it.

        Raises:
            ParedownError: If a weight can't be compressed.
        """
        for name, scheme in schemes.items():
            if scheme.needs_calibration and (name, scheme) not in self._calibrated:
                self._variants.variant(name, scheme)
                self._calibrated.add((name, scheme))

    def use(self, schemes: Mapping[str, Scheme]) -> None:
        """Say which schemes are in use from here on, by layer."""
        self._in_use = set(schemes.items())

    def get(self, name: str, scheme: Scheme, form: Form) -> Prepared:
        """A layer under a scheme that fits it."""
        key = (name, scheme, form)
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        made = self._make(name, scheme, form)
        self.made += 1
        for old in [old for old in self._kept if (old[0], old[1]) not in self._in_use]:
            if self.bytes + made.bytes <= self._max_bytes:
                break
            self.bytes -= self._kept.pop(old).bytes
        if self.bytes + made.bytes <= self._max_bytes:
            self._kept[key] = made
            self.bytes += made.bytes
        return made

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self.bytes = 0

    @torch.inference_mode(False)  # its tensors could not be used where gradients are taken, and the variants keep them
    @torch.no_grad()
    def _make(self, name: str, scheme: Scheme, form: Form) -> Prepared:
        if self._precision == "int8" and form == "product" and scheme != KEEP:
            kernel = prepare(pack(self._variants.compressed(name, scheme)), "int8")
            if kernel.backend == "ours":
                return Prepared(lambda inputs, bias: kernel.multiply(inputs, bias, "none"), kernel.bytes)
        variant = self._variants.variant(name, scheme)
        weight, round_inputs = variant.weight.detach(), variant.round_inputs
        weight = weight.T if self._layers[name].kind == "conv1d" else weight
        weight = weight.to(torch.bfloat16) if self._precision == "bfloat16" else weight
        if form == "rows":
            return Prepared(rows_of(weight), weight.nbytes)
        multiply = product_with(weight)
        if round_inputs is None:
            return Prepared(multiply, weight.nbytes)
        return Prepared(lambda inputs, bias: multiply(round_inputs(inputs), bias), weight.nbytes)


def rows_of(weight: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Look up rows of a weight [rows, dim]."""
    return lambda ids, _: nn.functional.embedding(ids, weight)


def product_with(weight: Tensor) -> Callable[[Tensor, Tensor | None], Tensor]:
    """Multiply by a weight [out, in], packed where oneDNN can; inputs of another dtype are cast."""
    dtype = weight.dtype
    if not is_packed(weight):
        weight = weight.contiguous()
        return lambda inputs, bias: nn.functional.linear(inputs.to(dtype), weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda inputs, bias: multiply(inputs.to(dtype), packed, bias, "none", [], "")


def is_packed(weight: Tensor) -> bool:
    """Whether oneDNN packs such a weight: on the CPU, float32, and bfloat16 where the machine has instructions for it."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available() or weight.numel() == 0:
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
