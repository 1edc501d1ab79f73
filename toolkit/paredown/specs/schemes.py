"""What is done to one layer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from paredown.errors import ParedownError

BITS = (2, 3, 4, 5, 6, 8)
NORMAL_FLOAT_BITS = (2, 3, 4)
GROUP_SIZES = (16, 32, 64, 128)
FACTOR_BITS = (16, 8, 4)
ACTIVATION_BITS = (8, 4)

Solver = Literal["rtn", "mse"]
"""How the range of a group of weights is found."""

Method = Literal["rtn", "mse", "gptq", "wanda", "sparsegpt"]
"""How a layer's numbers are found; `Scheme` says what each does."""

ExportFormat = Literal["compressed-tensors", "paredown"]

_ROUNDING, _PRUNING = ("mse", "gptq"), ("wanda", "sparsegpt")


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the numbers of a weight are stored.

    Attributes:
        bits: Width of one code; one of `BITS`, 2 to 4 for ``nf``.
        group_size: Inputs that share one scale; None means one scale per output channel.
        symmetric: Without a zero point; codes are then centred on zero. NormalFloat has no zero point to leave out.
        kind: ``int`` for evenly spaced values, ``nf`` for NormalFloat, whose scales are quantized too.
    """

    bits: int
    group_size: int | None = 64
    symmetric: bool = False
    kind: Literal["int", "nf"] = "int"

    def __post_init__(self) -> None:
        if self.kind not in ("int", "nf"):
            raise ParedownError(f"kind must be int or nf, got {self.kind!r}")
        allowed = BITS if self.kind == "int" else NORMAL_FLOAT_BITS
        if self.bits not in allowed:
            raise ParedownError(f"bits must be one of {', '.join(map(str, allowed))}{' for nf' * (self.kind == 'nf')}, got {self.bits}")
        if self.group_size is not None and self.group_size not in GROUP_SIZES:
            sizes = ", ".join(map(str, GROUP_SIZES))
            raise ParedownError(f"group_size must be one of {sizes}, or None for one scale per output channel, got {self.group_size}")
        if self.kind == "nf" and self.symmetric:
            raise ParedownError("NormalFloat has no zero point, so that nf formats are not called symmetric; leave sym out")

    def __str__(self) -> str:
        group = "" if self.group_size is None else f"g{self.group_size}"
        return f"{self.kind}{self.bits}{group}{'sym' * self.symmetric}"


@dataclass(frozen=True, slots=True)
class Sparsity:
    """Which weights may be zero.

    Attributes:
        pattern: ``2:4`` keeps 2 of every 4 consecutive inputs of a row (of a tail of t inputs 2 t / 4, rounded up);
            ``50%`` drops that share of the whole weight, wherever it costs least.

    Example:
        >>> Sparsity("2:4").n_of_m, Sparsity("75%").fraction
        ((2, 4), 0.75)
    """

    pattern: str

    def __post_init__(self) -> None:
        match = _PATTERN.fullmatch(self.pattern)
        if match is None or (match["m"] and not 1 <= int(match["n"]) < int(match["m"])):
            raise ParedownError(f"expected a sparsity such as 2:4 (n below m) or 50% (1 to 99), got {self.pattern!r}")

    @property
    def n_of_m(self) -> tuple[int, int] | None:
        """How many are kept of how many; None where the pattern is unstructured."""
        n, _, m = self.pattern.partition(":")
        return (int(n), int(m)) if m else None

    @property
    def fraction(self) -> float:
        """Share of the weights that are dropped; of a tail of n:m it may be less."""
        pair = self.n_of_m
        return int(self.pattern[:-1]) / 100 if pair is None else 1 - pair[0] / pair[1]

    def kept_in_row(self, inputs: int) -> int | None:
        """Weights that are kept in each row; None where the rows differ."""
        pair = self.n_of_m
        return None if pair is None else pair[0] * (inputs // pair[1]) - (-pair[0] * (inputs % pair[1]) // pair[1])

    def kept(self, out: int, inputs: int) -> int:
        """Weights that are kept in all."""
        row, size = self.kept_in_row(inputs), out * inputs
        return size - round(self.fraction * size) if row is None else out * row

    def __str__(self) -> str:
        return self.pattern


_PATTERN = re.compile(r"(?P<n>[1-9]\d?):(?P<m>[1-9]\d?)|[1-9]\d?%")


@dataclass(frozen=True, slots=True)
class LowRank:
    """Two factors whose product is added to the weight.

    Attributes:
        rank: Width of the factors.
        bits: Of their numbers: 16 (float16), or 8 or 4 (asymmetric integers in groups of 64).
        kind: What they make small: ``eora`` the error of the layer's outputs, ``svd`` the error of its weights.
    """

    rank: int
    bits: int = 16
    kind: Literal["eora", "svd"] = "eora"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.bits not in FACTOR_BITS or self.kind not in ("eora", "svd"):
            raise ParedownError(
                f"expected eora or svd with a rank of at least 1 and factors of {', '.join(map(str, FACTOR_BITS))} bits, got {self}"
            )

    def __str__(self) -> str:
        return f"{self.kind}{self.rank}{'' if self.bits == 16 else f':{self.bits}'}"


@dataclass(frozen=True, slots=True)
class ActivationFormat:
    """How a layer's inputs are rounded while it runs: to symmetric integers over each token's own range, found as the token comes.

    Attributes:
        bits: Width of a number, 8 or 4.
    """

    bits: int

    def __post_init__(self) -> None:
        if self.bits not in ACTIVATION_BITS:
            raise ParedownError(f"activations have {' or '.join(map(str, ACTIVATION_BITS))} bits, got {self.bits}")

    def __str__(self) -> str:
        return f"a{self.bits}"


GRAMMAR = "[int4|nf4][g64][sym][a8][-mse|-gptq] + [2:4|50%][-wanda|-sparsegpt] + [eora16|svd16][:8|:4], any part alone or several in this order, or keep"
"""The grammar in one line, for errors and help."""

_WEIGHT = re.compile(
    r"(?P<kind>int|nf)(?P<bits>\d+)(?:g(?P<group>\d+))?(?P<symmetric>sym)?(?:a(?P<activation>\d+))?(?:-(?P<solver>[a-z]+))?"
)
_SPARSITY = re.compile(r"(?P<pattern>[\d:]+%?)(?:-(?P<solver>[a-z]+))?")
_LOW_RANK = re.compile(r"(?P<kind>eora|svd)(?P<rank>\d+)(?::(?P<bits>\d+))?")


@dataclass(frozen=True, slots=True)
class Scheme:
    """What is done to one layer. ``str(scheme)`` and `Scheme.parse` are inverse to each other.

    A scheme is up to three parts, done in this order and joined by ``+``; ``keep`` is none of them.

    | part | says | example |
    | --- | --- | --- |
    | number format | kind and bits, ``g`` group size (one scale per output channel without), ``sym``, ``a`` bits of the layer's inputs | ``int4g64``, ``int8syma8``, ``nf3g64`` |
    | sparsity | n kept of every m inputs, or the share that is dropped | ``2:4``, ``50%`` |
    | low rank | kind and rank of a correction of what the other parts lost, ``:`` bits of its factors | ``eora32``, ``svd16:8`` |

    The solver is written behind the part that it is about; one scheme has one. Those marked * need the second moment of the layer's
    inputs, and so do ``eora`` factors; `needs_inputs` tells.

    | solver | weights to drop | numbers of the weights that are kept |
    | --- | --- | --- |
    | (none), ``rtn`` | smallest magnitude | nearest code in the range of each group |
    | ``int4g64-mse`` | smallest magnitude | nearest code in the range of least squared error (int) |
    | ``int4g64-gptq`` * | SparseGPT | GPTQ (int) |
    | ``2:4-wanda`` * | Wanda | nearest code |
    | ``2:4-sparsegpt`` * | SparseGPT | solved again for the outputs, then the nearest code |

    Pruning comes before rounding, and exact zeros stay: ``int4g64-gptq+2:4``. Without a number format kept weights keep the
    checkpoint's dtype. Factors alone (``svd32``) replace the weight.

    Attributes:
        weight: Number format; None keeps the checkpoint's numbers.
        solver: How the numbers are found.
        sparsity: Which weights are dropped; None drops none.
        low_rank: The correction; None adds none.
        activation: How the layer's inputs are rounded; None leaves them as they come.

    Example:
        >>> str(Scheme(WeightFormat(4, 64)))
        'int4g64'
        >>> Scheme.parse("int3g128sym-mse").weight
        WeightFormat(bits=3, group_size=128, symmetric=True, kind='int')
        >>> Scheme.parse("int4g64sym+2:4+eora16:8").low_rank
        LowRank(rank=16, bits=8, kind='eora')
        >>> Scheme.parse("keep").weight is None
        True
    """

    weight: WeightFormat | None = None
    solver: Method = "rtn"
    sparsity: Sparsity | None = None
    low_rank: LowRank | None = None
    activation: ActivationFormat | None = None

    def __post_init__(self) -> None:
        if self.solver not in get_args(Method):
            raise ParedownError(f"solver must be one of {', '.join(get_args(Method))}, got {self.solver!r}")
        if self.activation is not None and self.weight is None:
            raise ParedownError(
                f"inputs are rounded where weights are too, got {self.activation} without a number format; write for example int8{self.activation}"
            )
        if self.solver in _ROUNDING and (self.weight is None or self.weight.kind != "int"):
            raise ParedownError(
                f"{self.solver} finds the codes of an int format, got {self.weight or 'none'}; write for example int4g64-{self.solver}"
            )
        if self.solver in _PRUNING and self.sparsity is None:
            raise ParedownError(f"{self.solver} finds the weights to drop, and the scheme drops none; write for example 2:4-{self.solver}")

    @property
    def needs_inputs(self) -> bool:
        """Whether it is found with the second moment of the layer's inputs."""
        return self.solver in ("gptq", *_PRUNING) or (self.low_rank is not None and self.low_rank.kind == "eora")

    @property
    def is_plain(self) -> bool:
        """Whether the layer is integer codes of all weights and nothing else, as compressed-tensors has it."""
        return self.weight is not None and self.weight.kind == "int" and (self.sparsity, self.low_rank, self.activation) == (None,) * 3

    @property
    def nominal_bits(self) -> float:
        """Bits of a weight: its code's share and the mask's bit; scales and factors are left out, 32 where nothing is quantized.

        Example:
            >>> [Scheme.parse(text).nominal_bits for text in ("int4g64", "int4g64+2:4", "keep")]
            [4.0, 3.0, 32.0]
        """
        if self.weight is None and self.sparsity is None and self.low_rank is not None:
            return 0.0
        width = 32.0 if self.weight is None else float(self.weight.bits)
        return width if self.sparsity is None else width * (1 - self.sparsity.fraction) + 1

    def __str__(self) -> str:
        parts = [
            None if self.weight is None else f"{self.weight}{self.activation or ''}{f'-{self.solver}' * (self.solver in _ROUNDING)}",
            None if self.sparsity is None else f"{self.sparsity}{f'-{self.solver}' * (self.solver in _PRUNING)}",
            None if self.low_rank is None else str(self.low_rank),
        ]
        return "+".join(part for part in parts if part is not None) or "keep"

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read the short form, such as ``int4g64``, ``int8``, ``nf3g64+eora32``, ``int4g64-gptq+2:4``, ``50%`` or ``keep``.

        Raises:
            ParedownError: If the text is not of that form.
        """
        if text == "keep":
            return KEEP
        rest = text.split("+")
        weight, sparsity, low_rank = (
            form.fullmatch(rest.pop(0)) if rest and form.fullmatch(rest[0]) else None for form in (_WEIGHT, _SPARSITY, _LOW_RANK)
        )
        solvers = [match["solver"] for match in (weight, sparsity) if match is not None and match["solver"]]
        if (
            rest
            or (weight is not None and weight["solver"] in _PRUNING)
            or (sparsity is not None and sparsity["solver"] in ("rtn", *_ROUNDING))
        ):
            raise ParedownError(
                f"expected a scheme such as int4g64, int8, int3g32sym, int4g64-mse or keep, got {text!r}; the grammar is {GRAMMAR}"
            )
        if len(solvers) > 1:
            raise ParedownError(f"a scheme has one solver, got {' and '.join(solvers)} in {text!r}; leave one out")
        return cls(
            None if weight is None else _format(weight),
            solvers[0] if solvers else "rtn",  # pyright: ignore[reportArgumentType]  (checked by __post_init__)
            None if sparsity is None else Sparsity(sparsity["pattern"]),
            None if low_rank is None else LowRank(int(low_rank["rank"]), int(low_rank["bits"] or 16), low_rank["kind"]),  # pyright: ignore[reportArgumentType]
            ActivationFormat(int(weight["activation"])) if weight is not None and weight["activation"] else None,
        )

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


def _format(match: re.Match[str]) -> WeightFormat:
    group = int(match["group"]) if match["group"] else None
    return WeightFormat(int(match["bits"]), group, bool(match["symmetric"]), match["kind"])  # pyright: ignore[reportArgumentType]


KEEP = Scheme()
"""The scheme that leaves a layer as it is."""


def default_schemes(export_format: ExportFormat) -> tuple[str, ...]:
    """Every width in groups of 64: symmetric where plain transformers has to load it, else with zero points, which err less.

    Example:
        >>> default_schemes("compressed-tensors")[:2]
        ('int2g64sym', 'int3g64sym')
    """
    return tuple(str(Scheme(WeightFormat(bits, 64, export_format == "compressed-tensors"))) for bits in BITS)
