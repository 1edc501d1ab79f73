"""What every scheme would cost each layer: the table beside the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paredown.specs import KEEP, Candidate, Scheme
from paredown_widgets import numbers
from paredown_widgets.choices import part_words, position
from paredown_widgets.handles import group
from paredown_widgets.model import ExplorerModel
from paredown_widgets.schemes import describe

_MOST_ROWS = 18
"""As many as fit beside the plan; beyond, the best of each position of the handles stands for all there."""


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `what_if` trait: for every layer what each scheme would cost; constant once the candidates are known."""
    schemes = sorted(model.choices.schemes, key=_order)
    names = dict(zip(schemes, _names(schemes), strict=True))
    groups = {scheme: group(scheme) for scheme in schemes}
    per_layer: dict[str, Any] = {}
    notes: dict[str, str] = {}
    for name in model.editor.schemes:
        offered = model.record.candidates.get(name, {})
        rows = _best([scheme for scheme in schemes if scheme in offered], offered)
        if rows:
            per_layer[name] = [
                {
                    "scheme": str(scheme),
                    "group": groups[scheme],
                    "cells": [
                        names[scheme],
                        numbers.significant(offered[scheme].bytes / 1e3),
                        numbers.with_error(offered[scheme].loss_increase * 1e3, offered[scheme].loss_increase_sd * 1e3),
                    ],
                }
                for scheme in rows
            ]
            notes[name] = _note(model, name, cut=len(rows) < sum(scheme in offered for scheme in schemes))
    what = "KL" if model.record.info is None or model.record.info.loss == "kl" else "loss"
    return {"columns": ["bits", "size, kB", f"{what}, 10⁻³ nats"], "rows": per_layer, "note": notes}


def _best(schemes: list[Scheme], offered: Mapping[Scheme, Candidate]) -> list[Scheme]:
    if len(schemes) <= _MOST_ROWS:
        return schemes
    best: dict[Any, Scheme] = {}
    for scheme in schemes:
        at = position(scheme)
        if at not in best or offered[scheme].loss_increase < offered[best[at]].loss_increase:
            best[at] = scheme
    return list(best.values())


def _order(scheme: Scheme) -> tuple[Any, ...]:
    """By sparsity, then rank, then bits: one group of rows for each place of the first two."""
    _, sparsity, rank = position(scheme)
    return (sparsity.fraction if sparsity else 0.0, str(sparsity or ""), rank or 0)


def _names(schemes: list[Scheme]) -> list[str]:
    """Bits and whatever tells the schemes of one group apart.

    Example:
        >>> _names([Scheme.parse(text) for text in ("int3g64", "int4g64", "int4g64-gptq+2:4", "nf4g64", "keep")])
        ['3', '4', '4, GPTQ', '4 NormalFloat', 'kept']
    """
    corrections = {_correction(scheme) for scheme in schemes if scheme.low_rank}
    words = [_own_words(scheme, say_correction=len(corrections) > 1) for scheme in schemes]
    parts = [set(each[1:]) for each, scheme in zip(words, schemes, strict=True) if scheme.weight is not None]
    shared = set[str]().union(*parts[:1]).intersection(*parts)
    return [", ".join(part for part in each if part not in shared) for each in words]


def _own_words(scheme: Scheme, *, say_correction: bool) -> list[str]:
    """The words of a scheme without those of its group."""
    theirs = {part_words(scheme, handle) for handle in ("sparsity", "rank")}
    first, *rest = [word for word in describe(scheme).split(", ") if word not in theirs] or [""]
    own = [first.replace(" bit", "", 1) if scheme.weight else "kept" if scheme == KEEP or scheme.sparsity else "factors", *rest]
    return [*own, _correction(scheme)] if say_correction and scheme.low_rank else own


def _correction(scheme: Scheme) -> str:
    """Kind and bits of the factors: `EoRA at 8 bit`."""
    return part_words(scheme, "rank").replace(f" of rank {scheme.low_rank and scheme.low_rank.rank}", "")


def _note(model: ExplorerModel, name: str, *, cut: bool) -> str:
    known = model.record.estimates(name)
    words = sorted({candidate.note for candidate in model.record.candidates[name].values() if candidate.note})
    if known.trace is not None:
        words.insert(0, f"trace {numbers.with_error(known.trace.value, known.trace.data_sd)}")
    if known.eigenvalues is not None and known.eigenvalues.top:
        words.insert(0, f"λmax {numbers.significant(known.eigenvalues.top[0])}")
    return ", ".join([*words, *(["of several solvers the one with the least loss"] if cut else [])])
