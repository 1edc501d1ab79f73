"""Work for workers that load nothing: what they do with a job is said by the job."""

import os
import signal
import time
from pathlib import Path

from paredown.errors import ParedownError


def opening():
    return work


def work(job):
    what, value = job
    if what == "say":
        print("this must not get between the answers")
        return value
    if what == "pid":
        time.sleep(value)
        return os.getpid()
    if what == "refuse":
        raise ParedownError(value)
    if what == "break":
        return [][value]
    assert what in ("die once", "die")
    marker = Path(value)
    if what == "die" or not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def refusing():
    raise ParedownError("nothing to hold; give it something")


def dying():
    os._exit(7)
