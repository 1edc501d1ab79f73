"""The filter of the plan: ``block 3-5 fc*`` and the like.

Grammar: words, separated by spaces or commas. ``block N`` or ``block N-M`` keeps those blocks; every other word is a role
(``q``, ``fc*`` with ``*`` for anything) or a part of the layer's exact name, and a layer needs to match one of them.
Case is ignored. Nothing in the text can be a mistake: what matches no layer simply finds none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from paredown_widgets.labels import LayerLabel

_BLOCKS = re.compile(r"\b(?P<stack>block|encoder|decoder)s?\s*(?P<first>\d+)(?:\s*[-–]\s*(?P<last>\d+))?")


def matching(text: str, labels: Mapping[str, LayerLabel]) -> tuple[str, ...] | None:
    """Names of the layers that a filter keeps; None for an empty filter, which keeps all.

    Args:
        text: What the user typed.
        labels: Label of every layer.
    """
    wanted = text.strip().lower()
    if not wanted:
        return None
    ranges = [(m["stack"], int(m["first"]), int(m["last"] or m["first"])) for m in _BLOCKS.finditer(wanted)]
    words = [word for word in re.split(r"[\s,]+", _BLOCKS.sub(" ", wanted)) if word]
    return tuple(name for name, label in labels.items() if _in_ranges(label, ranges) and _has_word(name, label, words))


def _in_ranges(label: LayerLabel, ranges: Sequence[tuple[str, int, int]]) -> bool:
    if not ranges:
        return True
    if label.index is None:
        return False
    return any(
        first <= label.index <= last and (stack == "block" or label.block.lower().startswith(stack)) for stack, first, last in ranges
    )


def _has_word(name: str, label: LayerLabel, words: Sequence[str]) -> bool:
    column, exact = label.column.lower(), name.lower()
    return not words or any(fnmatchcase(column, _literal(word)) or ("*" not in word and word in exact) for word in words)


def _literal(word: str) -> str:
    """Only the star is a wildcard: a bracket or a question mark in a layer's name stands for itself."""
    return word.replace("[", "[[]").replace("?", "[?]")
