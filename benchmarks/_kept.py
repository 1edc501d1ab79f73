"""What a benchmark found before at the same settings, so that a run that was stopped goes on, and another rule costs only what it asks anew."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from paredown.errors import ParedownError

T = TypeVar("T")


class Kept:
    """Values by key in a file, a JSON line each; the first line holds the settings.

    Args:
        path: The file, which is made where it is missing; None keeps nothing beyond this run.
        settings: What all values depend on.

    Raises:
        ParedownError: If the file was made at other settings.
    """

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self.path = path
        self._values: dict[str, Any] = {}
        if path is not None and path.exists():
            whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]  # the last may be half written
            first, *lines = map(json.loads, whole)
            if first != json.loads(json.dumps(settings)):
                raise ParedownError(f"{path} was made at other settings: expected {dict(settings)}, got {first}; name another folder")
            self._values = dict(lines)
            path.write_text("".join(whole))
        elif path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings) + "\n")

    def get(self, key: str, make: Callable[[], T]) -> T:
        """The value of a key, made where it is not there; what JSON holds."""
        if key not in self._values:
            self._values[key] = value = make()
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps([key, value]) + "\n")
        return self._values[key]


def digest(*parts: Any) -> str:
    """A short name for what JSON holds, or strings can stand for."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
