"""The parts of a scheme: number formats of weights and inputs, sparsity, low rank. Each is written in short by ``str``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from paredown.errors import ParedownError

BITS = (2, 3, 4, 5, 6, 8)
NORMAL_FLOAT_BITS = (2, 3, 4)
SAWB_BITS = (2, 4)
GROUP_SIZES = (16, 32, 64, 128)
FACTOR_BITS = (16, 8, 4)
ACTIVATION_BITS = (8, 4)

Solver = Literal["rtn", "mse"]
"""How the range of a group of weights is found."""

Kind = Literal["int", "nf", "mxfp", "nvfp"]
"""Which numbers a code may stand for."""

BLOCKS = {"mxfp": 32, "nvfp": 16}
"""Inputs that share a scale, of the formats that prescribe it."""


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How the numbers of a weight are stored.

    Attributes:
        bits: Width of one code; one of `BITS`, 2 to 4 for ``nf``, 4 for ``mxfp`` and ``nvfp``.
        group_size: Inputs that share one scale, prescribed for ``mxfp`` and ``nvfp`` (`BLOCKS`); None means all inputs.
        symmetric: Without a zero point; codes are then centred on zero. Only ``int`` has a zero point to leave out.
        kind: ``int`` for evenly spaced values, ``nf`` for NormalFloat, whose scales are quantized too, ``mxfp`` and ``nvfp`` for floats of
            4 bits (E2M1) in blocks with a scale of 8 bits.
        neuron_groups: Equal runs of consecutive output channels that share one scale over all inputs, as in Q-BERT: 12 heads in 6 parts
            each are 72. Runs of a multiple of them refine them. None means that each output channel has scales of its own.
    """

    bits: int
    group_size: int | None = 64
    symmetric: bool = False
    kind: Kind = "int"
    neuron_groups: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ParedownError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        allowed = {"int": BITS, "nf": NORMAL_FLOAT_BITS}.get(self.kind, (4,))
        if self.bits not in allowed:
            raise ParedownError(
                f"bits must be one of {', '.join(map(str, allowed))}{f' for {self.kind}' * (self.kind != 'int')}, got {self.bits}"
            )
        if self.kind in BLOCKS and self.group_size != BLOCKS[self.kind]:
            raise ParedownError(f"{self.kind}{self.bits} has blocks of {BLOCKS[self.kind]} inputs, got {self.group_size}; leave g out")
        if self.group_size is not None and self.group_size not in GROUP_SIZES:
            sizes = ", ".join(map(str, GROUP_SIZES))
            raise ParedownError(f"group_size must be one of {sizes}, or None for all inputs, got {self.group_size}")
        if self.kind == "nf" and self.symmetric:
            raise ParedownError("NormalFloat has no zero point, so that nf formats are not called symmetric; leave sym out")
        if self.kind in BLOCKS and self.symmetric:
            raise ParedownError(f"{self.kind}{self.bits} has no zero point, so that it is not called symmetric; leave sym out")
        if self.neuron_groups is not None and (self.neuron_groups < 1 or self.group_size is not None or self.kind != "int"):
            raise ParedownError(
                f"neuron groups are at least one, of an int format, and span all inputs; got {self.neuron_groups} of {self.kind}{self.bits}"
                f" in groups of {self.group_size} inputs; write for example int4n128"
            )

    def __str__(self) -> str:
        if self.kind in BLOCKS:
            return f"{self.kind}{self.bits}"
        group = f"n{self.neuron_groups}" if self.neuron_groups else "" if self.group_size is None else f"g{self.group_size}"
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
        kind: What they make small: ``eora`` the error of the layer's outputs, ``svd`` the error of its weights, ``lq`` the error of its
            weights by what each costs, together with the number format.
    """

    rank: int
    bits: int = 16
    kind: Literal["eora", "svd", "lq"] = "eora"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.bits not in FACTOR_BITS or self.kind not in ("eora", "svd", "lq"):
            raise ParedownError(
                f"expected eora, svd or lq with a rank of at least 1 and factors of {', '.join(map(str, FACTOR_BITS))} bits, got {self}"
            )

    def __str__(self) -> str:
        return f"{self.kind}{self.rank}{'' if self.bits == 16 else f':{self.bits}'}"


@dataclass(frozen=True, slots=True)
class ActivationFormat:
    """How a layer's inputs are rounded to integers while it runs.

    Attributes:
        bits: Width of a number, 8 or 4.
        static: One range with a zero point for all inputs of the layer, stored with the weight: between those percentiles of the
            calibration data, of four, that leave the least squared rounding error. Otherwise each token has its own range without a
            zero point, found as the token comes.
    """

    bits: int
    static: bool = False

    def __post_init__(self) -> None:
        if self.bits not in ACTIVATION_BITS:
            raise ParedownError(f"activations have {' or '.join(map(str, ACTIVATION_BITS))} bits, got {self.bits}")

    def __str__(self) -> str:
        return f"a{self.bits}{'static' * self.static}"
