"""What a person has asked a study for and what was not done yet; any thread may look at it and change its order."""

from __future__ import annotations

import threading

from paredown.errors import ParedownError
from paredown.specs import CurvatureRequest, Plan


class Waiting:
    """First come, first served, unless somebody moves a plan to the front or takes it back."""

    def __init__(self) -> None:
        self._wanted: list[Plan | CurvatureRequest] = []
        self._lock = threading.Lock()

    @property
    def plans(self) -> tuple[Plan, ...]:
        """The plans, the next one first."""
        with self._lock:
            return tuple(each for each in self._wanted if isinstance(each, Plan))

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._wanted

    def put(self, wanted: Plan | CurvatureRequest) -> None:
        """Add something at the end; a plan that waits already keeps its place."""
        with self._lock:
            if not (isinstance(wanted, Plan) and self._find(wanted.digest) is not None):
                self._wanted.append(wanted)

    def take(self) -> Plan | CurvatureRequest | None:
        """Take out the next one; None where nothing waits."""
        with self._lock:
            return self._wanted.pop(0) if self._wanted else None

    def hasten(self, digest: str) -> None:
        """Move a plan to the front.

        Raises:
            ParedownError: If it does not wait.
        """
        with self._lock:
            self._wanted.insert(0, self._wanted.pop(self._place(digest)))

    def withdraw(self, digest: str) -> None:
        """Take a plan back.

        Raises:
            ParedownError: If it does not wait.
        """
        with self._lock:
            del self._wanted[self._place(digest)]

    def clear(self) -> None:
        """Forget all of it."""
        with self._lock:
            self._wanted.clear()

    def _find(self, digest: str) -> int | None:
        return next((place for place, each in enumerate(self._wanted) if isinstance(each, Plan) and each.digest == digest), None)

    def _place(self, digest: str) -> int:
        place = self._find(digest)
        if place is None:
            raise ParedownError(f"the plan {digest} does not wait any more; it is being measured, or was taken back")
        return place
