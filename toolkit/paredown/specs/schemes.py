"""What is done to one layer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from paredown.errors import ParedownError

BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (16, 32, 64, 128)

Solver = Literal["rtn", "mse"]
ExportFormat = Literal["compressed-tensors", "paredown"]


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the numbers of a weight are stored.

    Attributes:
        bits: Width of one code; one of `BITS`.
        group_size: Inputs that share one scale; None means one scale per output channel.
        symmetric: Without a zero point; codes are then centred on zero.
    """

    bits: int
    group_size: int | None = 64
    symmetric: bool = False
    kind: Literal["int"] = "int"

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ParedownError(f"bits must be one of {', '.join(map(str, BITS))}, got {self.bits}")
        if self.group_size is not None and self.group_size not in GROUP_SIZES:
            sizes = ", ".join(map(str, GROUP_SIZES))
            raise ParedownError(f"group_size must be one of {sizes}, or None for one scale per output channel, got {self.group_size}")


_SCHEME = re.compile(r"int(?P<bits>\d+)(?:g(?P<group>\d+))?(?P<symmetric>sym)?(?:-(?P<solver>[a-z]+))?")


@dataclass(frozen=True, slots=True)
class Scheme:
    """What is done to one layer. ``str(scheme)`` and `Scheme.parse` are inverse to each other.

    Attributes:
        weight: Number format; None keeps the tensor as the checkpoint has it.
        solver: How the codes are found: ``rtn`` rounds to nearest within the range of each group, ``mse`` also searches the
            clipping range of each group that leaves the smallest squared error.

    Example:
        >>> str(Scheme(WeightFormat(4, 64)))
        'int4g64'
        >>> Scheme.parse("int3g128sym-mse").weight
        WeightFormat(bits=3, group_size=128, symmetric=True, kind='int')
        >>> Scheme.parse("keep").weight is None
        True
    """

    weight: WeightFormat | None = None
    solver: Solver = "rtn"

    def __post_init__(self) -> None:
        if self.solver not in ("rtn", "mse"):
            raise ParedownError(f"solver must be rtn or mse, got {self.solver!r}")

    def __str__(self) -> str:
        if self.weight is None:
            return "keep"
        group = "" if self.weight.group_size is None else f"g{self.weight.group_size}"
        return f"int{self.weight.bits}{group}{'sym' * self.weight.symmetric}{'' if self.solver == 'rtn' else '-' + self.solver}"

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read the short form, such as ``int4g64``, ``int8``, ``int3g32sym-mse`` or ``keep``.

        Raises:
            ParedownError: If the text is not of that form.
        """
        if text == "keep":
            return KEEP
        match = _SCHEME.fullmatch(text)
        if match is None:
            raise ParedownError(f"expected a scheme such as int4g64, int8, int3g32sym, int4g64-mse or keep, got {text!r}")
        group = match["group"]
        weight = WeightFormat(int(match["bits"]), int(group) if group else None, bool(match["symmetric"]))
        return cls(weight, match["solver"] or "rtn")  # pyright: ignore[reportArgumentType]  (checked by __post_init__)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """In JSON a scheme is its short form: readable, and a tenth of the bytes."""
        from pydantic_core import core_schema

        def read(value: Any) -> Scheme:
            if isinstance(value, Scheme):
                return value
            try:
                return cls.parse(str(value))
            except ParedownError as error:
                raise ValueError(str(error)) from error

        return core_schema.no_info_plain_validator_function(read, serialization=core_schema.plain_serializer_function_ser_schema(str))


KEEP = Scheme()
"""The scheme that leaves a layer as it is."""


def default_schemes(export_format: ExportFormat) -> tuple[str, ...]:
    """Every width in groups of 64: symmetric where plain transformers has to load it, else with zero points, which err less.

    Example:
        >>> default_schemes("compressed-tensors")[:2]
        ('int2g64sym', 'int3g64sym')
    """
    return tuple(str(Scheme(WeightFormat(bits, 64, export_format == "compressed-tensors"))) for bits in BITS)
