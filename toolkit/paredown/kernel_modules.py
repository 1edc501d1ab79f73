"""A packed model on this machine's fastest backends, activations computed in the call of the layer before them: for running, not for saving."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from paredown.errors import ParedownError
from paredown.kernels import Kernel, prepare
from paredown.kernels.backends import ACTIVATIONS, Backend, GpuBackend
from paredown.kernels.cpu.weight import Activation, InputPrecision
from paredown.kernels.dispatch import Ours
from paredown.packed_modules import PackedEmbedding, PackedLinear

PROBE_TOKENS = 3
SAME_ACTIVATION = 2e-6
"""How far two formulas of one activation are apart at most, for inputs up to 8: rounding of float32, and the approximation of erf."""
SAME_OUTPUT = 2e-2
"""Relative difference of a module's outputs that rounding of later layers' inputs makes; a module that works otherwise is far off."""


class KernelModule(nn.Module):
    """A weight in the layout of a backend; the base of the modules below.

    Args:
        kernel: The weight, in whatever layout the backend reads.
        shape: [out, in].
        dtype: Of the weight that was replaced.
        device: Where the weight is.
    """

    def __init__(self, kernel: Kernel, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.kernel, self.shape, self.dtype, self.device = kernel, shape, dtype, device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        return self

    @property
    def weight(self) -> Tensor:
        """A tensor without numbers: some models read a weight's dtype, and what would use its numbers fails."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")

    def extra_repr(self) -> str:
        """Shape and backend, for print(model)."""
        return f"{list(self.shape)}, {self.kernel.how}"


class KernelLinear(KernelModule):
    """activation(X Wᵀ + bias) by the backend that was chosen for a weight.

    Args:
        kernel: See `KernelModule`.
        shape: [out, in].
        dtype: Of the weight that was replaced.
        bias: Parameter [out], or None.
        device: Where the weight is.

    Attributes:
        activation: What is done to the results; ``none`` unless the module after it was fused.
    """

    bias: nn.Parameter | None

    def __init__(self, kernel: Kernel, shape: tuple[int, int], dtype: torch.dtype, bias: nn.Parameter | None, device: torch.device) -> None:
        super().__init__(kernel, shape, dtype, device)
        self.activation: Activation = "none"
        self.register_parameter("bias", bias)

    def forward(self, input: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return self.kernel.multiply(input, self._parameters["bias"], self.activation)


class KernelEmbedding(KernelModule):
    """Rows of a table that a tied layer multiplies with, out of the layout of its kernel: the codes are there once."""

    def forward(self, input: Tensor) -> Tensor:
        """Ids [...] to vectors [..., dim]."""
        assert isinstance(self.kernel.multiply, Ours)
        return self.kernel.multiply.weight.rows(input).to(self.dtype)


def run_on_kernels_(
    model: nn.Module, precision: InputPrecision | None = None, backend: Backend | GpuBackend | None = None, *, fuse: bool = True
) -> dict[str, Kernel]:
    """Replace the packed linear layers of a model by layers that run on the fastest backend of this machine.

    The packed tensors go, so that the model takes the memory of what the backends read, and can't be exported any more. Packed
    modules that are not replaced compute exactly; these round their inputs as `paredown.kernels.prepare` says. A table that is tied to a
    layer on our own kernels is read from that layer's codes.

    Args:
        model: With packed modules, as `paredown.export.native.load` or `paredown.apply.compress_` leave it; changed in place.
        precision: Of the inputs; None takes what each scheme promises.
        backend: Force this one.
        fuse: Compute GELU, SiLU and ReLU in the call of the layer before them, where a trial shows that nothing else changes (`fuse_activations_`).

    Returns:
        What was chosen, by the layer's name; ``str`` of it says why.

    Raises:
        ParedownError: If the forced backend can't serve a layer; the model is then unchanged.
    """
    found = {name: module for name, module in model.named_modules() if isinstance(module, PackedLinear)}
    chosen: dict[str, Kernel] = {}
    for name, module in found.items():
        try:
            chosen[name] = prepare(module.packed, precision, backend=backend, dtype=module.dtype)
        except ParedownError as error:
            raise ParedownError(f"{name}: {error}") from error
    for name, module in found.items():
        out, inputs = module.weight_shape.tolist()
        new = KernelLinear(chosen[name], (out, inputs), module.dtype, module.bias, module.weight_shape.device)
        model.set_submodule(name, new.train(module.training))
    _share_tables(model, {_place(module): chosen[name] for name, module in found.items()})
    if fuse:
        said = fuse_activations_(model)
        chosen = {name: replace(kernel, how=", ".join(filter(None, (kernel.how, said.get(name))))) for name, kernel in chosen.items()}
    return chosen


def _place(module: PackedEmbedding | PackedLinear) -> int:
    """What modules with one and the same weight have in common."""
    return next(iter(module.packed.tensors.values())).data_ptr()


def _share_tables(model: nn.Module, kernels: Mapping[int, Kernel]) -> None:
    tables = [(name, module) for name, module in model.named_modules() if isinstance(module, PackedEmbedding) and module.scheme.is_plain]
    for name, module in tables:
        kernel = kernels.get(_place(module))
        if kernel is not None and isinstance(kernel.multiply, Ours):
            rows, dim = module.weight_shape.tolist()
            new = KernelEmbedding(kernel, (rows, dim), module.dtype, module.weight_shape.device)
            model.set_submodule(name, new.train(module.training))


def fuse_activations_(model: nn.Module) -> dict[str, str]:
    """Let layers on kernels compute the activation behind them, and take its module's place by an identity.

    Looked at are modules that hold both as their own children: BERT's intermediate layer, the MLPs of GPT-2 and ViT, the gate of
    SwiGLU. What an activation is, is found by trying it on numbers; whether it is applied to that layer's results alone, and once,
    by running the module on random inputs before and after. Where that can't be shown, everything stays as it was.

    Args:
        model: With `KernelLinear` layers; changed in place.

    Returns:
        By the layer's name, which activation was fused, or why the one beside it was not.
    """
    said: dict[str, str] = {}
    for path, parent in list(model.named_modules()):
        layers = {name: child for name, child in parent.named_children() if isinstance(child, KernelLinear)}
        for place, child in list(parent.named_children()):
            if not layers or (activation := activation_of(child)) == "none":
                continue
            name, why = _fuse(parent, layers, place, activation)
            full = f"{path}.{name}" if path else name
            said[full] = f"{activation} fused" if not why else f"{activation} not fused: {why}"
    return said


def activation_of(module: nn.Module) -> Activation:
    """The activation that a module computes, by its results on numbers from -8 to 8; ``none`` where it is none that kernels know.

    Example:
        >>> activation_of(nn.GELU("tanh")), activation_of(nn.Tanh()), activation_of(nn.Linear(3, 3))
        ('gelu_tanh', 'none', 'none')
    """
    if next(module.parameters(), None) is not None:
        return "none"
    x = torch.linspace(-8, 8, 257)
    try:
        with torch.inference_mode():
            y = module(x)
    except Exception:  # whatever a module says that wants other inputs
        return "none"
    if not isinstance(y, Tensor) or y.shape != x.shape:
        return "none"
    for name, known in ACTIVATIONS.items():
        if name != "none" and float((y - known(x)).abs().max()) < SAME_ACTIVATION:
            return name
    return "none"


def _fuse(parent: nn.Module, layers: dict[str, KernelLinear], place: str, activation: Activation) -> tuple[str, str]:
    """The layer whose results the activation takes, and why it was not fused; empty where it was."""
    module, identity = parent.get_submodule(place), nn.Identity()
    first = next(iter(layers))
    if parent.training:
        return first, "the model is in training"
    try:
        before, results, taken = _observed(parent, layers, module)
    except Exception as error:
        return first, f"{type(parent).__name__} does not run on its first inputs alone ({type(error).__name__})"
    name = next((name for name, given in results.items() if len(given) == len(taken) == 1 and given[0] is taken[0]), None)
    if name is None or layers[name].activation != "none":
        return name or first, "it is not applied to the results of one layer, once"
    layers[name].activation = activation
    setattr(parent, place, identity)
    after, fused, _ = _observed(parent, layers, identity)
    rounding = max(1e-5, 4 * torch.finfo(taken[0].dtype).eps)
    near = torch.allclose(fused[name][0], ACTIVATIONS[activation](taken[0]), rtol=rounding, atol=rounding)
    if near and float((after - before).norm()) <= SAME_OUTPUT * float(before.norm()):
        return name, ""
    layers[name].activation = "none"
    setattr(parent, place, module)
    return name, "the outputs would change"


def _observed(
    parent: nn.Module, layers: dict[str, KernelLinear], module: nn.Module
) -> tuple[Tensor, dict[str, list[Tensor]], list[Tensor]]:
    """Outputs of a module on random inputs, the results of its layers, and what another of its children was given."""
    first = next(iter(layers.values()))
    results: dict[str, list[Tensor]] = {}
    taken: list[Tensor] = []

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, output: results.setdefault(name, []).append(output)

    x = torch.randn(1, PROBE_TOKENS, first.shape[1], generator=torch.Generator().manual_seed(0)).to(first.device, first.dtype)
    required = [each for each in inspect.signature(parent.forward).parameters.values() if each.default is each.empty]
    others = [None for each in required[1:] if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    with _hooked([(layer, keep(name)) for name, layer in layers.items()], module, taken), torch.inference_mode():
        output: Any = parent(x, *others)
    output = output if isinstance(output, Tensor) else output[0]
    return output.float(), results, taken


@contextmanager
def _hooked(after: list[tuple[nn.Module, Callable[..., None]]], module: nn.Module, taken: list[Tensor]) -> Iterator[None]:
    handles = [each.register_forward_hook(hook) for each, hook in after]
    handles.append(module.register_forward_pre_hook(lambda _module, inputs: taken.append(inputs[0])))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
