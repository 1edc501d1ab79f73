"""Where a session finds the arrays of its study, and keeps new ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from paredown.executors.worker import Load


class Arrays(Protocol):
    """What a `paredown.store.Store` offers of arrays."""

    def load_arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a name; None where they must be computed."""
        ...

    def save_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays under a name."""
        ...


class BorrowedArrays:
    """What a worker has: the driver alone writes, so that what is to be kept goes back to it with an answer.

    Args:
        load: Loads the arrays of a name.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._new: dict[str, Mapping[str, np.ndarray]] = {}

    def load_arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a name; None where they must be computed."""
        return self._load(name)

    def save_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Set arrays aside for the driver."""
        self._new[name] = arrays

    def taken(self) -> dict[str, Mapping[str, np.ndarray]]:
        """What was set aside since the last time."""
        new, self._new = self._new, {}
        return new


@dataclass(frozen=True, slots=True)
class MappedArrays:
    """Loads arrays as views of their files: read when they are looked at, and in memory once for all processes of a machine.

    Attributes:
        folder: Holds ``NAME.safetensors``.
    """

    folder: Path

    def __call__(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a name; None where there are none, or the file is damaged."""
        try:
            with safe_open(self.folder / f"{name}.safetensors", "pt") as file:  # NumPy's way would copy
                return {key: file.get_tensor(key).numpy() for key in file.keys()}  # noqa: SIM118  (it is no mapping)
        except (FileNotFoundError, SafetensorError):
            return None

    def names(self) -> list[str]:
        """Of all that is there."""
        return sorted(file.stem for file in self.folder.glob("*.safetensors"))
