"""The handles of the toolbar: what bits, sparsity and rank can be set to, what each layer offers, and what the rest would need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from paredown.specs import KEEP, Scheme, Sparsity
from paredown_widgets.choices import HANDLES, Handle, Position, SchemeChoices, Value, part_words, position
from paredown_widgets.model import ExplorerModel
from paredown_widgets.schemes import describe_all

_LABELS: dict[Handle, str] = {"bits": "Bits", "sparsity": "Sparsity", "rank": "Rank"}
DENSE = "bits alone"
"""What a group of schemes without sparsity and rank is called."""


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `handles` trait: constant once the layers are priced."""
    return offer(model.choices, {name: model.choices_of(name) for name in model.labels})


def offer(study: SchemeChoices, layers: Mapping[str, SchemeChoices]) -> dict[str, Any]:
    """What a study offers, and what each layer gets of that; layers with the same choices share one entry of ``kinds``."""
    kinds = list(dict.fromkeys(layers.values())) or [study]
    place = {choices: index for index, choices in enumerate(kinds)}
    return {
        "handles": [{"id": handle, "label": _LABELS[handle], "rungs": _rungs(study, handle)} for handle in HANDLES],
        "schemes": [
            {"id": str(scheme), "label": _without_group(scheme, label), "group": group(scheme)}
            for scheme, label in zip(study.schemes, describe_all(study.schemes), strict=True)
        ],
        "kinds": [
            {"at": [key(at) for at in kind.places], "schemes": [str(scheme) for scheme in kind.schemes], "needs": _needs(study, kind)}
            for kind in kinds
        ],
        "kind": {name: index for name, choices in layers.items() if (index := place[choices])},  # those of the first are left out
    }


def key(at: Position) -> str:
    """A position as one word: `4|2:4|16`, `kept|none|none`."""
    bits, sparsity, rank = at
    return "|".join((_id("bits", bits), _id("sparsity", sparsity), _id("rank", rank)))


def group(scheme: Scheme) -> str:
    """What schemes of one sparsity and rank have in common, in words.

    Example:
        >>> [group(Scheme.parse(text)) for text in ("int4g64", "int4g64+2:4", "nf3g64+2:4+svd16:8")]
        ['bits alone', '2 of 4 kept', '2 of 4 kept, rank 16']
    """
    _, sparsity, rank = position(scheme)
    return ", ".join(filter(None, (part_words(scheme, "sparsity") if sparsity else "", f"rank {rank}" if rank else ""))) or DENSE


def _without_group(scheme: Scheme, label: str) -> str:
    """A scheme in words without its sparsity, which its group says; the correction's kind and bits are said."""
    own = part_words(scheme, "sparsity")
    return ", ".join(word for word in label.split(", ") if word != own) or label


def _id(handle: Handle, value: Value) -> str:
    return ("kept" if handle == "bits" else "none") if value is None else str(value)


def _rungs(study: SchemeChoices, handle: Handle) -> list[dict[str, Any]]:
    """The values of a handle: what a message says, what the toolbar shows, and what the list says."""
    return [
        {"id": _id(handle, value), "value": str(value) if isinstance(value, Sparsity) else value, "label": _words(handle, value)}
        for value in study.values(handle)
    ]


def _words(handle: Handle, value: Value) -> str:
    if value is None:
        return "kept" if handle == "bits" else "none"
    if isinstance(value, Sparsity):
        return part_words(Scheme(sparsity=value), handle)
    return f"{value} bit" if handle == "bits" else f"rank {value}"


def _needs(study: SchemeChoices, kind: SchemeChoices) -> dict[str, str]:
    """For the positions that a layer is not offered: why, and what would change that."""
    reasons: dict[str, str] = {}
    for at in product(*(study.values(handle) for handle in HANDLES)):
        if at not in kind.places:
            here = study.places.get(at, ())  # pyright: ignore[reportArgumentType, reportCallIssue]  (of the handles' own values)
            reasons["|".join(map(_id, HANDLES, at))] = (
                f"{here[0]} is not offered to this layer" if here else f"that would need {_named(study, *at)} among the study's schemes"  # pyright: ignore[reportArgumentType]
            )
    return reasons


def _named(study: SchemeChoices, bits: int | None, sparsity: Sparsity | None, rank: int | None) -> Scheme:
    """The plainest scheme at a position that the study does not have, in the number formats and corrections that it has."""
    weight = next((scheme.weight for scheme in study.schemes if scheme.weight and scheme.weight.bits == bits), None)
    low_rank = next((scheme.low_rank for scheme in study.schemes if scheme.low_rank and scheme.low_rank.rank == rank), None)
    return replace(KEEP, weight=weight, sparsity=sparsity, low_rank=low_rank)
