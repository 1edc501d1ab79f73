"""A study: the only stateful thing here. It runs the steps, in the foreground or behind the notebook, and keeps all of it in a folder."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from paredown import export, models
from paredown.errors import ParedownError
from paredown.evaluation.paired import Compared
from paredown.executors import Workers
from paredown.export import Refusal
from paredown.layers import find_layers
from paredown.models import LoadedModel
from paredown.outcomes import Outcomes
from paredown.record import Record
from paredown.search import Problem
from paredown.search.problem import Objective
from paredown.specs import CurvatureMatrix, CurvatureRequest, ExportFormat, Plan, Priority, Scheme, Shown, StudyConfig
from paredown.store import Store
from paredown.study import steps
from paredown.study.alone import alone, interactions
from paredown.study.background import Background
from paredown.study.bench import executor_of
from paredown.study.choice import choose
from paredown.study.control import Cancelled, Control
from paredown.study.hessian import estimate, hessian
from paredown.study.journal import Journal, Listener
from paredown.study.kept import KeptWeights
from paredown.study.latencies import latencies
from paredown.study.outcomes import compared, keep_samples, kept, shown_samples
from paredown.study.refinement import refine
from paredown.study.rivals import agreement, classics
from paredown.study.scaling import scaled
from paredown.study.session import Session
from paredown.study.settings import settled
from paredown.study.spectra import spectra
from paredown.study.waiting import Waiting
from paredown.tasks import Task

if TYPE_CHECKING:
    import pandas as pd


class Study:
    """One model, one task, one folder.

    Example:
        >>> study = Study("studies/mine", StudyConfig(model="demo:sentiment"))  # doctest: +SKIP
        >>> study.run()  # doctest: +SKIP
        >>> study.record().measurements  # doctest: +SKIP
    """

    def __init__(
        self,
        folder: str | Path,
        config: StudyConfig | None = None,
        *,
        model: LoadedModel | None = None,
        task: Task | None = None,
    ) -> None:
        """Create a study, or open one; opening loads no model.

        Args:
            folder: Where all of it is kept.
            config: What it depends on; None opens the study that is there.
            model: A loaded model, in place of ``config.model``.
            task: A task of your own, in place of ``config.task``.

        Raises:
            ParedownError: If there is no study to open, or the folder holds one with another configuration.
        """
        self.store = Store(folder, create=config is not None)
        self.config = settled(self.store, config)
        self._model, self._task = model, task
        self._session: Session | None = None
        self._scaled: tuple[str, ...] | None = None  # what there is to say of the scales, once they are folded
        self._control = Control()
        self._lock = FileLock(self.store.lock_file)
        self._workers: Workers | None = None
        self._waiting = Waiting()
        self._background = Background(self.cancel, lambda: not self._waiting.empty)

    @property
    def folder(self) -> Path:
        """Where all of it is kept."""
        return self.store.folder

    @property
    def running(self) -> bool:
        """Whether this process works on the study in the background."""
        return self._background.running

    @property
    def paused(self) -> bool:
        """Whether the run waits for `resume`."""
        return self._control.paused

    @property
    def busy_elsewhere(self) -> bool:
        """Whether another process works on the study."""
        return not self._lock.is_locked and self.store.busy

    def record(self) -> Record:
        """Everything that is known by now."""
        record = Record()
        record.update(self.store.events())
        return record

    def problem(self, matrix: CurvatureMatrix | None = None) -> Problem | None:
        """The allocation problem of the layers that are priced by now; None before the first.

        Args:
            matrix: Whose traces and eigenvalues `paredown.search.allocate` takes for ``objective="trace"``, ``"top_eigenvalue"`` or
                ``"slices"``; None takes that of the sensitivities.
        """
        record = self.record()
        if record.info is None or not record.candidates:
            return None
        curvature = {layer.name: record.estimates(layer.name, matrix) for layer in record.layers}
        return Problem.of(record.info.fixed_bytes, record.layers, record.candidates, fuse=self.config.fuse, curvature=curvature)

    def run(self, on_event: Listener | None = None, *, workers: int | str | None = None) -> Record:
        """Run what is not done yet; returns when all of it is.

        Args:
            on_event: Called with every event that is written.
            workers: Who measures the plans: so many processes, or a Ray cluster (`paredown.executors.Workers.parse`); None for this
                process. The figures are the same.

        Returns:
            Everything that is known then.

        Raises:
            ParedownError: If another process works on this study, or a step fails; what was computed is kept.
            KeyboardInterrupt: Passed on, after the study was closed in good order.
        """
        self._workers = _workers(workers)
        self._control.reset()
        self._work(self._all_steps, on_event)
        return self.record()

    def start(self, on_event: Listener | None = None, *, workers: int | str | None = None) -> Study:
        """Run what is not done yet in the background; returns at once. See `run`."""
        self._workers = _workers(workers)
        return self._in_background(self._all_steps, on_event)

    def measure(self, schemes: Mapping[str, Scheme], *, found_by: str = "user") -> Plan:
        """Have a plan of your own measured in the background, ahead of what the run still wants to measure.

        Args:
            schemes: Layer name to scheme; a layer that is absent is kept.
            found_by: Who found it.

        Returns:
            The plan; its measurement appears in the store.

        A plan that was measured by an earlier version, which kept no answers, is measured again.

        Raises:
            ParedownError: If layers or schemes are unknown, or nothing is priced yet.
        """
        record, problem = self.record(), self.problem()
        if record.info is None or problem is None or not record.sensitivity_complete:
            raise ParedownError("a plan can be measured once every layer is priced; wait for the sensitivity stage")
        unknown = set(schemes) - {layer.name for layer in record.layers}
        if unknown:
            raise ParedownError(f"the plan names layers that the model does not have: {', '.join(sorted(unknown))}")
        plan = steps.plan_of(record.info, problem, schemes, found_by, self.config.seed)
        plan = record.plans.get(plan.digest, plan)
        if not self._known(record, plan):
            self._waiting.put(plan)
            self._in_background(self._queued, None)
        return plan

    @property
    def queued(self) -> tuple[Plan, ...]:
        """The plans that `measure` was asked for and that wait, the next one first."""
        return self._waiting.plans

    def hasten(self, digest: str) -> None:
        """Measure a plan that waits before the others.

        Raises:
            ParedownError: If it does not wait.
        """
        self._waiting.hasten(digest)

    def withdraw(self, digest: str) -> None:
        """Take back a plan that waits.

        Raises:
            ParedownError: If it does not wait.
        """
        self._waiting.withdraw(digest)

    def prioritise(self, low_bytes: int, high_bytes: int) -> None:
        """Measure, and search for, plans of these sizes before others, from the next round on; also where another process runs the study.

        Args:
            low_bytes: The smallest file.
            high_bytes: The largest; 0 for no priority any more.

        Raises:
            ParedownError: If the sizes are the wrong way round, or the study can't be written.
        """
        record, wish = self.record(), Priority(low_bytes, high_bytes)
        words = f"Plans of {low_bytes / 1e6:.3g} to {high_bytes / 1e6:.3g} MB go first" if high_bytes else "No sizes go first any more"
        self.store.append(record.run, record.stage, "progress", message=words, payload=[wish])

    def estimate(self, request: CurvatureRequest, on_event: Listener | None = None) -> Study:
        """Find out about the true Hessian in the background, ahead of what the run still wants to do; returns at once.

        Args:
            request: Of which layers, what, and how well; estimates appear in the store as soon as they exist.
            on_event: Called with every event that is written, where nothing runs in the background yet.

        Returns:
            The study, to `wait` for.

        Raises:
            ParedownError: If the request names layers that the model does not have.
        """
        names = {layer.name for layer in self.record().layers}
        if names and (unknown := set(request.layers) - names):
            raise ParedownError(f"the request names layers that the model does not have: {', '.join(sorted(unknown))}")
        self._waiting.put(request)
        return self._in_background(self._queued, on_event)

    def pause(self) -> None:
        """Wait before the next layer or evaluation."""
        self._control.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self._control.resume()

    def cancel(self) -> None:
        """Stop before the next layer or evaluation; everything so far is kept, and `run` goes on from there."""
        self._control.cancel()

    def wait(self, timeout: float | None = None) -> Study:
        """Wait for the background to finish; an interrupt (Ctrl C) cancels it in good order.

        Raises:
            ParedownError: What ended the background run early.
            KeyboardInterrupt: Passed on after the background has stopped.
        """
        self._background.wait(timeout)
        return self

    def choose(self, name: str | None = None, *, bits: float | None = None) -> Plan:
        """A plan by the first digits of its digest, or the best measured one at the bytes of a uniform plan.

        Raises:
            ParedownError: If that is not exactly one plan.
        """
        return choose(self.record(), name, bits)

    def compare(self, one: Plan, other: Plan | None = None) -> Compared:
        """Two measured plans on the held-out split, sample by sample: differences with paired 95 % intervals, below 0 where the first is better.

        Args:
            one: A plan of this study.
            other: Another; None for the original model.

        Returns:
            Their differences in KL, loss and metric, and whether these disagree.

        Raises:
            ParedownError: If one of them was not measured, or by an earlier version that kept no samples.
        """
        record = self.record()
        rival = other or next((plan for plan in record.plans.values() if plan.found_by == "original"), None)
        if record.info is None or rival is None:
            raise ParedownError("plans can be compared once the original was measured; run the study first")
        return compared(self.store, record.info, one, rival, self.config.seed)

    def outcomes(self, plan: Plan | None = None) -> Outcomes | None:
        """What a plan did to each held-out sample, the original model where None; None where that was not kept."""
        digest = plan.digest if plan is not None else next((d for d, p in self.record().plans.items() if p.found_by == "original"), None)
        return None if digest is None else kept(self.store, digest)

    def shown(self) -> tuple[Shown, ...]:
        """The held-out samples as a person sees them, in the order of the outcomes; none before the first run."""
        return shown_samples(self.store)

    def classics(self, *, bits: float, matrix: CurvatureMatrix | None = None) -> pd.DataFrame:
        """The allocators of the literature side by side, at the bytes of a uniform plan; `StudyConfig.scores` gives them what they sum.

        Args:
            bits: Of the uniform plan.
            matrix: Whose traces and eigenvalues HAWQ and its kin take; None takes that of the sensitivities.

        Returns:
            A row for each, with its plan, and held-out KL where that plan was measured (`paredown.search.compare`).

        Raises:
            ParedownError: If nothing is priced yet, or no uniform plan has so many bits.
        """
        return classics(self.record(), self._priced(matrix), bits, self.config.seed)

    def agreement(
        self, objectives: Sequence[Objective] | None = None, *, scheme: Scheme | None = None, matrix: CurvatureMatrix | None = None
    ) -> pd.DataFrame:
        """Rank agreement between any two scores, with 95 % intervals (`paredown.search.agreement_table`).

        Args:
            objectives: Which; None takes all that the study knows.
            scheme: Rank the groups at this scheme only; None ranks all choices.
            matrix: As in `classics`.

        Raises:
            ParedownError: If nothing is priced yet, or an objective is not known.
        """
        return agreement(self._priced(matrix), objectives, scheme, self.config.seed)

    def _known(self, record: Record, plan: Plan) -> bool:
        """Whether a plan was measured, and its answers were kept where there are any."""
        found = kept(self.store, plan.digest) if plan.digest in record.measurements else None
        return found is not None and (found.answered or not len(found.units))

    def _priced(self, matrix: CurvatureMatrix | None) -> Problem:
        problem = self.problem(matrix)
        if problem is None:
            raise ParedownError("scores can be compared once the layers are priced; run the study first")
        return problem

    def export(self, plan: Plan, folder: str | Path, *, export_format: ExportFormat | None = None) -> Path:
        """Write the compressed checkpoint of a plan, with the plan's JSON beside it, and load it back to check it.

        Args:
            plan: One of this study's, or one with the same model digest.
            folder: Where to.
            export_format: None takes the study's.

        Returns:
            The folder.

        Raises:
            ParedownError: If the format can't hold the plan (names layer and reason; nothing is written), or it is for another model.
        """
        loaded = self.loaded()
        info = self.record().info
        layers = self._session.layers if self._session else find_layers(loaded.model, dtype=loaded.dtype)
        kept = KeptWeights(self.store, lambda layer, scheme: self.session().kept(layer, scheme))
        return export.write(loaded, layers, plan, folder, export_format or (info.export_format if info else "compressed-tensors"), kept)

    def refusals(self, plan: Plan, *, export_format: ExportFormat | None = None) -> tuple[Refusal, ...]:
        """What a format can't hold of a plan, before anything is written; whether the runtime knows the model's class is asked once it is loaded.

        Args:
            plan: One of this study's, or one with the same model digest.
            export_format: None takes the study's.

        Returns:
            Layers with reasons; empty where nothing speaks against it.
        """
        record = self.record()
        wanted = export_format or (record.info.export_format if record.info else "compressed-tensors")
        if wanted != "compressed-tensors":
            return ()
        if self._model is None:
            return export.compressed_tensors.check_layers(record.layers, plan)
        return export.compressed_tensors.check(self._model.model, record.layers, plan)

    def session(self) -> Session:
        """The loaded model with its task; loads them on first use.

        Raises:
            ParedownError: If they can't be loaded, or the weights are not those that the study began with.
        """
        if self._session is None:
            self._session = Session.open(self.config, self.store, self.loaded(), self._task)
        return self._session

    def loaded(self) -> LoadedModel:
        """The model, loaded on first use, and scaled where the study says so.

        Raises:
            ParedownError: If it can't be loaded or scaled, or its weights are not those that the study began with.
        """
        if self._model is None:
            self._model = models.load(self.config.model)
        if self.config.scaling is not None and self._scaled is None:
            self._model, self._scaled = scaled(self.config, self.store, self._model, self._task)
        info = self.record().info
        if info is not None and info.digest != self._model.digest:
            raise ParedownError(
                f"the study was made with weights {info.digest} of {info.model}, but {self._model.id} has {self._model.digest};"
                " give it the same model, or start a new study in another folder"
            )
        return self._model

    def _in_background(self, steps_of: Callable[[Journal], None], on_event: Listener | None) -> Study:
        self._background.start(self._control.reset, lambda: self._work(steps_of, on_event), lambda: self._work(self._queued, on_event))
        return self

    def _work(self, steps_of: Callable[[Journal], None], on_event: Listener | None) -> None:
        try:
            lock = self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ParedownError(
                f"another process works on the study in {self.folder}; watch it with `paredown status {self.folder}`, or wait for its end"
            ) from error
        except OSError as error:
            raise ParedownError(f"the study folder {self.folder} can't be written: {error}; make it writable or choose another") from error
        with lock:
            journal = Journal(self.store, self._control, on_event)
            try:
                steps_of(journal)
            except Cancelled:
                self._waiting.clear()
                journal.write("cancelled", message="cancelled; everything so far is saved, and the same command goes on from here")
            except KeyboardInterrupt:
                journal.write("cancelled", message="interrupted; everything so far is saved, and the same command goes on from here")
                raise
            except ParedownError as error:
                journal.write("error", message=str(error))
                raise
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                journal.write(
                    "error",
                    message=f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno}); this is a fault of Paredown's, please report it",
                )
                raise

    def _begin(self, journal: Journal) -> Session:
        fresh = journal.record.config != self.config
        journal.write("started", message=f"Loading {self.config.model}", payload=[self.config] if fresh else [])
        session = self.session()
        if journal.record.info is None:
            journal.write("model", message=session.loaded.notice, payload=[session.info()])
            for words in self._scaled or ():
                journal.write("notice", message=words)
        if not journal.record.layers:
            journal.write("layers", payload=session.layers)
        keep_samples(session, journal)
        return session

    def _all_steps(self, journal: Journal) -> None:
        session = self._begin(journal)
        journal.check()

        def between() -> None:
            self._serve(session, journal)

        with journal.tolerating("the first spectra could not be computed"):
            spectra(session, journal)
        steps.baseline(session, journal)
        steps.sensitivity(session, journal, between)
        latencies(session, journal)
        steps.plans(session, journal)
        with closing(executor_of(session, self.store.artifacts, self._workers)) as executor:
            steps.measurements(session, journal, executor, between)
            refine(session, journal, executor, between)
            alone(session, journal, executor, between)
            interactions(session, journal, executor, between)
        hessian(session, journal, between)
        between()
        journal.write("finished", message="done")

    def _queued(self, journal: Journal) -> None:
        complete = journal.record.state == "done"
        session = self._begin(journal)
        self._serve(session, journal)
        journal.write(
            "finished" if complete else "cancelled", message="done" if complete else "done what was asked; the run itself is not finished"
        )

    def _serve(self, session: Session, journal: Journal) -> None:
        """Do what a person has asked for; the run's own work must not wait for what fails."""
        while (wanted := self._waiting.take()) is not None:
            journal.check()
            if isinstance(wanted, CurvatureRequest):
                with journal.within("hessian"), journal.tolerating("the curvature that was asked for could not be estimated"):
                    estimate(session, journal, wanted, lambda: self._serve(session, journal))
                continue
            with journal.within("measure"):
                if wanted.digest not in journal.record.plans:
                    journal.write("plan", payload=[wanted])
                if not self._known(journal.record, wanted):
                    try:
                        steps.measure(session, journal, wanted)
                    except ParedownError as error:
                        journal.write("notice", message=f"the plan {wanted.digest} could not be measured: {error}")


def _workers(asked: int | str | None) -> Workers | None:
    return None if asked is None else Workers.parse(str(asked))
