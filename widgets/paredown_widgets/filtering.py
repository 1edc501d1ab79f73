"""The filter of the plan: ``q k v of blocks 8-11``, ``fc* bits < 4``, ``locked or edited``.

Grammar, case and filler words (``of``, ``in``, ``and``, ``the``, ``all``, ``layers``) ignored::

    filter    = condition {condition} {("or" | ";") condition {condition}}
    condition = ["not"] (blocks | quantity | state | word)
    blocks    = ("block" | "encoder" | "decoder")["s"] range {"," range}       range = N | N-M
    quantity  = ("bits" | "sparsity" | "rank" | "size" | "loss" | "error") ("<" | "<=" | "=" | "!=" | ">" | ">=") number
    state     = "locked" | "edited" | "kept" | "selected"
    word      = a role (``q``, ``fc*``), or else a part of a layer's exact name or of its scheme; ``*`` stands for anything

A layer needs to match one of the words, and all other conditions. Sizes are in kB unless a unit follows (B, kB, MB); the sparsity and the
output error are shares (``50%`` or ``0.5``); the loss is in nats. What a layer does not have is smaller than any number, but its bits,
where it is kept, are larger.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from paredown.errors import ParedownError
from paredown.specs import KEEP, Candidate, Scheme
from paredown_widgets.labels import LayerLabel
from paredown_widgets.schemes import bits_of

_STACKS = ("block", "encoder", "decoder")
_STATES = ("locked", "edited", "kept", "selected")
_FILLERS = frozenset({"of", "in", "and", "the", "all", "layers", "layer", "with", "which", "are", "is"})
_SIGNS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, "≤": operator.le, "=": operator.eq, "==": operator.eq,
    "!=": operator.ne, "≠": operator.ne, ">": operator.gt, ">=": operator.ge, "≥": operator.ge,
}  # fmt: skip
_UNITS = {"b": 1.0, "kb": 1e3, "mb": 1e6, "%": 0.01}
_TOKEN = re.compile(r"<=|>=|==|!=|[<>=≤≥≠;]|[^\s,<>=≤≥≠;!]+|,|!")
_RANGE = re.compile(r"(\d+)(?:[-–](\d+))?")
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(b|kb|mb|%|nats?|bits?)?")


@dataclass(frozen=True)
class Layer:
    """What a condition may ask of a layer.

    Attributes:
        name: Its exact name.
        label: Where it stands.
        scheme: What the plan does to it.
        candidate: What that costs; None where it is not priced.
        states: Those of locked, edited and selected that hold.
    """

    name: str
    label: LayerLabel
    scheme: Scheme
    candidate: Candidate | None = None
    states: frozenset[str] = frozenset()


Condition = Callable[[Layer], bool]

_QUANTITIES: Mapping[str, Callable[[Layer], float | None]] = {
    "bits": lambda layer: bits_of(layer.scheme) or float("inf"),
    "sparsity": lambda layer: layer.scheme.sparsity.fraction if layer.scheme.sparsity else 0.0,
    "rank": lambda layer: layer.scheme.low_rank.rank if layer.scheme.low_rank else 0.0,
    "size": lambda layer: layer.candidate.bytes if layer.candidate else None,
    "loss": lambda layer: layer.candidate.loss_increase if layer.candidate else None,
    "error": lambda layer: layer.candidate.output_error if layer.candidate else None,
}


def matching(text: str, layers: Sequence[Layer]) -> tuple[str, ...] | None:
    """Names of the layers that a filter keeps; None for an empty filter, which keeps all.

    Args:
        text: What the user typed.
        layers: All of them.

    Raises:
        ParedownError: If the text breaks off or has a word out of place; says what was expected there.
    """
    if not text.strip():
        return None
    keeps = parse(text, frozenset(layer.label.column.lower() for layer in layers))
    return tuple(layer.name for layer in layers if keeps(layer))


def parse(text: str, roles: frozenset[str] = frozenset()) -> Condition:
    """The condition that a filter stands for.

    Args:
        text: What the user typed.
        roles: Those that the model has: such a word is no part of a name.

    Raises:
        ParedownError: As `matching`.
    """
    pieces = [piece for piece in _TOKEN.findall(text.strip().lower()) if piece not in _FILLERS]
    alternatives: list[list[str]] = [[]]
    for piece in pieces:
        if piece in ("or", ";"):
            alternatives.append([])
        else:
            alternatives[-1].append(piece)
    if not all(any(piece != "," for piece in each) for each in alternatives):
        raise ParedownError("or: expected something on both sides of it, such as block 0 or locked")
    conditions = [_all_of(_Pieces(each), roles) for each in alternatives]
    return lambda layer: any(condition(layer) for condition in conditions)


class _Pieces(list[str]):
    """Tokens that are taken from the front."""

    def next(self) -> str:
        return self.pop(0) if self else ""

    @property
    def ahead(self) -> str:
        return self[0] if self else ""


def _all_of(pieces: _Pieces, roles: frozenset[str]) -> Condition:
    words: list[Condition] = []
    others: list[Condition] = []
    while pieces:
        piece = pieces.next()
        if piece == ",":
            continue
        negated = piece in ("not", "!")
        if negated and not (piece := pieces.next()):
            raise ParedownError("not: expected what must not hold after it, such as not locked")
        is_word, condition = _condition(piece, pieces, roles)
        if negated:
            others.append(_negated(condition))
        else:
            (words if is_word else others).append(condition)
    return lambda layer: all(each(layer) for each in others) and (not words or any(each(layer) for each in words))


def _condition(piece: str, pieces: _Pieces, roles: frozenset[str]) -> tuple[bool, Condition]:
    """Whether it is a word, of which one is enough, and what it asks."""
    stack = next((stack for stack in _STACKS if piece in (stack, f"{stack}s")), None)
    glued = re.fullmatch(rf"({'|'.join(_STACKS)})s?(\d.*)", piece)
    if glued:
        stack = glued[1]
        pieces.insert(0, glued[2])
    if stack is not None:
        return False, _blocks(stack, pieces)
    if piece in _SIGNS:
        raise ParedownError(f"{piece}: expected one of {', '.join(_QUANTITIES)} before it, such as bits {piece} 4")
    if piece in _QUANTITIES and (pieces.ahead in _SIGNS or piece in ("bits", "sparsity", "rank")):
        return False, _compared(piece, pieces)
    if piece.removeprefix("un") in _STATES[:1]:
        holds = _state("locked")
        return False, holds if piece == "locked" else _negated(holds)
    if piece in _STATES:
        return False, _state(piece)
    return True, _word(piece, piece in roles)


def _blocks(stack: str, pieces: _Pieces) -> Condition:
    ranges = list(_ranges(pieces))
    if not ranges:
        raise ParedownError(f"{stack}: expected a number or a range after it, such as {stack} 3 or {stack}s 8-11")

    def within(layer: Layer) -> bool:
        index, own = layer.label.index, layer.label.block.lower()
        return index is not None and (stack == "block" or own.startswith(stack)) and any(low <= index <= high for low, high in ranges)

    return within


def _ranges(pieces: _Pieces) -> Iterator[tuple[int, int]]:
    while True:
        place = 1 if pieces.ahead == "," else 0
        found = _RANGE.fullmatch(pieces[place]) if len(pieces) > place else None
        if found is None:
            return
        del pieces[: place + 1]
        first = int(found[1])
        if found[2] is None and len(pieces) > 1 and pieces[0] in ("-", "–", "to") and pieces[1].isdigit():  # written apart
            pieces.next()
            yield first, int(pieces.next())
        else:
            yield first, int(found[2] or first)


def _compared(name: str, pieces: _Pieces) -> Condition:
    sign = pieces.next()
    if sign not in _SIGNS:
        raise ParedownError(f"{name}: expected a comparison after it, such as {name} < {_EXAMPLE[name]}, got {sign or 'nothing'}")
    found = _NUMBER.fullmatch(word := pieces.next())
    if found is None:
        raise ParedownError(f"{name} {sign}: expected a number after it, such as {name} {sign} {_EXAMPLE[name]}, got {word or 'nothing'}")
    unit = found[2] or (pieces.next() if pieces.ahead in _UNITS else "")
    wanted = float(found[1]) * _UNITS.get(unit, 1e3 if name == "size" else 1.0)
    value, holds = _QUANTITIES[name], _SIGNS[sign]

    def compares(layer: Layer) -> bool:
        own = value(layer)
        return own is not None and holds(own, wanted)

    return compares


_EXAMPLE = {"bits": "4", "sparsity": "50%", "rank": "16", "size": "100 kB", "loss": "0.001", "error": "5%"}


def _state(name: str) -> Condition:
    if name == "kept":
        return lambda layer: layer.scheme == KEEP
    return lambda layer: name in layer.states


def _negated(condition: Condition) -> Condition:
    return lambda layer: not condition(layer)


def _word(word: str, is_role: bool) -> Condition:
    if is_role:
        return lambda layer: layer.label.column.lower() == word
    pattern = word.replace("[", "[[]").replace("?", "[?]")  # only the star is a wildcard

    def named(layer: Layer) -> bool:
        own = (layer.label.column.lower(), layer.name.lower(), str(layer.scheme))
        return any(fnmatchcase(each, pattern) for each in own) or (
            "*" not in word and (word in own[1] or (len(word) > 2 and word in own[2]))
        )

    return named
