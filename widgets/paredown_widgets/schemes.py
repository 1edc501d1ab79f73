"""The schemes of a study as the user steps through them: by bits, staying in the same family where that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paredown.errors import ParedownError
from paredown.specs import KEEP, Scheme, WeightFormat


def bits_of(scheme: Scheme) -> int | None:
    """Bits of a scheme's codes; None where no number is quantized."""
    return None if scheme.weight is None else scheme.weight.bits


def short(scheme: Scheme) -> str:
    """What a table calls a scheme: its bits where they say it, else its short form.

    Example:
        >>> [short(Scheme.parse(text)) for text in ("int4g64", "int4g64+2:4", "keep")]
        ['4', 'int4g64+2:4', 'kept']
    """
    return "kept" if scheme == KEEP else str(bits_of(scheme)) if is_simple(scheme) else str(scheme)


def is_simple(scheme: Scheme) -> bool:
    """Whether its bits say what is done: integer codes, each rounded for itself, and nothing else."""
    return scheme.is_plain and not scheme.needs_inputs


def describe(scheme: Scheme) -> str:
    """A scheme in words.

    Example:
        >>> describe(Scheme.parse("int4g64")), describe(Scheme.parse("int8sym-mse"))
        ('4 bit, groups of 64', '8 bit, per channel, symmetric, clip search')
        >>> describe(Scheme.parse("nf3g64+2:4-wanda+eora16:8")), describe(Scheme.parse("svd8"))
        ('3 bit NormalFloat, groups of 64, Wanda, 2 of 4 kept, EoRA of rank 16 at 8 bit', 'SVD of rank 8')
    """
    if scheme == KEEP:
        return "kept as it is"
    parts = ["numbers of the checkpoint"] if scheme.sparsity or scheme.weight else []
    if scheme.weight is not None:
        format_ = scheme.weight
        kind = "" if format_.kind == "int" else " NormalFloat"
        parts = [f"{format_.bits} bit{kind}", "per channel" if format_.group_size is None else f"groups of {format_.group_size}"]
        if format_.symmetric:
            parts.append("symmetric")
    if scheme.activation is not None:
        parts.append(f"inputs at {scheme.activation.bits} bit")
    if scheme.solver != "rtn":
        parts.append({"mse": "clip search", "gptq": "GPTQ", "wanda": "Wanda", "sparsegpt": "SparseGPT"}[scheme.solver])
    if scheme.sparsity is not None:
        pair = scheme.sparsity.n_of_m
        parts.append(f"{scheme.sparsity} zeros" if pair is None else f"{pair[0]} of {pair[1]} kept")
    if scheme.low_rank is not None:
        width = "" if scheme.low_rank.bits == 16 else f" at {scheme.low_rank.bits} bit"
        parts.append(f"{'EoRA' if scheme.low_rank.kind == 'eora' else 'SVD'} of rank {scheme.low_rank.rank}{width}")
    return ", ".join(parts)


def describe_all(schemes: Sequence[Scheme]) -> list[str]:
    """Schemes in words, without what all of them share; bits and groups are always said.

    Example:
        >>> describe_all([Scheme.parse("int3g64sym"), Scheme.parse("int4g64sym")])
        ['3 bit, groups of 64', '4 bit, groups of 64']
    """
    words = [describe(scheme).split(", ") for scheme in schemes]
    extras = [set(parts[2:]) for parts, scheme in zip(words, schemes, strict=True) if scheme.weight is not None]
    shared = set[str]().union(*extras[:1]).intersection(*extras)
    return [", ".join(part for part in parts if part not in shared) for parts in words]


@dataclass(frozen=True)
class SchemeChoices:
    """What a layer may get in this study, in rising order of size."""

    schemes: tuple[Scheme, ...]

    @classmethod
    def of(cls, texts: Sequence[str]) -> SchemeChoices:
        """The distinct schemes of those short forms."""
        schemes = dict.fromkeys(Scheme.parse(text) for text in texts)
        return cls(tuple(sorted(schemes, key=_order)))

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits that a layer may get, rising."""
        return tuple(sorted({bits for scheme in self.schemes if (bits := bits_of(scheme)) is not None}))

    def with_bits(self, bits: int, like: Scheme) -> Scheme:
        """The scheme of that many bits that differs least from `like`.

        Raises:
            ParedownError: If the study has no scheme of that many bits.
        """
        fitting = [scheme for scheme in self.schemes if bits_of(scheme) == bits]
        if not fitting:
            have = ", ".join(map(str, self.bits))
            raise ParedownError(f"expected one of this study's bits ({have}), got {bits}; name more schemes when starting a study")
        return min(fitting, key=lambda scheme: _distance(scheme, like))

    def stepped(self, scheme: Scheme, by: int) -> Scheme:
        """The next scheme up or down the ladder of bits; the ends stay."""
        ladder: list[int | None] = [*self.bits, *([None] if KEEP in self.schemes else [])]
        if not ladder:
            return scheme
        here = bits_of(scheme)
        if here in ladder:
            index = ladder.index(here)
        else:  # a plan from elsewhere: the nearest rung below
            index = max((i for i, rung in enumerate(ladder) if here is None or (rung is not None and rung <= here)), default=0)
        rung = ladder[max(0, min(len(ladder) - 1, index + by))]
        return KEEP if rung is None else self.with_bits(rung, scheme)

    def uniform(self, bits: int) -> Scheme:
        """The scheme that a uniform plan of that many bits uses."""
        return self.with_bits(bits, self.schemes[0])

    @property
    def middle(self) -> Scheme:
        """Where a plan begins: 4 bits, or what is nearest to that."""
        return self.uniform(min(self.bits, key=lambda bits: (abs(bits - 4), bits))) if self.bits else KEEP


def _order(scheme: Scheme) -> tuple[float, bool, float, bool, str, str]:
    if scheme.weight is None:
        return (float("inf"), scheme == KEEP, 0.0, False, "", str(scheme))
    group = -float(scheme.weight.group_size or 10**9)
    return (scheme.weight.bits, not is_simple(scheme), group, scheme.weight.symmetric, scheme.solver, str(scheme))


def _distance(scheme: Scheme, like: Scheme) -> tuple[bool, ...]:
    mine, theirs = scheme.weight, like.weight or WeightFormat(4)
    assert mine is not None
    return (
        scheme.sparsity != like.sparsity,
        scheme.low_rank != like.low_rank,
        scheme.activation != like.activation,
        mine.kind != theirs.kind,
        mine.group_size != theirs.group_size,
        mine.symmetric != theirs.symmetric,
        scheme.solver != like.solver,
    )
