"""What a format can't hold, found before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paredown.errors import ParedownError


@dataclass(frozen=True, slots=True)
class Refusal:
    """One layer that a format can't hold.

    Attributes:
        layer: Its name.
        reason: Why, and what could be held.
    """

    layer: str
    reason: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.reason}"


def refuse(format: str, refusals: Sequence[Refusal], remedy: str) -> None:
    """Raise where anything is refused.

    Raises:
        ParedownError: With every layer and reason, at most ten in words.
    """
    if refusals:
        shown = "\n  ".join(map(str, refusals[:10]))
        more = f"\n  and {len(refusals) - 10} more" if len(refusals) > 10 else ""
        raise ParedownError(f"{format} can't hold this plan, and nothing was written:\n  {shown}{more}\n{remedy}")
