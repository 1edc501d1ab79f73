"""Layer by layer: the first plan's bits, and what the others have beyond it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from paredown.specs import KEEP, Scheme
from paredown_widgets.comparison import Entry
from paredown_widgets.numbers import MINUS
from paredown_widgets.schemes import bits_of, describe

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

_WIDTHS = {"float64": 64, "float32": 32, "float16": 16, "bfloat16": 16}
_SEQUENTIAL = {2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 8: 6}  # steps of the ramp q0..q7, as in the plan
_KEPT = 7
_MIDDLE = 3  # of the ramp d0..d6
SAME = "·"


def view(model: ExplorerModel, entries: Sequence[Entry]) -> dict[str, Any]:
    """One list of cells a plan, in the order of `names`: [text, step of the ramp, badge, all of it in words]."""
    names = list(model.editor.schemes)
    dtypes = {layer.name: layer.dtype for layer in model.record.layers}
    plans: list[list[list[Any]]] = []
    for entry in entries:
        cells = []
        for name in names:
            own, first = (one.plan.schemes.get(name, KEEP) for one in (entry, entries[0]))
            cells.append(_own(own, dtypes[name]) if entry is entries[0] else _beyond(own, first, dtypes[name]))
        plans.append(cells)
    return {"names": names, "plans": plans}


def _width(scheme: Scheme, dtype: str) -> int:
    return bits_of(scheme) or _WIDTHS.get(dtype, 32)


def _own(scheme: Scheme, dtype: str) -> list[Any]:
    bits = _width(scheme, dtype)
    return [str(bits), _KEPT if scheme.weight is None else _SEQUENTIAL.get(bits, 4), " ".join(_extras(scheme)), describe(scheme)]


def _beyond(own: Scheme, first: Scheme, dtype: str) -> list[Any]:
    """Bits more or fewer with their sign; what was added or left out beside them as badges; any other difference as an unequal sign."""
    gap = _width(own, dtype) - _width(first, dtype)
    step = _MIDDLE + (min(gap, 3) if gap > 0 else max(gap, -3))
    its, theirs = _extras(own), _extras(first)
    badges = [f"+{extra}" for extra in its if extra not in theirs] + [f"{MINUS}{extra}" for extra in theirs if extra not in its]
    if not badges and not gap and own != first:
        badges = ["≠"]
    text = f"+{gap}" if gap > 0 else f"{MINUS}{-gap}" if gap else SAME
    return [text, step, " ".join(badges), f"{describe(own)} instead of {describe(first)}" if own != first else f"{describe(own)}, as in A"]


def _extras(scheme: Scheme) -> list[str]:
    """What a scheme has besides its codes."""
    rank = f"r{scheme.low_rank.rank}" if scheme.low_rank else ""
    return [extra for extra in (str(scheme.sparsity or ""), rank, str(scheme.activation or "")) if extra]
