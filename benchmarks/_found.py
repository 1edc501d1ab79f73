"""Our plans beside rivals' at the same size, seed by seed and over all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from _rows import Row, row
from paredown.search import Difference, difference


@dataclass(frozen=True)
class Found:
    """Our plan beside a rival's, of one seed at one budget.

    Attributes:
        case: The model, and what was offered.
        seed: Of the calibration data.
        bits: The budget.
        rival: Whose plan.
        metric: Its name.
        kl: Held-out, nats: ours, the rival's.
        low: Lower end of the paired interval of ours less the rival's.
        high: Upper end.
        metrics: Ours, the rival's.
        samples: Of the search split, of the held-out split.
        places: Of each held-out sample among all that there are, the same for every seed.
        gaps: KL of ours less the rival's on each of them, summed over its units.
        units: Of each of them.
        tokens: That ran forward at this budget: ours, the rival's; where they were counted.
        note: What else there is to know.
    """

    case: str
    seed: int
    bits: float
    rival: str
    metric: str
    kl: tuple[float, float]
    low: float
    high: float
    metrics: tuple[float, float]
    samples: tuple[int, int]
    places: Sequence[int]
    gaps: Sequence[float]
    units: Sequence[float]
    tokens: tuple[float, float] | None = None
    note: str = ""


def rows(found: Sequence[Found]) -> list[Row]:
    made = []
    for case, bits, rival in sorted({(each.case, each.bits, each.rival) for each in found}):
        some = [each for each in found if (each.case, each.bits, each.rival) == (case, bits, rival)]
        ours, theirs = np.array([each.kl for each in some]).T
        said = "; ".join([*map(verdict, some), *([f"together {verdict(together(some))}"] if len(some) > 1 else [])])
        metrics = np.mean([each.metrics for each in some], axis=0)
        name = f"{case} {bits:g} bits vs {rival}"
        notes = "; ".join(sorted({each.note for each in some if each.note}))
        searched, held_out = some[0].samples
        words = f"{len(some)} {'seed' if len(some) == 1 else 'seeds'}, {searched} search and {held_out} held-out samples; {some[0].metric} {metrics[0]:.4g} vs {metrics[1]:.4g}"
        made.append(row(f"{name}: {said}; {words}{notes and f'; {notes}'}", ours.mean(), "nats", theirs.mean()))
        spent = [each.tokens for each in some if each.tokens is not None]
        if spent:
            made.append(
                row(f"{name}: forward tokens", np.mean([each[0] for each in spent]), "tokens", np.mean([each[1] for each in spent]))
            )
    return made


def together(found: Sequence[Found]) -> Difference:
    """Over these draws of calibration data: the bootstrap draws samples, each with what all draws that leave it out say of it."""
    places, owners = np.unique(np.concatenate([each.places for each in found]), return_inverse=True)
    gaps, units = (np.bincount(owners, np.concatenate([getattr(each, name) for each in found])) for name in ("gaps", "units"))
    return difference(gaps, np.zeros(len(places)), units)


def verdict(found: Found | Difference) -> str:
    """Whether ours has the lower KL, beyond the interval."""
    word = "ahead" if found.high < 0 else "behind" if found.low > 0 else "undecided"
    return f"{word} {found.low:+.2g} to {found.high:+.2g}"
