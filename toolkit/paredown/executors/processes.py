"""Worker processes on this machine, each with one thread."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, BinaryIO

from paredown.executors.worker import Opening, Reply, Worker, import_path, versions

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Processes:
    """A `paredown.executors.pool.Crew` of fresh interpreters, which speak pickle over their standard input and output.

    Fresh, so that nothing is inherited from a process with threads; and not those of multiprocessing, which run the user's script again.
    A worker whose driver is gone reads the end of its input, and ends.

    Args:
        opening: Loads what a worker holds.
        workers: How many there may be.
    """

    def __init__(self, opening: Opening, workers: int) -> None:
        self._opening, self.workers = opening, workers
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._replies: queue.SimpleQueue[tuple[int, subprocess.Popen[bytes], Reply]] = queue.SimpleQueue()

    def start(self, slot: int) -> None:
        """Start an interpreter."""
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": import_path()}
        process = subprocess.Popen(  # noqa: S603  (this interpreter, and text of ours)
            [sys.executable, "-c", f"from {__name__} import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl C is the driver's
        )
        self._processes[slot] = process
        threading.Thread(target=self._listen, args=(slot, process), name=f"paredown-worker-{slot}", daemon=True).start()
        self._send(slot, versions())
        self._send(slot, self._opening)

    def give(self, slot: int, job: Any) -> None:
        """Send a job."""
        self._send(slot, job)

    def replies(self, seconds: float) -> Sequence[tuple[int, Reply]]:
        """What has been read from the workers; see `Crew`."""
        found: list[tuple[int, Reply]] = []
        with contextlib.suppress(queue.Empty):
            while True:
                slot, process, reply = self._replies.get(timeout=0.0 if found else seconds)
                if self._processes.get(slot) is process:  # and not one that was stopped meanwhile
                    found.append((slot, reply))
                    if reply.kind == "lost":
                        self.stop(slot)
        return found

    def stop(self, slot: int) -> None:
        """Kill a process: it holds nothing that is not elsewhere."""
        process = self._processes.pop(slot)
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):  # what it did not read any more
            _stream(process.stdin).close()

    def close(self) -> None:
        """Kill all processes."""
        for slot in list(self._processes):
            self.stop(slot)

    def _send(self, slot: int, message: Any) -> None:
        stream = _stream(self._processes[slot].stdin)
        with contextlib.suppress(BrokenPipeError):  # it is lost, which its listener says
            stream.write(pickle.dumps(message))
            stream.flush()

    def _listen(self, slot: int, process: subprocess.Popen[bytes]) -> None:
        with _stream(process.stdout) as stream:
            while True:
                try:
                    reply = pickle.load(stream)  # noqa: S301  (of a process of ours)
                except Exception:  # the end, or half of an answer
                    break
                self._replies.put((slot, process, reply))
        code = process.wait()
        self._replies.put((slot, process, Reply("lost", f"process {process.pid} ended with code {code}")))


def serve() -> None:
    """The life of a worker process."""
    # what libraries print must not come between the answers
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        jobs, worker = sys.stdin.buffer, Worker()

        def reply(said: Reply) -> bool:
            answers.write(pickle.dumps(said))
            answers.flush()
            return said.kind == "ready"

        with contextlib.suppress(EOFError, BrokenPipeError):  # the driver is gone
            checked = worker.check(pickle.load(jobs))  # noqa: S301  (from the process that started this one)
            if checked.kind != "ready":
                reply(checked)
            elif reply(worker.open(pickle.load(jobs))):  # noqa: S301
                while True:
                    reply(worker.answer(pickle.load(jobs)))  # noqa: S301


def _stream(stream: Any) -> BinaryIO:
    assert stream is not None
    return stream
