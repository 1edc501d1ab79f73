"""What happens in a worker: it is refused or opened once, then answers jobs. Errors travel as words."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from paredown.errors import ParedownError

Work = Callable[[Any], Any]
"""Does a job."""

Opening = Callable[[], Work]
"""Loads what a worker holds. It is pickled, so that it carries names and not what they stand for."""

Load = Callable[[str], "dict[str, np.ndarray] | None"]
"""Loads the arrays that are kept under a name; None where there are none."""

Kind = Literal["ready", "refused", "answer", "failed", "fault", "lost"]
"""What became of a worker or its job: it may begin, it must not; answered, a user's mistake, a mistake of ours, no word any more."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a worker says.

    Attributes:
        kind: What happened.
        value: The answer, or why there is none, in words.
    """

    kind: Kind
    value: Any = None


def _digest_of_source() -> str:
    here, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(here.rglob("*.py")):
        digest.update(file.relative_to(here).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


_SOURCE = _digest_of_source()  # as it is imported: an hour later, somebody may have edited it


def versions() -> dict[str, str]:
    """What a worker must have as the run has it: other versions give other figures, or don't understand what they are sent."""
    known = {name: version(name).partition("+")[0] for name in ("paredown", "torch", "transformers", "numpy")}
    return {"Python": platform.python_version().rpartition(".")[0], **known, "Paredown's source": _SOURCE}


def import_path() -> str:
    """PYTHONPATH of a worker on this machine, which imports from where this process does."""
    return os.pathsep.join(path for path in sys.path if path)


class Worker:
    """Holds what was opened."""

    def __init__(self) -> None:
        self._work: Work | None = None

    def check(self, expected: Mapping[str, str]) -> Reply:
        """Compare versions, before anything else is read that they may have changed."""
        own = versions()
        other = [f"{name} {own.get(name, 'not at all')} instead of {there}" for name, there in expected.items() if own.get(name) != there]
        if other:
            return Reply(
                "refused", f"the worker on {socket.gethostname()} has {', '.join(other)}; install there what the run has, then run it again"
            )
        return Reply("ready")

    def open(self, opening: Opening) -> Reply:
        """Load what the jobs need."""
        reply = _said(opening)
        if reply.kind != "answer":
            return Reply("refused" if reply.kind == "failed" else reply.kind, reply.value)
        self._work = reply.value
        return Reply("ready")

    def answer(self, job: Any) -> Reply:
        """Do a job."""
        work = self._work
        assert work is not None
        return _said(lambda: work(job))


def _said(ask: Callable[[], Any]) -> Reply:
    try:
        return Reply("answer", ask())
    except ParedownError as error:
        return Reply("failed", str(error))
    except Exception:
        return Reply("fault", traceback.format_exc())
