"""What a worker holds of a study: its session, made of names and of arrays that it reads and never writes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from paredown import models
from paredown.errors import ParedownError
from paredown.executors import Executor, InProcess, Workers, executor
from paredown.executors.worker import Load
from paredown.specs import Measurement, Plan, StudyConfig
from paredown.study.arrays import BorrowedArrays, MappedArrays
from paredown.study.scaling import scaled
from paredown.study.session import Session
from paredown.study.trials import Try, search_split


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of a plan.

    Attributes:
        measurement: What it does on the held-out split; None where it was tried.
        losses: What it loses on the samples that it was tried on, beyond the original model, [samples]; None where it was measured.
        arrays: To be kept in the study, by name.
    """

    measurement: Measurement | None = None
    losses: np.ndarray | None = None
    arrays: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)


PlanExecutor = Executor[Plan | Try, Answer]
"""Measures plans on the held-out split, and tries others on the search split."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Opens a study in a worker, from the names of model and task.

    Attributes:
        config: The study's.
        model: Where the model is loaded from: a folder's whole path, for a worker may run elsewhere.
        digest: Of the weights that plans compress.
        data: What tells the task's held-out data and its metric apart from others.
        load: Loads the study's arrays.
    """

    config: StudyConfig
    model: str
    digest: str
    data: tuple[str, ...]
    load: Load

    @classmethod
    def of(cls, session: Session, load: Load) -> Bench:
        """What the workers of a session need."""
        folder = Path(session.config.model).expanduser()
        model = str(folder.resolve()) if folder.is_dir() else session.config.model
        return cls(session.config, model, session.loaded.digest, _data(session), load)

    def __call__(self) -> Callable[[Plan | Try], Answer]:
        """Load it.

        Raises:
            ParedownError: If model or task can't be loaded by their names, or are not those of the study.
        """
        torch.set_num_threads(1)
        arrays = BorrowedArrays(self.load)
        try:
            loaded = models.load(self.model)
            if self.config.scaling is not None:
                loaded, _ = scaled(self.config, arrays, loaded, None)
            session = Session.open(self.config, arrays, loaded, None)
        except ParedownError as error:
            raise ParedownError(_BY_NAME.format(model=self.model, task=self.config.task, why=error)) from error
        found = (loaded.digest, *_data(session))
        if found != (self.digest, *self.data):
            why = f"they are others there: {found} instead of {(self.digest, *self.data)}"
            raise ParedownError(_BY_NAME.format(model=self.model, task=self.config.task, why=why))
        answer = _answering(session)
        return lambda job: replace(answer(job), arrays=arrays.taken())


def executor_of(session: Session, folder: Path, workers: Workers | None) -> PlanExecutor:
    """Who measures and tries the plans of a session.

    Args:
        session: The session, with the original model's answers among its arrays.
        folder: Of the arrays.
        workers: None measures in this process.
    """
    if workers is None:
        return InProcess(_answering(session))
    arrays = MappedArrays(folder.resolve())
    return executor(workers, lambda load: Bench.of(session, load), arrays, arrays.names)


def _answering(session: Session) -> Callable[[Plan | Try], Answer]:
    split = functools.cache(functools.partial(search_split, session))  # made with the first trial

    def answer(job: Plan | Try) -> Answer:
        if isinstance(job, Plan):
            return Answer(session.measure(job))
        with session.as_measured():
            return Answer(losses=split().losses(job.plan.schemes, job.pieces))

    return answer


_BY_NAME = (
    "workers load the model by its id or folder and the task by its name, and could not: {model} on {task}, {why}."
    " What is given in memory alone is measured without workers"
)


def _data(session: Session) -> tuple[str, ...]:
    task = session.task
    return (task.data_digest("held_out", session.config.held_out_samples), task.label, task.metric, task.unit)
