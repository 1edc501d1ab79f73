"""Which executor a person means."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from paredown.errors import ParedownError
from paredown.executors.pool import Crew, Pool
from paredown.executors.processes import Processes
from paredown.executors.protocol import Executor
from paredown.executors.worker import Load, Opening

_GRAMMAR = "a number of processes such as 2, ray or ray:2 for a local Ray, or ray://HOST:PORT or ray://HOST:PORT/8 for a Ray cluster"


@dataclass(frozen=True, slots=True)
class Workers:
    """Workers beside the process that drives them.

    Attributes:
        count: How many; None for one on each CPU of a Ray cluster.
        ray: Whether they are Ray's; processes of this machine otherwise.
        address: Of the cluster; empty for one of this machine, started on demand.
    """

    count: int | None = None
    ray: bool = False
    address: str = ""

    @classmethod
    def parse(cls, text: str) -> Workers:
        """Read ``2``, ``ray``, ``ray:2``, ``ray://HOST:PORT`` or ``ray://HOST:PORT/8``.

        Raises:
            ParedownError: If it is none of these.

        Example:
            >>> Workers.parse("ray://head:10001/8")
            Workers(count=8, ray=True, address='ray://head:10001')
        """
        found = re.fullmatch(r"(?P<address>ray://[^/\s]+:\d+)(/(?P<many>\d+))?|(?P<ray>ray)(:(?P<few>\d+))?|(?P<count>\d+)", text.strip())
        if found is None:
            raise ParedownError(f"expected workers as {_GRAMMAR}; got {text!r}")
        number = found["many"] or found["few"] or found["count"]
        if number is not None and int(number) < 1:
            raise ParedownError(f"expected at least 1 worker, got {text!r}; leave it out to measure in this process")
        return cls(None if number is None else int(number), found["count"] is None, found["address"] or "")


def executor(workers: Workers, opening: Callable[[Load], Opening], load: Load, names: Callable[[], Sequence[str]]) -> Executor[Any, Any]:
    """Make an executor.

    Args:
        workers: Which.
        opening: Says how a worker opens, given what loads arrays there.
        load: Loads the arrays of a name on this machine; None where there are none.
        names: Of those that workers may ask for; asked when the first worker starts.

    Returns:
        It. A Ray that is not installed or can't be reached is said with the first job.
    """

    def crew() -> Crew:
        if not workers.ray:
            assert workers.count is not None
            return Processes(opening(load), workers.count)
        from paredown.executors.ray_cluster import RayCluster

        return RayCluster(workers.address, workers.count, opening, load, names)

    return Pool(crew)
