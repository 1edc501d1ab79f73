"""Schemes in words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from paredown.specs import KEEP, Scheme, WeightFormat, usual_criterion


def bits_of(scheme: Scheme) -> int | None:
    """Bits of a scheme's codes; None where no number is quantized."""
    return None if scheme.weight is None else scheme.weight.bits


def is_simple(scheme: Scheme) -> bool:
    """Whether its bits say what is done: integer codes, each rounded for itself, and nothing else."""
    return scheme.is_plain and not scheme.needs_calibration


_KINDS = {"int": "", "nf": " NormalFloat", "mxfp": " MXFP4", "nvfp": " NVFP4"}
_ROUNDINGS = {"mse": "clip search", "sawb": "SAWB", "gptq": "GPTQ", "hqq": "HQQ", "signround": "SignRound"}
_CRITERIA = {
    "magnitude": "by magnitude",
    "wanda": "Wanda",
    "sparsegpt": "SparseGPT",
    "fisher": "diagonal Fisher",
    "mfac": "M-FAC",
    "kfac": "K-FAC",
}
_FACTORS = {"eora": "EoRA", "svd": "SVD", "lq": "LQ-LoRA"}


def _groups(format_: WeightFormat) -> str:
    if format_.neuron_groups is not None:
        return f"{format_.neuron_groups} neuron groups"
    if format_.group_size is None:
        return "per channel"
    return f"{'groups' if format_.kind in ('int', 'nf') else 'blocks'} of {format_.group_size}"


@cache
def describe(scheme: Scheme) -> str:
    """A scheme in words.

    Example:
        >>> describe(Scheme.parse("int4g64")), describe(Scheme.parse("int8sym-mse"))
        ('4 bit, groups of 64', '8 bit, per channel, symmetric, clip search')
        >>> describe(Scheme.parse("nf3g64+2:4-wanda+eora16:8")), describe(Scheme.parse("svd8"))
        ('3 bit NormalFloat, groups of 64, Wanda, 2 of 4 kept, EoRA of rank 16 at 8 bit', 'SVD of rank 8')
        >>> describe(Scheme.parse("nvfp4a8static")), describe(Scheme.parse("int3n128-gptq+50%-mfac"))
        ('4 bit NVFP4, blocks of 16, inputs at 8 bit in a static range', '3 bit, 128 neuron groups, GPTQ, M-FAC, 50% zeros')
    """
    if scheme == KEEP:
        return "kept as it is"
    parts = ["numbers of the checkpoint"] if scheme.sparsity or scheme.weight else []
    if scheme.weight is not None:
        format_ = scheme.weight
        parts = [f"{format_.bits} bit{_KINDS[format_.kind]}", _groups(format_)]
        if format_.symmetric:
            parts.append("symmetric")
    if scheme.activation is not None:
        parts.append(f"inputs at {scheme.activation.bits} bit{' in a static range' * scheme.activation.static}")
    if scheme.rounding != "rtn":
        parts.append(_ROUNDINGS.get(scheme.rounding, scheme.rounding))  # one of the user's own has its own name
    if scheme.sparsity is not None and scheme.criterion != usual_criterion(scheme.rounding):
        parts.append(_CRITERIA[scheme.criterion])
    if scheme.sparsity is not None:
        pair = scheme.sparsity.n_of_m
        parts.append(f"{scheme.sparsity} zeros" if pair is None else f"{pair[0]} of {pair[1]} kept")
    if scheme.low_rank is not None:
        width = "" if scheme.low_rank.bits == 16 else f" at {scheme.low_rank.bits} bit"
        parts.append(f"{_FACTORS[scheme.low_rank.kind]} of rank {scheme.low_rank.rank}{width}")
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
