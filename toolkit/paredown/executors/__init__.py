"""Who does the costly work: this process, worker processes on this machine, or a Ray cluster. None of them knows what the work is."""

from paredown.executors.choice import Workers, executor
from paredown.executors.in_process import InProcess
from paredown.executors.protocol import Executor, Finished

__all__ = ["Executor", "Finished", "InProcess", "Workers", "executor"]
