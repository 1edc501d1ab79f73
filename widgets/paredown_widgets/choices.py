"""What a layer may get, taken hold of by three handles: bits, sparsity and rank.

Each handle moves along the values that are offered while the two others stay. A value that is offered only elsewhere takes the
others along: to the nearest scheme that has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal, TypeAlias, get_args

from paredown.errors import ParedownError
from paredown.specs import KEEP, Scheme, Sparsity
from paredown_widgets.schemes import bits_of, describe, is_simple

Handle = Literal["bits", "sparsity", "rank"]
HANDLES: tuple[Handle, ...] = get_args(Handle)
Value: TypeAlias = int | Sparsity | None
"""Where a handle stands: bits (None: the checkpoint's numbers), a sparsity, or a rank (None: none)."""

Position: TypeAlias = tuple[int | None, Sparsity | None, int | None]


def position(scheme: Scheme) -> Position:
    """Where the three handles stand for a scheme.

    Example:
        >>> position(Scheme.parse("int4g64-gptq+2:4+eora16")), position(KEEP)
        ((4, Sparsity(pattern='2:4'), 16), (None, None, None))
    """
    return bits_of(scheme), scheme.sparsity, scheme.low_rank and scheme.low_rank.rank


def value_of(scheme: Scheme, handle: Handle) -> Value:
    """Where one handle stands for a scheme."""
    return position(scheme)[HANDLES.index(handle)]


@dataclass(frozen=True, eq=False)
class SchemeChoices:
    """The schemes that a study, or one of its layers, offers, in rising order of bits. Hashed as an object: layers share it."""

    schemes: tuple[Scheme, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> SchemeChoices:
        """The distinct schemes of those short forms."""
        schemes = dict.fromkeys(Scheme.parse(text) for text in texts)
        return cls(tuple(sorted(schemes, key=_order)))

    @cached_property
    def places(self) -> dict[Position, tuple[Scheme, ...]]:
        """Positions of the handles that are offered, with the schemes there."""
        places: dict[Position, tuple[Scheme, ...]] = {}
        for scheme in self.schemes:
            places[position(scheme)] = (*places.get(position(scheme), ()), scheme)
        return places

    def values(self, handle: Handle) -> tuple[Value, ...]:
        """All that a handle can be set to, whatever the others do; rising."""
        return _rising(handle, {place[HANDLES.index(handle)] for place in self.places})

    def beside(self, scheme: Scheme, handle: Handle) -> tuple[Value, ...]:
        """What a handle can be set to while the two others stay as they are in `scheme`; rising.

        Example:
            >>> choices = SchemeChoices.of(["int3g64", "int4g64", "int4g64+2:4"])
            >>> choices.beside(Scheme.parse("int4g64"), "bits"), choices.beside(Scheme.parse("int4g64+2:4"), "bits")
            ((3, 4), (4,))
        """
        here, at = position(scheme), HANDLES.index(handle)
        return tuple(value for value in self.values(handle) if _with(here, at, value) in self.places)

    def moved(self, scheme: Scheme, handle: Handle, value: Value) -> Scheme | None:
        """The scheme with a handle at that value that differs least from `scheme`; None where there is none.

        Least: the nearest bits, then sparsity, then rank, then number format and solver; of two alike the first by name.
        """
        at = HANDLES.index(handle)
        fitting = self.places.get(_with(position(scheme), at, value)) or [each for each in self.schemes if position(each)[at] == value]
        return min(fitting, key=lambda each: (_distance(each, scheme), str(each)), default=None)

    def stepped(self, scheme: Scheme, handle: Handle, by: int) -> Scheme:
        """The next scheme up or down the values that a handle has beside the others; the ends stay."""
        ladder = self.beside(scheme, handle)
        here = _key(handle, value_of(scheme, handle))
        ahead = [value for value in ladder if (_key(handle, value) > here if by > 0 else _key(handle, value) < here)]
        return (self.moved(scheme, handle, ahead[0 if by > 0 else -1]) if ahead else None) or scheme

    def after(self, scheme: Scheme, handle: Handle) -> Value:
        """The value that follows in a circle: among those that leave the others as they are, or among all where there is no other."""
        now = value_of(scheme, handle)
        beside = self.beside(scheme, handle)
        circle = beside if set(beside) - {now} else self.values(handle)
        return circle[(circle.index(now) + 1) % len(circle)] if now in circle else circle[0] if circle else now

    @property
    def bits(self) -> tuple[int, ...]:
        """Bits that a layer may get, rising; without what is kept."""
        return tuple(sorted({bits for bits, _, _ in self.places if bits is not None}))

    def uniform(self, bits: int) -> Scheme:
        """The scheme that a uniform plan of that many bits uses.

        Raises:
            ParedownError: If the study has no scheme of that many bits.
        """
        found = self.moved(self.schemes[0], "bits", bits) if self.schemes else None
        if found is None:
            raise self.missing("bits", bits)
        return found

    @property
    def middle(self) -> Scheme:
        """Where a plan begins: 4 bits, or what is nearest to that."""
        return self.uniform(min(self.bits, key=lambda bits: (abs(bits - 4), bits))) if self.bits else KEEP

    def missing(self, handle: Handle, value: object) -> ParedownError:
        """The error of a value that no scheme of the study has."""
        have = ", ".join("none" if each is None else str(each) for each in (self.bits if handle == "bits" else self.values(handle)))
        return ParedownError(f"expected one of this study's {handle} ({have}), got {value}; name more schemes when starting a study")


def layer_choices(
    study: SchemeChoices, groups: Iterable[tuple[str, ...]], candidates: Mapping[str, Collection[Scheme]]
) -> dict[str, SchemeChoices]:
    """What each layer and all that is fused with it may get; layers with the same choices share one object.

    Args:
        study: What the study asks for.
        groups: Layers that are decided together.
        candidates: Layer name to the schemes that it was priced for.
    """
    shared: dict[tuple[Scheme, ...], SchemeChoices] = {}
    choices: dict[str, SchemeChoices] = {}
    for group in dict.fromkeys(groups):
        common = tuple(scheme for scheme in study.schemes if all(scheme in candidates.get(name, ()) for name in group))
        choices |= dict.fromkeys(group, shared.setdefault(common, SchemeChoices(common)))
    return choices


def also_changed(moves: Iterable[tuple[Scheme, Scheme]], handle: Handle) -> str:
    """What a handle took along on its way, in words; empty where everything else stayed.

    Example:
        >>> also_changed([(Scheme.parse("int4g64-gptq+2:4"), Scheme.parse("int5g64+2:4"))], "bits")
        'also changed: no GPTQ any more'
        >>> also_changed([(Scheme.parse("nf3g64"), Scheme.parse("int4g64+2:4"))], "sparsity")
        'also changed: 4 bit, no NormalFloat any more'
        >>> also_changed([(Scheme.parse("int4g64+2:4"), Scheme.parse("int4g64"))], "sparsity")
        ''
    """
    moves = list(moves)
    counted = Counter(words for before, after in moves if (words := _taken_along(before, after, handle)))
    if not counted:
        return ""
    words, often = counted.most_common(1)[0]
    where = "" if often == len(moves) else f" in {sum(counted.values())} of {len(moves)} layers"
    return f"also changed{where}: {words}{', or the like' * (len(counted) > 1)}"


@cache
def _taken_along(before: Scheme, after: Scheme, handle: Handle) -> str:
    if KEEP in (before, after) or before == after:
        return ""
    old, new = _parts(before, handle), _parts(after, handle)
    came, went = [word for word in new if word not in old], [word for word in old[1:] if word not in new]
    return ", ".join([*came, *(f"no {word} any more" for word in went)])


def _parts(scheme: Scheme, without: Handle) -> list[str]:
    """Bits, or nothing where they are the handle, then the words of a scheme but for those of the handle."""
    first, *rest = describe(scheme).split(", ")
    bits = f"{bits_of(scheme)} bit"
    own = part_words(scheme, without)
    return ["" if without == "bits" else bits, *(part for part in (first.removeprefix(bits).strip(), *rest) if part and part != own)]


@cache
def part_words(scheme: Scheme, handle: Handle) -> str:
    """What `describe` says of a scheme's sparsity or low rank, such as ``2 of 4 kept``; empty where there is none.

    Example:
        >>> scheme = Scheme.parse("int4g64+2:4-wanda+eora16:8")
        >>> part_words(scheme, "sparsity"), part_words(scheme, "rank"), part_words(scheme, "bits")
        ('2 of 4 kept', 'EoRA of rank 16 at 8 bit', '')
    """
    part = Scheme(sparsity=scheme.sparsity) if handle == "sparsity" else Scheme(low_rank=scheme.low_rank) if handle == "rank" else KEEP
    return "" if part == KEEP else describe(part).split(", ")[-1]


def _with(place: Position, at: int, value: Value) -> Position:
    return (*place[:at], value, *place[at + 1 :])  # pyright: ignore[reportReturnType]  (the handle's own value)


def _rising(handle: Handle, values: Iterable[Value]) -> tuple[Value, ...]:
    return tuple(sorted(values, key=lambda value: _key(handle, value)))


def _key(handle: Handle, value: Value) -> tuple[float, bool, str]:
    """Rising bits up to what is kept, sparser and sparser, rising rank."""
    if isinstance(value, Sparsity):
        return (value.fraction, value.n_of_m is None, str(value))
    return (float("inf") if handle == "bits" else -1.0) if value is None else float(value), False, ""


def _order(scheme: Scheme) -> tuple[float, bool, float, bool, str, str]:
    if scheme.weight is None:
        return (float("inf"), scheme == KEEP, 0.0, False, "", str(scheme))
    group = -float(scheme.weight.group_size or 10**9)
    return (scheme.weight.bits, not is_simple(scheme), group, scheme.weight.symmetric, scheme.rounding, str(scheme))


def _distance(scheme: Scheme, like: Scheme) -> tuple[float | bool, ...]:
    bits, sparsity, rank = (scheme.weight and scheme.weight.bits) or 32, scheme.sparsity, scheme.low_rank
    return (
        abs(bits - ((like.weight and like.weight.bits) or 32)),
        sparsity != like.sparsity,
        abs((sparsity.fraction if sparsity else 0.0) - (like.sparsity.fraction if like.sparsity else 0.0)),
        abs((rank.rank if rank else 0) - (like.low_rank.rank if like.low_rank else 0)),
        rank != like.low_rank,
        scheme.activation != like.activation,
        *(
            (getattr(scheme.weight, name, None) != getattr(like.weight, name, None))
            for name in ("kind", "group_size", "neuron_groups", "symmetric")
        ),
        scheme.rounding != like.rounding,
        scheme.criterion != like.criterion,
    )
