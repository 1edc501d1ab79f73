"""Which code multiplies with a packed weight: chosen once, when the weight is loaded, with a reason for every backend passed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from paredown.errors import ParedownError
from paredown.kernels import reference
from paredown.kernels.backends import ACTIVATIONS, Backend, GpuBackend, Multiply, Prepared, UnfitError, finish
from paredown.kernels.cpu.gather import gather
from paredown.kernels.cpu.library import load
from paredown.kernels.cpu.weight import Activation, InputPrecision, KernelWeight, refusal
from paredown.kernels.gpu.backends import int_mm, semi_structured, tinygemm, triton
from paredown.kernels.gpu.timing import TOKENS, fastest, in_words, times, tried
from paredown.kernels.packing import Packed, unpack
from paredown.methods import Quantized
from paredown.methods.activations import quantize_per_token

_INT4PACK_GROUPS = (32, 64, 128, 256)
_ON_GPU: tuple[Backend | GpuBackend, ...] = ("dense", *get_args(GpuBackend))  # the dense product can't fail, and tells what is right


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

    backend: Backend | GpuBackend
    precision: InputPrecision
    how: str
    passed_over: tuple[tuple[Backend | GpuBackend, str], ...]
    bytes: int
    multiply: Multiply

    def __str__(self) -> str:
        return "; ".join([self.how, *(f"not {backend}: {why}" for backend, why in self.passed_over)])


def prepare(
    packed: Packed,
    precision: InputPrecision | None = None,
    *,
    backend: Backend | GpuBackend | None = None,
    dtype: torch.dtype = torch.float32,
    isa: str | None = None,
) -> Kernel:
    """Choose what multiplies with a weight: on a CPU the first backend of `Backend` that can; on a CUDA device the fastest.

    There, all that can are measured on 1 and 128 tokens, once for each scheme and shape of a process; what fails, or computes something
    else than the dense product does, is passed over.

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
    known = (*get_args(Backend), *get_args(GpuBackend))
    if backend is not None and backend not in known:
        raise ParedownError(f"expected a backend, one of {', '.join(known)}, got {backend!r}")
    if backend is None and packed.device.type == "cuda":
        return _fastest(packed, precision, dtype)
    passed_over: list[tuple[Backend | GpuBackend, str]] = []
    for name in (backend,) if backend is not None else get_args(Backend):
        try:
            how, size, multiply, used = _PREPARE[name](packed, precision, dtype, isa)
        except UnfitError as unfit:
            passed_over.append((name, str(unfit)))
        else:
            return Kernel(name, used, how, tuple(passed_over), size, multiply)
    raise ParedownError(f"{backend} can't multiply with {packed.scheme}: {passed_over[0][1]}; leave the backend to the dispatch")


def _fastest(packed: Packed, precision: InputPrecision, dtype: torch.dtype) -> Kernel:
    """Of a CUDA device: measured there, among those whose results are right there."""
    served: dict[Backend | GpuBackend, Kernel] = {}
    passed_over: list[tuple[Backend | GpuBackend, str]] = []
    inputs = [torch.randn(tokens, packed.shape[1], dtype=dtype, device=packed.device) for tokens in TOKENS]
    for name in _ON_GPU:
        try:
            how, size, multiply, used = tried(
                partial(_PREPARE[name], packed, precision, dtype, None), inputs, served["dense"].multiply if served else None
            )
        except UnfitError as unfit:
            passed_over.append((name, str(unfit)))
        else:
            served[name] = Kernel(name, used, how, (), size, multiply)
    device = torch.cuda.get_device_name(packed.device)
    key = (device, str(packed.scheme), packed.shape, precision, dtype)
    found = times({name: kernel.multiply for name, kernel in served.items()}, inputs, key)
    best = next(kernel for name, kernel in served.items() if name == fastest(found))
    slower = [(name, f"slower, {in_words(found[name])}") for name in served if name != best.backend]
    return replace(best, how=f"{best.how}, {in_words(found[best.backend])} on {device}", passed_over=(*passed_over, *slower))


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
    return ACTIVATIONS[activation](reference.linear(x, packed, bias))


def embedding(ids: Tensor, packed: Packed) -> Tensor:
    """The rows of the weight, gathered straight from their packed words where our kernels can; the same numbers as the reference's.

    Args:
        ids: Whole numbers of any shape [...].
        packed: The weight [rows, dim].

    Returns:
        float32 [..., dim].
    """
    library, _ = load()
    if library is None or not packed.scheme.is_plain or packed.device.type != "cpu" or ids.device.type != "cpu":
        return reference.embedding(ids, packed)
    return gather(library, ids, packed)


@dataclass(frozen=True, eq=False, slots=True)
class Ours:
    """The product with a weight in our own layout.

    Attributes:
        weight: The weight.
        precision: Of the inputs while they are multiplied.
        input_bits: Of inputs that are rounded.
        round_first: What rounds the inputs before, where the kernel does not.
    """

    weight: KernelWeight
    precision: InputPrecision
    input_bits: int
    round_first: Callable[[Tensor], Tensor] | None

    def __call__(self, x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        """activation(X Wᵀ + bias)."""
        x = x if self.round_first is None else self.round_first(x)
        return self.weight.linear(x, bias, activation, precision=self.precision, input_bits=self.input_bits)


def _ours(packed: Packed, precision: InputPrecision, dtype: torch.dtype, isa: str | None) -> Prepared:
    library, reason = load()
    if library is None:
        raise UnfitError(reason)
    if packed.device.type != "cpu":
        raise UnfitError(f"the weight is on {packed.device}, and these kernels run on CPUs")
    if why := refusal(packed):
        raise UnfitError(why)
    weight = KernelWeight(packed, isa)
    format, round_inputs = packed.scheme.activation, packed.round_inputs
    bits = 8 if format is None else format.bits
    # codes of a table, and inputs on a grid with a zero point, are multiplied as bf16, with inputs rounded before
    rounded = (format is not None and format.static) or (precision == "int8" and "table" in weight.tensors)
    used: InputPrecision = "bf16" if rounded and precision == "int8" else precision
    if used == "bf16" and not weight.isa.bf16:
        used = "float32"

    first = (round_inputs or partial(quantize_per_token, bits=bits)) if rounded else None
    inputs = {"int8": f"int{bits} inputs", "bf16": "bfloat16 inputs", "float32": "float32 inputs"}[used]
    return (
        f"our kernel, {weight.isa.name}, {inputs}{f' rounded to int{bits} before' if rounded else ''}",
        weight.bytes,
        Ours(weight, used, bits, first),
        used,
    )


def _int4pack(packed: Packed, precision: InputPrecision, dtype: torch.dtype, isa: str | None) -> Prepared:
    scheme, (out, inputs) = packed.scheme, packed.shape
    if not scheme.is_plain or scheme.weight is None or scheme.weight.bits != 4:
        raise UnfitError("it takes plain integers of 4 bits")
    if precision != "bf16" or dtype is not torch.bfloat16:
        raise UnfitError("it takes bfloat16 inputs; with others it is a hundred times slower")
    group = scheme.weight.group_size or inputs
    if group not in _INT4PACK_GROUPS or inputs % group or out % 16:
        raise UnfitError(f"it takes groups of {', '.join(map(str, _INT4PACK_GROUPS))} and outputs that 16 divides, not {group} and {out}")
    if packed.device.type != "cpu":
        raise UnfitError("the weight is not on the CPU")
    made = unpack(packed).numbers
    assert isinstance(made, Quantized)
    scales = made.scales.float()
    middle = scales * 8 if made.zero_points is None else scales * made.zero_points.float()
    factors = torch.stack([scales.T, (8 * scales - middle).T], -1).bfloat16().contiguous()  # torch has (q - 8) scale + zero
    codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(made.codes.int(), 1)

    def multiply(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(x.reshape(-1, inputs).bfloat16(), codes, group, factors)
        y = y.reshape(*x.shape[:-1], out).to(x.dtype)
        return finish(y, bias, activation)

    return "torch's int4pack, scales rounded to bfloat16", codes.nbytes + factors.nbytes, multiply, "bf16"


def _dense(packed: Packed, precision: InputPrecision, dtype: torch.dtype, isa: str | None) -> Prepared:
    weight = reference.dequantize(packed).to(dtype)
    round_inputs = packed.round_inputs

    def multiply(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        x = x if round_inputs is None else round_inputs(x)
        return ACTIVATIONS[activation](functional.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype)))

    return (
        "torch, dequantized when loaded: no smaller, no faster",
        weight.nbytes,
        multiply,
        "bf16" if dtype is torch.bfloat16 else "float32",
    )


def _reference(packed: Packed, precision: InputPrecision, dtype: torch.dtype, isa: str | None) -> Prepared:
    def multiply(x: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
        return linear(x, packed, bias, activation)

    return "plain torch, unpacked on every call", packed.bytes, multiply, "float32"


_PREPARE: dict[Backend | GpuBackend, Callable[[Packed, InputPrecision, torch.dtype, str | None], Prepared]] = {
    "ours": _ours,
    "int4pack": _int4pack,
    "dense": _dense,
    "reference": _reference,
    "triton": triton,
    "tinygemm": tinygemm,
    "int_mm": int_mm,
    "semi_structured": semi_structured,
}
