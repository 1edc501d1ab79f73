"""Workers of a Ray cluster: one that runs, or one on this machine that is started on demand and ends with the run.

What is the same for all workers is put into Ray's object store, which holds it once on each machine.

The tests run a local Ray. An address ``ray://HOST:PORT`` goes through Ray's client.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from paredown.errors import ParedownError
from paredown.executors.worker import Load, Opening, Reply, Worker, import_path, versions

_LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on which Ray decides whether it listens on 127.0.0.1 alone, on Linux too
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of what it will do some day
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
}


class RayCluster:
    """A `paredown.executors.pool.Crew` of Ray actors, each with one CPU and one thread.

    Ray is not asked to restart them or to try again: a lost worker is replaced alike whoever runs it.

    Args:
        address: Of a Ray client server, ``ray://HOST:PORT``; empty for a Ray that this process is connected to, or starts.
        workers: How many; None for one on each CPU.
        opening: Loads what a worker holds; made of what loads arrays there.
        load: Loads arrays here.
        names: Of those to share.

    Raises:
        ParedownError: If Ray is not installed, can't be started or reached, or has no CPUs.
    """

    def __init__(
        self, address: str, workers: int | None, opening: Callable[[Load], Opening], load: Load, names: Callable[[], Sequence[str]]
    ) -> None:
        self._where = f"the Ray cluster {address}" if address else "the Ray of this machine"
        self._ray = _imported(local=not address)
        self._own = not self._ray.is_initialized()
        if self._own:
            self._connect(address, workers)
        self.workers = workers or int(self._ray.cluster_resources().get("CPU", 0))
        """How many there may be."""
        if not self.workers:
            raise ParedownError(f"{self._where} has no CPUs; start a node with some")
        shared = {name: self._ray.put(arrays) for name in names() if (arrays := load(name)) is not None}
        self._opening = self._ray.put(opening(_Shared(shared)))
        self._actor = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Worker)
        self._actors: dict[int, Any] = {}
        self._asked: dict[Any, tuple[int, bool]] = {}  # by what Ray promised: the worker, and whether only its versions were asked

    def start(self, slot: int) -> None:
        """Ask for an actor."""
        self._actors[slot] = self._actor.remote()
        self._asked[self._actors[slot].check.remote(versions())] = (slot, True)

    def give(self, slot: int, job: Any) -> None:
        """Send a job."""
        self._asked[self._actors[slot].answer.remote(job)] = (slot, False)

    def replies(self, seconds: float) -> Sequence[tuple[int, Reply]]:
        """What Ray has of what was asked; see `Crew`.

        Raises:
            ParedownError: If the cluster is gone.
        """
        if not self._asked:
            return []
        deadline, found = time.monotonic() + seconds, []
        while not found and self._asked:
            try:
                done, _ = self._ray.wait(list(self._asked), num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
            except (ConnectionError, self._ray.exceptions.RayError) as error:
                raise self._gone(error) from error
            for promise in done:
                slot, first = self._asked.pop(promise)
                reply = self._reply(promise)
                if first and reply.kind == "ready":
                    self._asked[self._actors[slot].open.remote(self._opening)] = (slot, False)
                else:
                    found.append((slot, reply))
                if reply.kind == "lost":
                    self.stop(slot)
            if time.monotonic() >= deadline:
                break
        return found

    def stop(self, slot: int) -> None:
        """Kill an actor."""
        actor = self._actors.pop(slot, None)
        if actor is None:  # lost with its cluster
            return
        self._asked = {promise: whose for promise, whose in self._asked.items() if whose[0] != slot}
        with contextlib.suppress(ConnectionError, self._ray.exceptions.RayError):
            self._ray.kill(actor)

    def close(self) -> None:
        """Kill the actors; leave the cluster, or end it where it was started here."""
        for slot in list(self._actors):
            self.stop(slot)
        if self._own:
            self._ray.shutdown()

    def _connect(self, address: str, workers: int | None) -> None:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        local = {"address": "local", "num_cpus": workers, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        try:
            with _environment("PYTHONPATH", os.environ.get("PYTHONPATH") if address else import_path()):  # the workers inherit it
                self._ray.init(**({"address": address} if address else local), **quiet)
        except Exception as error:  # Ray's own are of no common kind
            self._ray.shutdown()
            what = "can't be reached" if address else "can't be started"
            raise ParedownError(
                f"{self._where} {what}: {str(error) or type(error).__name__}; or use processes, such as --workers 2"
            ) from error

    def _reply(self, promise: Any) -> Reply:
        errors = self._ray.exceptions
        try:
            return self._ray.get(promise)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:
            return Reply("refused", f"a worker of {self._where} can't begin: {error}; install there what the run has, then run it again")
        except (errors.ActorDiedError, errors.ActorUnavailableError, errors.ObjectLostError) as error:
            return Reply("lost", str(error).partition("\n")[0])
        except (ConnectionError, errors.RayError) as error:
            raise self._gone(error) from error

    def _gone(self, error: BaseException) -> ParedownError:
        self._asked.clear()  # whoever asks Ray again, be it to kill an actor, makes it start a cluster of its own
        self._actors.clear()
        return ParedownError(f"the connection to {self._where} was lost: {error}; what was measured is kept, run the same command again")


class _Shared:
    """Finds arrays in the object store.

    Args:
        promises: By name.
    """

    def __init__(self, promises: Mapping[str, Any]) -> None:
        self._promises = promises

    def __call__(self, name: str) -> dict[str, np.ndarray] | None:
        import ray

        # they may not be written to, which nobody does, and torch says so each time
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return ray.get(self._promises[name]) if name in self._promises else None


@contextlib.contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    before = os.environ.get(name)
    _set(name, value)
    try:
        yield
    finally:
        _set(name, before)


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _imported(*, local: bool) -> ModuleType:
    """Ray; where it is to be started here, told before it is imported to listen on this machine alone, to those who know a secret."""
    before = "ray" in sys.modules
    if local and not before:
        os.environ.update(_LOCAL)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise ParedownError("workers of a Ray cluster need Ray, which is not installed; pip install 'paredown[ray]'") from error
    if local and not ray.is_initialized() and any(os.environ.get(name) != value for name, value in _LOCAL.items()):
        raise ParedownError(
            "Ray was imported before, and would listen on all networks; call ray.init() yourself, whose workers are then used, or use processes"
        )
    return ray
