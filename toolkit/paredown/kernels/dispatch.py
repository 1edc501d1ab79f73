"""Which code multiplies with a packed weight: chosen once, when the weight is loaded, with a reason for every backend passed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from paredown.errors import ParedownError
from paredown.kernels import reference
from paredown.kernels.cpu.gather import gather
from paredown.kernels.cpu.library import load
from paredown.kernels.cpu.weight import Activation, KernelWeight, Precision, refusal
from paredown.kernels.packing import Packed, unpack
from paredown.methods import Quantized
from paredown.methods.activations import quantize_per_token

Backend = Literal["ours", "int4pack", "dense", "reference"]
"""``ours``: the kernels of `paredown.kernels.cpu`. ``int4pack``: torch's own for 4 bits and bfloat16 inputs. ``dense``: dequantized when
loaded, then torch's ordinary product; exact, but neither small nor faster. ``reference``: unpacked anew on every call; small and slow."""

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda y: y,
    "gelu": functional.gelu,
    "gelu_tanh": lambda y: functional.gelu(y, approximate="tanh"),
    "silu": functional.silu,
    "relu": torch.relu,
}
_INT4PACK_GROUPS = (32, 64, 128, 256)

Multiply = Callable[[Tensor, Tensor | None, Activation], Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class Kernel:
    """A weight, ready to be multiplied with.

    Attributes:
        backend: What multiplies.
        precision: What inputs are rounded to while they are multiplied.
        how: The backend in words, with the instruction set.
        passed_over: Better backends that can't serve this weight, and why.
        bytes: Bytes that the backend reads of the weight.
        multiply: From inputs, bias and activation to results.
    """

    backend: Backend
    precision: Precision
    how: str
    passed_over: tuple[tuple[Backend, str], ...]
    bytes: int
    multiply: Multiply

    def __str__(self) -> str:
        return "; ".join([self.how, *(f"not {backend}: {why}" for backend, why in self.passed_over)])


class _UnfitError(Exception):
    """A backend can't serve a weight."""


def prepare(
    packed: Packed,
    precision: Precision | None = None,
    *,
    backend: Backend | None = None,
    dtype: torch.dtype = torch.float32,
    isa: str | None = None,
) -> Kernel:
    """Choose what multiplies with a weight: the first backend of `Backend` that can.

    Args:
        packed: As the file holds it.
        precision: Of the inputs while they are multiplied. None takes what the scheme promises: ``int8`` where it rounds the inputs,
            else ``bf16``. ``int8`` rounds each token's inputs in each group of the weight by themselves, a finer grid than the
            reference's, which has one for each token.
        backend: Force this one.
        dtype: Of the inputs that will come.
        isa: Force this instruction set of ours; None takes the machine's fastest, or `PAREDOWN_ISA`.

    Raises:
        ParedownError: If the forced backend can't serve the weight.

    Example:
        >>> from paredown.kernels import pack
        >>> from paredown.methods import compress
        >>> from paredown.specs import Scheme
        >>> packed = pack(compress(torch.eye(64), Scheme.parse("int4g32")))
        >>> kernel = prepare(packed, backend="reference")
        >>> str(kernel), kernel.bytes
        ('plain torch, unpacked on every call', 2368)
    """
    if precision is None:
        precision = "bf16" if packed.scheme.activation is None else "int8"
    if backend is not None and backend not in get_args(Backend):
        raise ParedownError(f"expected a backend, one of {', '.join(get_args(Backend))}, got {backend!r}")
    passed_over: list[tuple[Backend, str]] = []
    for name in (backend,) if backend is not None else get_args(Backend):
        try:
            how, size, multiply, used = _PREPARE[name](packed, precision, dtype, isa)
        except _UnfitError as unfit:
            passed_over.append((name, str(unfit)))
        else:
            return Kernel(name, used, how, tuple(passed_over), size, multiply)
    raise ParedownError(f"{backend} can't multiply with {packed.scheme}: {passed_over[0][1]}; leave the backend to the dispatch")


def linear(x: Tensor, packed: Packed | Kernel, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    """activation(X Wᵀ + bias): by the backend that was chosen, or by the reference for a weight that none was chosen for.

    Args:
        x: [..., in].
        packed: The weight [out, in].
        bias: [out] or None.
        activation: Applied to the result.

    Returns:
        [..., out], of the dtype of ``x``.
    """
    if isinstance(packed, Kernel):
        return packed.multiply(x, bias, activation)
    return _ACTIVATIONS[activation](reference.linear(x, packed, bias))


def embedding(ids: Tensor, packed: Packed) -> Tensor:
    """The rows of the weight, gathered straight from their packed words where our kernels can; the same numbers as the reference's.

    Args:
        ids: Whole numbers of any shape [...].
        packed: The weight [rows, dim].

    Returns:
        float32 [..., dim].
    """
    library, _ = load()
    if library is None or not packed.scheme.is_plain or packed.tensors["weight_packed"].device.type != "cpu" or ids.device.type != "cpu":
        return reference.embedding(ids, packed)
    return gather(library, ids, packed)


_Prepared = tuple[str, int, Multiply, Precision]


def _ours(packed: Packed, precision: Precision, dtype: torch.dtype, isa: str | None) -> _Prepared:
    library, reason = load()
    if library is None:
        raise _UnfitError(reason)
    device = next(iter(packed.tensors.values())).device
    if device.type != "cpu":
        raise _UnfitError(f"the weight is on {device}, and these kernels run on CPUs")
    if why := refusal(packed):
        raise _UnfitError(why)
    weight = KernelWeight(packed, isa)
    format, round_inputs = packed.scheme.activation, packed.round_inputs
    bits = 8 if format is None else format.bits
    # codes of a table, and inputs on a grid with a zero point, are multiplied as bf16, with inputs rounded before
    rounded = (format is not None and format.static) or (precision == "int8" and "table" in weight.tensors)
    used: Precision = "bf16" if rounded and precision == "int8" else precision
    if used == "bf16" and not weight.isa.bf16:
        used = "float32"

    def multiply(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        x = (round_inputs(x) if round_inputs else quantize_per_token(x, bits)) if rounded else x
        return weight.linear(x, bias, activation, precision=used, input_bits=bits)

    inputs = {"int8": f"int{bits} inputs", "bf16": "bfloat16 inputs", "float32": "float32 inputs"}[used]
    return f"our kernel, {weight.isa.name}, {inputs}{f' rounded to int{bits} before' if rounded else ''}", weight.bytes, multiply, used


def _int4pack(packed: Packed, precision: Precision, dtype: torch.dtype, isa: str | None) -> _Prepared:
    scheme, (out, inputs) = packed.scheme, packed.shape
    if not scheme.is_plain or scheme.weight is None or scheme.weight.bits != 4:
        raise _UnfitError("it takes plain integers of 4 bits")
    if precision != "bf16" or dtype is not torch.bfloat16:
        raise _UnfitError("it takes bfloat16 inputs; with others it is a hundred times slower")
    group = scheme.weight.group_size or inputs
    if group not in _INT4PACK_GROUPS or inputs % group or out % 16:
        raise _UnfitError(f"it takes groups of {', '.join(map(str, _INT4PACK_GROUPS))} and outputs that 16 divides, not {group} and {out}")
    if next(iter(packed.tensors.values())).device.type != "cpu":
        raise _UnfitError("the weight is not on the CPU")
    made = unpack(packed).numbers
    assert isinstance(made, Quantized)
    scales = made.scales.float()
    middle = scales * 8 if made.zero_points is None else scales * made.zero_points.float()
    factors = torch.stack([scales.T, (8 * scales - middle).T], -1).bfloat16().contiguous()  # torch has (q - 8) scale + zero
    codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(made.codes.int(), 1)

    def multiply(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(x.reshape(-1, inputs).bfloat16(), codes, group, factors)
        y = y.reshape(*x.shape[:-1], out).to(x.dtype)
        return _ACTIVATIONS[activation](y if bias is None else y + bias.to(y.dtype))

    return "torch's int4pack, scales rounded to bfloat16", codes.nbytes + factors.nbytes, multiply, "bf16"


def _dense(packed: Packed, precision: Precision, dtype: torch.dtype, isa: str | None) -> _Prepared:
    weight = reference.dequantize(packed).to(dtype)
    round_inputs = packed.round_inputs

    def multiply(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        x = x if round_inputs is None else round_inputs(x)
        return _ACTIVATIONS[activation](functional.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype)))

    return (
        "torch, dequantized when loaded: no smaller, no faster",
        weight.nbytes,
        multiply,
        "bf16" if dtype is torch.bfloat16 else "float32",
    )


def _reference(packed: Packed, precision: Precision, dtype: torch.dtype, isa: str | None) -> _Prepared:
    def multiply(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        return linear(x, packed, bias, activation)

    return "plain torch, unpacked on every call", packed.bytes, multiply, "float32"


_PREPARE: dict[Backend, Callable[[Packed, Precision, torch.dtype, str | None], _Prepared]] = {
    "ours": _ours,
    "int4pack": _int4pack,
    "dense": _dense,
    "reference": _reference,
}
