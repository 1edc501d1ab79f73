"""A model's modules compute with prepared weights for a while, and are what they were before afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle
from transformers.pytorch_utils import Conv1D

from paredown.apply import parameters_of
from paredown.evaluation.weights import Form
from paredown.specs import LayerRef

Compute = Callable[[str, Form, Tensor, Tensor | None], Tensor]
"""A layer's name, what its module does with the weight, inputs and bias to outputs."""

_CASTING = (nn.Linear, Conv1D, nn.LayerNorm, nn.modules.conv._ConvNd)


def replaceable(model: nn.Module, layer: LayerRef) -> bool:
    """Whether all modules of a layer compute as their class does, so that another function may stand in for them."""
    return not any("forward" in module.__dict__ or getattr(module, "max_norm", None) is not None for module in modules_of(model, layer))


@contextmanager
def overridden(forwards: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Within it, the forward passes of modules are other functions; hooks stay."""
    before = [(module, module.__dict__.get("forward")) for module, _ in forwards]
    try:
        for module, forward in forwards:
            module.__dict__["forward"] = forward
        yield
    finally:
        for module, forward in before:
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward


@contextmanager
def holding(contents: Sequence[tuple[nn.Parameter, Tensor]]) -> Iterator[None]:
    """Within it, parameters hold other data."""
    before = [(parameter, parameter.data) for parameter, _ in contents]
    try:
        for parameter, data in contents:
            parameter.data = data
        yield
    finally:
        for parameter, data in before:
            parameter.data = data


def computing(model: nn.Module, layers: Sequence[LayerRef], compute: Compute) -> list[tuple[nn.Module, Callable[..., Any]]]:
    """Forward passes for the modules of layers, for `overridden`.

    Args:
        model: The model.
        layers: `replaceable` ones.
        compute: What the modules do.
    """
    return [
        (module, functools.partial(_forward, compute, layer.name, "rows" if isinstance(module, nn.Embedding) else "product", module))
        for layer in layers
        for module in modules_of(model, layer)
    ]


def nothing(model: nn.Module, layers: Sequence[LayerRef], dtype: torch.dtype | None) -> list[tuple[nn.Parameter, Tensor]]:
    """NaN for the weights of layers, in the memory of one number, for `holding`.

    Whoever multiplies by a weight without calling its module gets NaN, which tasks refuse, and never the weight of another plan.

    Args:
        model: The model.
        layers: The layers.
        dtype: The parameters' own where None.
    """
    return [
        (parameter, torch.full((1,), torch.nan, dtype=dtype or parameter.dtype, device=parameter.device).expand(parameter.shape))
        for layer in layers
        for parameter in parameters_of(model, layer)
    ]


def modules_of(model: nn.Module, layer: LayerRef) -> list[nn.Module]:
    """The modules that use a layer's weight."""
    return [model.get_submodule(path) for path in (layer.name, *layer.tied_to)]


@contextmanager
def in_bfloat16(
    model: nn.Module,
    contents: Sequence[tuple[nn.Parameter, Tensor]],
    fixed: Sequence[nn.Parameter],
    casting: Sequence[nn.Module],
    *,
    cast_back: bool,
) -> Iterator[None]:
    """Within it, a model's parameters are in bfloat16.

    Args:
        model: The model.
        contents: What most parameters hold.
        fixed: Parameters that are cast as they are on entering.
        casting: Modules whose kernels want inputs and weights of one type.
        cast_back: Whether it returns float32.

    Yields:
        Nothing.
    """
    handles: list[RemovableHandle] = []
    try:
        handles += [module.register_forward_pre_hook(_cast_first) for module in casting]
        handles.append(model.register_forward_pre_hook(_cast_all, with_kwargs=True))
        if cast_back:
            handles.append(model.register_forward_hook(_cast_back))
        with holding([*contents, *((parameter, parameter.data.to(torch.bfloat16)) for parameter in fixed)]):
            yield
    finally:
        for handle in handles:
            handle.remove()


def casting_modules(model: nn.Module) -> list[nn.Module]:
    """Modules whose kernels want inputs and weights of one type."""
    return [module for module in model.modules() if isinstance(module, _CASTING)]


def _forward(compute: Compute, name: str, form: Form, module: nn.Module, input: Tensor) -> Tensor:
    return compute(name, form, input, module._parameters.get("bias"))


def _to(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor


def _cast_first(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    weight = module._parameters.get("weight")
    first = arguments[0] if arguments else None
    if weight is None or not isinstance(first, Tensor) or first.dtype == weight.dtype:
        return None
    return (first.to(weight.dtype), *arguments[1:])


def _cast_all(module: nn.Module, arguments: Any, named: Any) -> tuple[Any, Any]:
    return tree_map_only(Tensor, _to(torch.bfloat16), (arguments, named))


def _cast_back(module: nn.Module, arguments: Any, output: Any) -> Any:
    return tree_map_only(Tensor, _to(torch.float32), output)
