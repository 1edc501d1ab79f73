"""Where on the front a person wants to see more first."""

from __future__ import annotations

from dataclasses import dataclass

from paredown.errors import ParedownError


@dataclass(frozen=True, slots=True)
class Priority:
    """Sizes whose plans are measured, and searched for, before others.

    Attributes:
        low_bytes: The smallest file.
        high_bytes: The largest; 0 for no priority any more.
        round: From which round of the refinement on it counted; None for the wish itself, which a run takes up at its next round.

    Raises:
        ParedownError: If the sizes are negative or the wrong way round.
    """

    low_bytes: int
    high_bytes: int
    round: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.low_bytes <= self.high_bytes:
            raise ParedownError(f"expected sizes from low to high in bytes, got {self.low_bytes:,} to {self.high_bytes:,}; swap them")

    def holds(self, size: float) -> bool:
        """Whether a size lies within."""
        return self.high_bytes > 0 and self.low_bytes <= size <= self.high_bytes
