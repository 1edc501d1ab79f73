"""`Explorer`: what a notebook shows and what Python holds on to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from paredown.errors import ParedownError
from paredown.specs import Plan, Scheme
from paredown_widgets import numbers, picture, run
from paredown_widgets.choices import HANDLES
from paredown_widgets.compare_table import compare_plans, flips_table
from paredown_widgets.comparison import Kind
from paredown_widgets.controls import StudyLike
from paredown_widgets.handlers import ask_hessian, handle, hessian_request
from paredown_widgets.measuring import look_here_first, queue
from paredown_widgets.model import ExplorerModel
from paredown_widgets.opening import open_or_begin
from paredown_widgets.paper_figures import figure_of
from paredown_widgets.pump import Watcher
from paredown_widgets.python_code import as_python
from paredown_widgets.tables import layer_table

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from paredown_widgets.jupyter import ExplorerWidget

_OBSERVED = ("plan", "selection", "locked", "budget", "state", "measurements", "error")
_POLL = 0.03


@dataclass(frozen=True)
class Change:
    """What an observer is called with.

    Attributes:
        name: plan, selection, locked, budget, state, measurements or error.
        old: The value before.
        new: The value now.
        owner: The explorer.
    """

    name: str
    old: Any
    new: Any
    owner: Explorer


class Explorer:
    """A study, live: the layers and their bits, the Pareto front as it is measured, sensitivity and spectra.

    As the last expression of a notebook's cell it shows itself. Nothing blocks: `run` works in the background.

    Example:
        >>> explorer = Explorer("demo:sentiment")  # doctest: +SKIP
        >>> explorer.run()  # doctest: +SKIP
        >>> explorer  # doctest: +SKIP
    """

    def __init__(self, study: str | Path | StudyLike = "demo:sentiment", *, folder: str | Path | None = None, **settings: Any) -> None:
        """Open a study, or begin one.

        Args:
            study: ``demo:NAME``, a hub id or a local model folder to begin a study on; a study's folder, or a
                `paredown.study.Study`, to go on with one.
            folder: Where a new study is kept; ``studies/NAME`` by default.
            **settings: Fields of `paredown.specs.StudyConfig` for a new study.

        Raises:
            TypeError: If a setting does not exist; names the nearest.
            ParedownError: If the study can't be opened.
        """
        self.study = open_or_begin(study, folder, settings)
        self.model = ExplorerModel(self.study)
        self.model.refresh()
        self._widget: ExplorerWidget | None = None
        self._still: Any = None  # handle of the still picture below the widget
        self._still_of: tuple[Any, ...] = ()
        self._watcher = Watcher(self.model, self._refresh_still)
        self._observers: list[tuple[Callable[[Change], Any], Any]] = []

    # -- the values

    @property
    def plan(self) -> Plan | None:
        """The plan in the user's hands; None until the model's layers are known. Assign a plan or {layer: scheme} to load it."""
        return self.model.plan

    @plan.setter
    def plan(self, value: Plan | Mapping[str, Scheme | str]) -> None:
        schemes = value.schemes if isinstance(value, Plan) else value
        if isinstance(value, Plan) and self.model.record.info is not None and value.model_digest != self.model.record.info.digest:
            raise ParedownError(
                f"the plan was made for weights {value.model_digest} of {value.model}, this study has {self.model.record.info.digest}; load a plan for the same model"
            )
        parsed = {name: scheme if isinstance(scheme, Scheme) else Scheme.parse(scheme) for name, scheme in schemes.items()}
        with self.model.lock:
            self.model.load(parsed, "plan from Python")

    @property
    def selection(self) -> tuple[str, ...]:
        """Names of the selected layers. Assign names to select them."""
        return tuple(self.model.selection)

    @selection.setter
    def selection(self, names: Iterable[str]) -> None:
        self._do({"type": "select", "layers": list(names)})

    @property
    def locked(self) -> tuple[str, ...]:
        """Names of the locked layers. Assign names to lock those and no others."""
        return tuple(self.model.locked)

    @locked.setter
    def locked(self, names: Iterable[str]) -> None:
        self._do({"type": "lock", "layers": list(self.model.locked), "locked": False})
        self._do({"type": "lock", "layers": list(names), "locked": True})

    @property
    def budget(self) -> int | None:
        """Budget in bytes. Assign bytes to move it."""
        return None if self.model.budget is None else int(self.model.budget)

    @budget.setter
    def budget(self, size: float) -> None:
        if self.model.budget_unit == "ms":
            self._do({"type": "budget_unit", "id": "MB"})
        self._do({"type": "budget", "amount": size, "unit": "bytes"})

    @property
    def latency_budget(self) -> float | None:
        """Budget in seconds a token. Assign seconds to limit the latency in place of the size; assign bytes to `budget` to limit that again."""
        return self.model.latency_budget

    @latency_budget.setter
    def latency_budget(self, seconds: float) -> None:
        self._do({"type": "budget", "amount": 1e3 * seconds, "unit": "ms"})
        self._do({"type": "budget_unit", "id": "ms"})

    @property
    def state(self) -> str:
        """idle, running, paused, watching (another process runs it), done, cancelled or failed."""
        return run.state_of(self.model)

    def observe(self, callback: Callable[[Change], Any], names: str | Sequence[str] = "plan") -> Callable[[], None]:
        """Call `callback` with a `Change` whenever a value changes.

        It is called in the thread that made the change; an error in it is shown in the explorer.

        Args:
            callback: Takes one `Change`.
            names: One or several of plan, selection, locked, budget, state, measurements, error.

        Returns:
            A function that ends the observation.

        Raises:
            ParedownError: If a name is none of those.
        """
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            if name not in _OBSERVED:
                raise ParedownError(f"observe knows {', '.join(_OBSERVED)}, got {name!r}")

        def call(event: Any) -> None:
            try:
                callback(Change(event.name, event.old, event.new, self))
            except Exception as error:  # shown in the explorer: an output of this thread would appear in any cell, or nowhere
                if event.name != "error":
                    self.model.fail(f"An observer of {event.name} failed: {type(error).__name__}: {error}")

        watcher = self.model.param.watch(call, wanted)
        return lambda: self.model.param.unwatch(watcher)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a layer: what it is, what the plan does to it, and what that is predicted to cost."""
        with self.model.lock:
            return layer_table(self.model)

    def figure(self, name: str = "front") -> go.Figure:
        """A chart for a paper, in the light palette.

        Args:
            name: front (KL against size), accuracy (the task's metric), loss, latency (KL against it), plan, sensitivity, spectrum (selected
                layers), spectra (all), interactions (what pairs of layers lose together); of the selected layer weights, inputs (histograms) or
                schemes (what each would cost).

        Raises:
            ParedownError: If there is no such figure, or nothing to draw in it.
        """
        return figure_of(self.model, name)

    # -- what is done to the plan

    def edit(self, layers: str | Iterable[str], scheme: Scheme | str | None = None, **handles: Any) -> Explorer:
        """Change some layers, and whatever is fused with them; locked ones stay.

        Args:
            layers: Names, or a filter such as ``"q k v of blocks 8-11"`` (`paredown_widgets.filtering`).
            scheme: What they get; None where a handle is moved.
            **handles: One of bits=4, sparsity="2:4" or rank=16; None takes the sparsity or the rank away, or keeps the layer's numbers.

        Raises:
            ParedownError: If a layer, the scheme or the value is unknown.
            TypeError: If not exactly one of a scheme and a handle is given.
        """
        if (scheme is None) != (len(handles) == 1) or not set(handles) <= set(HANDLES):
            raise TypeError(f"edit() takes a scheme or one of {', '.join(HANDLES)}, got {[scheme, *handles]}")
        names = list((self.model.found(layers) or ()) if isinstance(layers, str) else layers)
        kind, value = next(iter(handles.items())) if handles else ("scheme", str(scheme))
        self._do({"type": kind, "layers": names, kind: value})
        return self

    def fill(self, by: str = "kl") -> Explorer:
        """Choose the best schemes for what is not locked, within the budget.

        Args:
            by: What is minimised: kl, or the sensitivity by curvature, such as ``trace:hessian``.

        Raises:
            ParedownError: If nothing is priced yet, or no plan fits.
        """
        self._do({"type": "sensitivity", "id": by})
        self._do({"type": "fill"})
        return self

    def load(self, name: str) -> Explorer:
        """Load a whole plan: ``optimum`` or ``best`` (measured) at the budget, ``kept``, ``uniform int4g64``, a saved one, or by its digest.

        Raises:
            ParedownError: If there is no such plan, or several.
        """
        self._do({"type": "preset", "id": name})
        return self

    def save(self, name: str) -> Explorer:
        """Save the plan by a name in the study's folder, for `load` and the menu of plans.

        Raises:
            ParedownError: If the name is empty or too long, or the folder can't be written.
        """
        self._do({"type": "save_plan", "name": name})
        return self

    def to_python(self) -> str:
        """Lines of Python that do again what was done to the plan by hand; the button "Copy as Python" copies them."""
        with self.model.lock:
            return as_python(self.model)

    def compare(self, *plans: Plan | Mapping[str, Scheme | str] | str) -> pd.DataFrame:
        """Hold up to three plans against the one in your hands, as the view Compare does, which then shows them.

        Args:
            *plans: Plans, {layer: scheme}, or first digits of a plan's digest; none keeps those that are compared already.

        Returns:
            One row a plan, A is `Explorer.plan`: size, metric, KL, loss, flipped answers, and paired changes with standard error and 95 %
            interval. What was not measured is predicted, and `measured` says so.

        Raises:
            ParedownError: If there are more than three, or one is unknown.
        """
        return compare_plans(self.model, plans)

    def flips(self, kind: Kind = "any") -> pd.DataFrame:
        """The held-out samples that the compared plans answer otherwise than the original, with what they were asked.

        Args:
            kind: ``any`` change, newly ``wrong``, or newly ``right``.

        Raises:
            ParedownError: If no answers are known; measure a plan first.
        """
        return flips_table(self.model, kind)

    # -- the run

    def run(self) -> Explorer:
        """Run what is not done yet, in the background; returns at once."""
        self.study.start()
        self.model.refresh()
        return self

    def pause(self) -> None:
        """Wait before the next layer or evaluation."""
        self.study.pause()
        self.model.changed()

    def resume(self) -> None:
        """Go on after a pause, or after a run that was cancelled or interrupted."""
        if self.study.paused and self.study.running:
            self.study.resume()
        else:
            self.study.start()
        self.model.changed()

    def cancel(self) -> None:
        """Stop before the next layer or evaluation; everything so far is saved."""
        self.study.cancel()
        self.model.changed()

    def wait(self, timeout: float | None = None) -> Explorer:
        """Block until the run is over. In a notebook prefer ``await explorer``, which keeps buttons alive."""
        self.study.wait(timeout)
        return self._rested()

    def __await__(self) -> Generator[Any, None, Explorer]:
        async def over() -> Explorer:
            while self.study.running:
                await asyncio.sleep(_POLL)
            return self._rested()

        return over().__await__()

    def _rested(self) -> Explorer:
        """After a run: the last events, and the still picture drawn in this cell's name, which notebook clients ask for."""
        self.model.refresh()
        self.model.refresh()  # the first one may have asked while the thread was ending
        self._refresh_still()
        return self

    def measure(self) -> Plan:
        """Have the plan measured in the background; the point appears when it is done.

        Raises:
            ParedownError: If there is no plan yet, or the layers are not all priced.
        """
        plan = self.plan
        if plan is None:
            raise ParedownError("there is no plan to measure yet; run the study first")
        if plan.digest not in self.model.record.measurements:
            queue(self.model, plan)  # here and not behind the button's thread, so that `wait` and `await` wait for it
            self.model.changed()
        return plan

    def prioritise(self, low_bytes: float, high_bytes: float) -> Explorer:
        """Have plans of these sizes measured, and searched for, before others; where nothing runs, up to three are measured now.

        Args:
            low_bytes: The smallest file.
            high_bytes: The largest; 0 for no sizes any more.

        Raises:
            ParedownError: If the sizes are the wrong way round, or all there is measured.
        """
        look_here_first(self.model, low_bytes, high_bytes)
        self.model.changed()
        return self

    def estimate(self, layers: Iterable[str] | None = None) -> Explorer:
        """Have the true Hessian estimated in the background; spectra, eigenvalues and traces appear as they come.

        Args:
            layers: Names of layers; None takes the selected ones, and all where none is selected.

        Raises:
            ParedownError: If a layer is unknown, or the study can't be worked on.
        """
        names = list(self.model.selection if layers is None else layers)
        unknown = [name for name in names if name not in self.model.editor.schemes]
        if unknown:
            raise ParedownError(f"this study has no layer {unknown[0]!r}; expected names from explorer.to_dataframe()")
        ask_hessian(self.model, hessian_request(self.model, names))
        self.model.changed()
        return self

    def export(self, path: str | Path) -> Path:
        """Write the plan as a compressed-tensors checkpoint; returns its folder when it is written.

        Raises:
            ParedownError: If there is no plan, or the format can't hold it (says which layer, before anything is written).
        """
        if self.plan is None:
            raise ParedownError("there is no plan to export yet; run the study first")
        self.study.export(self.plan, Path(path))
        return Path(path)

    def to_html(self, path: str | Path) -> Path:
        """Write the explorer as it stands as one HTML file that needs no network."""
        from paredown_widgets.report import render_report

        target = Path(path)
        target.write_text(render_report(self.study, self.model), encoding="utf-8")
        return target

    def servable(self) -> Any:
        """This explorer as a Panel pane, for an app or a template of your own."""
        from paredown_widgets import panel_host

        panel_host.prepare()
        return panel_host.ExplorerPane(self.model).servable()

    def close(self) -> None:
        """Stop watching; a run in the background goes on."""
        self._watcher.close()
        if self._widget is not None:
            self._widget.close()

    # -- how it shows itself

    @property
    def widget(self) -> ExplorerWidget:
        """The widget in Jupyter; made on first use."""
        if self._widget is None:
            from paredown_widgets.jupyter import ExplorerWidget

            self._widget = ExplorerWidget(self.model)
        return self._widget

    def _ipython_display_(self) -> None:
        """The widget, and below it a still picture for readers without a kernel; the live widget hides it."""
        from IPython.display import display

        bundle, _ = cast(tuple[dict[str, Any], Any], self.widget._repr_mimebundle_())
        display({**bundle, "text/plain": repr(self)}, raw=True)
        with self.model.lock:
            self._still = display(self._picture(), raw=True, display_id=True)

    def _picture(self) -> dict[str, str]:
        self._still_of = self._still_key()
        return {"image/svg+xml": picture.draw(self.model), "text/plain": repr(self)}

    def _still_key(self) -> tuple[Any, ...]:
        model = self.model
        return (model.measurements, model.state, model.plan.digest if model.plan else "")

    def _refresh_still(self) -> None:
        """Draw the still picture again when things have come to rest, so that what is saved is what was seen last."""
        with self.model.lock:
            if self._still is None or self.model.running or self._still_key() == self._still_of:
                return
            self._still.update(self._picture(), raw=True)

    def __repr__(self) -> str:
        with self.model.lock:
            model = self.model
            info, prediction, measured = model.record.info, model.predict(), model.measurement()
            name = f"{info.label}, {info.task_label}" if info else model.config.model
            parts = [f"Explorer({name}; {self.state}, {model.measurements} plans measured"]
            if prediction is not None:
                parts.append(
                    f"; plan {numbers.size(prediction.bytes)}, predicted {numbers.quantity(prediction.loss_increase, prediction.loss_increase_sd)} nats"
                )
            if measured is not None:
                parts.append(f", measured {measured.metric.name} {numbers.metric_text(measured.metric)}")
        return "".join(parts) + ")"

    def _do(self, message: Mapping[str, Any]) -> None:
        """A command from Python takes the browser's way, but its error is raised here."""
        before = self.model.error
        handle(self.model, message)
        error = self.model.error
        if error is not None and error is not before:
            self.model.error = before
            raise ParedownError("; ".join(filter(None, (error["text"], error["remedy"]))))
