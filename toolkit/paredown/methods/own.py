"""Roundings of the user's own: a function under a name, and every scheme of an int format may name it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods.quantize import Quantized, dequantize
from paredown.methods.statistics import Statistics
from paredown.specs import Rounding, WeightFormat
from paredown.specs.own_roundings import OWN
from paredown.specs.schemes import forget_parsed

Function = Callable[[Tensor, WeightFormat, Statistics | None], Quantized]
"""Weight float32 [out, in], pruned weights exactly zero; the format; what calibration saw of the layer, None unless it was asked for."""

_FUNCTIONS: dict[str, Function] = {}


def rounding(name: str, *, calibrated: bool = False) -> Callable[[Function], Function]:
    """Make a function a rounding, so that ``int4g64-NAME`` is priced, searched, measured, packed, run and exported as any other scheme.

    What it returns is what the file will hold, so kernels and runtimes need to know nothing of it. `paredown.methods.quantize_with` makes
    the codes where the function only has scales and zero points of its own to offer.

    The name stands for the function: studies keep results by it. Give a changed function another name. It is known in this process alone;
    a study that names it is opened after the function was registered again, and has no workers.

    Args:
        name: Small letters.
        calibrated: Whether it looks at the layer's inputs, `paredown.methods.Statistics.moment` [in, in]; embeddings, which have none, are
            then rounded with the clip of least squared error.

    Returns:
        A decorator.

    Raises:
        ParedownError: If the name is taken or not of small letters.

    Example:
        >>> from paredown.methods import quantize_with
        >>> @rounding("wide")
        ... def wide(weight, format, seen):
        ...     def find(grid, groups):
        ...         scale, zero = grid.span(groups)
        ...         return 2 * scale, zero
        ...     return quantize_with(find, weight, format)
        >>> from paredown.specs import Scheme
        >>> str(Scheme.parse("int4g64-wide").weight)
        'int4g64'
        >>> forget("wide")
    """
    if not re.fullmatch("[a-z]+", name) or name in get_args(Rounding):
        raise ParedownError(f"expected a name of small letters that is none of {', '.join(get_args(Rounding))}, got {name!r}")
    if name in _FUNCTIONS:
        raise ParedownError(f"{name} is registered already; choose another name, for results are kept by it, or forget({name!r}) first")

    def register(function: Function) -> Function:
        _FUNCTIONS[name], OWN[name] = function, calibrated
        return function

    return register


def forget(name: str) -> None:
    """Take a rounding's name back; nothing happens where there is none."""
    _FUNCTIONS.pop(name, None)
    OWN.pop(name, None)
    forget_parsed()


def apply(name: str, weight: Tensor, format: WeightFormat, seen: Statistics | None) -> Quantized:
    """Round a weight by a function of the user's, and look at what it gives.

    Args:
        name: That was registered.
        weight: [out, in]; zeros have to stay.
        format: Of kind ``int``.
        seen: Of the layer, where the rounding is calibrated.

    Raises:
        ParedownError: If it returns something else than a finite `Quantized` of that shape and format, or zeros do not stay.
    """
    weight = weight.detach().to(torch.float32)
    made = _FUNCTIONS[name](weight.clone(), format, seen if OWN[name] else None)
    if not isinstance(made, Quantized) or made.shape != tuple(weight.shape) or made.format != format:
        got = f"{list(made.shape)} in {made.format}" if isinstance(made, Quantized) else type(made).__name__
        raise ParedownError(
            f"expected a Quantized {list(weight.shape)} in {format} from the rounding {name}, got {got}; paredown.methods.quantize_with makes one"
        )
    if made.codes.numel() and int(made.codes.max()) >= 1 << format.bits:
        raise ParedownError(
            f"the rounding {name} gave the code {int(made.codes.max())}, expected codes below {1 << format.bits}; clamp them"
        )
    values = dequantize(made)
    if not bool(torch.isfinite(values).all()):
        raise ParedownError(f"the rounding {name} gave NaN or infinite values; look at its scales, which must be finite in float16")
    if bool((values[weight == 0] != 0).any()):
        raise ParedownError(
            f"the rounding {name} moved weights that are zero, and pruned weights must stay so; let zero be a level of every group"
        )
    return made
