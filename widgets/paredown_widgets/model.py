"""The explorer's view model: everything that the user sees or changes. No widget, no event loop; any thread may use it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import param

from paredown.errors import ParedownError
from paredown.record import Record
from paredown.search import Prediction, Problem, allocate
from paredown.specs import (
    KEEP,
    EigenvalueEstimate,
    Event,
    Measurement,
    Plan,
    QuadraticFit,
    Scheme,
    SpectralDensity,
    StudyConfig,
    TraceEstimate,
)
from paredown_widgets.choices import Handle, SchemeChoices, Value, also_changed, layer_choices
from paredown_widgets.colors import COLORS
from paredown_widgets.comparison import Comparison
from paredown_widgets.controls import StudyLike
from paredown_widgets.editor import Call, PlanEditor
from paredown_widgets.filtering import Layer, matching
from paredown_widgets.front_line import FrontLine, front_line
from paredown_widgets.improvements import History
from paredown_widgets.labels import LayerLabel, label_layers
from paredown_widgets.memory import SavedPlans, recall
from paredown_widgets.metric_fit import MetricFit, fit_metric
from paredown_widgets.rankings import Rankings, key, rank
from paredown_widgets.schemes import bits_of, is_simple

_CURVATURE = (TraceEstimate, EigenvalueEstimate, SpectralDensity, QuadraticFit)


class ExplorerModel(param.Parameterized):
    """State and commands of one explorer on one study.

    What is known of the study is the fold of its store, read by polling, so a run in this process, in another one, and one
    that ended last week look the same. Views read under `lock`; whoever changes something calls `changed`.
    """

    plan = param.Parameter(default=None, doc="The user's plan, a `paredown.specs.Plan`; None until the layers are known")
    selection = param.List(default=[], doc="Names of the selected layers")
    locked = param.List(default=[], doc="Names of the locked layers")
    budget = param.Number(default=None, allow_None=True, doc="Budget in bytes")
    latency_budget = param.Number(default=None, allow_None=True, doc="Budget in seconds a token, where the candidates were timed")
    budget_unit = param.Selector(
        default="MB", objects=["MB", "bits", "ms"], doc="What the budget is given in; ms limits the latency instead"
    )
    state = param.String(default="idle", doc="State of the study's last run")
    measurements = param.Integer(default=0, doc="Plans that have been measured")
    filter = param.String(default="")
    color_by = param.Selector(default="bits", objects=list(COLORS))
    order = param.Selector(default="model", objects=["model", "largest"])
    x = param.Selector(default="bytes", objects=["bytes", "seconds"])
    y = param.Selector(default="kl", objects=["kl", "metric", "loss"])
    sensitivity = param.String(default="kl", doc="What the bars show and a fill minimises; `sensitivities.choices` names them")
    spectrum_mode = param.Selector(default="selected", objects=["selected", "all", "table"])
    spectrum_matrix = param.Selector(default="auto", objects=["auto", "ggn", "fisher", "empirical_fisher", "hessian"])
    theme = param.Selector(default="auto", objects=["auto", "light", "dark"])
    error = param.Dict(default=None, allow_None=True, doc="What went wrong in a command or a callback: text and remedy")

    def __init__(self, study: StudyLike, *, offline: bool = False) -> None:
        super().__init__()
        self.study = study
        self.offline = offline
        self.lock = threading.RLock()
        self.record = Record()
        self.digest = ""  # of the plan; worked out when it changes, since every panel asks
        self.editor = PlanEditor()
        self.labels: dict[str, LayerLabel] = {}
        self.choices = SchemeChoices(())
        self.layer_choices: dict[str, SchemeChoices] = {}  # of each layer, once all are priced; layers with the same choices share them
        self.problem: Problem | None = None
        self.front: FrontLine | None = None
        self.front_by_seconds: FrontLine | None = None  # where every candidate was timed
        self.history = History()
        self.rankings: Rankings | None = None
        self.comparison = Comparison()
        self.searching = False  # whether somebody has opened the view of the search
        self.paging = False  # whether somebody has opened a layer's page
        self.opened = ""  # the layer that was picked last: whose page it is
        self.fit: MetricFit | None = None
        self.reference: dict[str, Scheme] | None = None  # where the plan last was measured: what "edited" is counted against
        self.pending: set[str] = set()  # digests that wait for their measurement
        self.asked: dict[str, Plan] = {}  # plans that a person wants measured and that were not yet, by digest; outlives the kernel
        self.saved = SavedPlans()
        self.hessian_asked = False  # between the command and the first sign that the study works on it
        self.measurement_events = 0  # measurements that have come, those of a plan measured again too: what the front depends on
        self.curvature_events = 0  # that brought something on the curvature: what the spectra depend on
        self.status = ""  # about the last edit
        self.touched = False  # before the first edit the explorer proposes a plan
        self.clipboard: dict[str, Any] = {"n": 0, "text": ""}
        self.export_status: dict[str, str] = {"status": "", "kind": ""}
        self.exporting: threading.Thread | None = None
        self.verdicts: dict[str, tuple[str, str]] = {}  # export target to the digest that was asked about, and why it is refused
        self.exports_opened = False  # whether somebody has looked at the menu of exports
        self.running = False  # whether this process runs the study, as of the last refresh
        self.elsewhere: tuple[float, bool] = (
            float("-inf"),
            False,
        )  # when it was last asked whether another process runs this study, and the answer
        self.cache: dict[str, tuple[Any, Any]] = {}  # what `kept` keeps
        self.queue_seen: tuple[str, ...] = ()  # digests of the plans that waited at the last look, other views' too
        self.remembered: tuple[Any, ...] | None = None  # what `memory` wrote last
        self.priced = -1  # candidates that the problem was made of
        self._predicted: tuple[Any, Problem | None, Prediction | None] = (None, None, None)  # the last plan, the problem, what it said
        self._reading = threading.Lock()  # one fold at a time, whoever asks for it
        self._views: list[weakref.WeakMethod[Callable[[], None]]] = []

    # -- who looks on

    def subscribe(self, view: Callable[[], None]) -> None:
        """Call the bound method `view` after every change, from any thread; it must be quick. Held weakly."""
        with self.lock:
            self._views.append(weakref.WeakMethod(view))

    def unsubscribe(self, view: Callable[[], None]) -> None:
        """Do not call `view` any more."""
        with self.lock:
            self._views = [held for held in self._views if held() not in (None, view)]

    def changed(self) -> None:
        """Tell the views; cheap, from any thread."""
        with self.lock:
            views = [view for held in self._views if (view := held()) is not None]
        for view in views:
            view()

    def fail(self, error: BaseException | str) -> None:
        """Show an error in the explorer: what happened, and what to do next."""
        text = error if isinstance(error, str) else str(error)
        if not isinstance(error, (str, ParedownError)):
            text = f"{type(error).__name__}: {text or 'no message'}"
        happened, _, remedy = text.partition("; ")
        self.error = {"text": happened, "remedy": remedy}
        self.changed()

    # -- the study

    @property
    def config(self) -> StudyConfig:
        """The study's settings, or the defaults before they are known."""
        return self.record.config or StudyConfig()

    def refresh(self) -> bool:
        """Read what is new in the store; says whether there was anything."""
        with self._reading:
            running = self.study.running  # asked before the events are read: when it is over, its last event is there
            events = self.study.store.events(after=self.record.sequence)
            if not events:
                if running != self.running:
                    self.running = running
                    self.changed()
                return False
            with self.lock:
                self.record.update(events)
                self.running = running
                self._absorb(events)
            priced = sum(map(len, self.record.candidates.values()))
            if self.record.sensitivity_complete and priced != self.priced:
                self._price(priced)
            with self.lock:
                self._propose()
                self._settle()
            if self.searching:
                self.rank()
            self.comparison.hurry(self)
        self.changed()
        return True

    def _absorb(self, events: Sequence[Event]) -> None:
        record = self.record
        self.history.update(events, record)
        if record.info is not None:
            kept = any(KEEP in offered for offered in record.candidates.values())
            own = (
                record.info.schemes or (record.config and record.config.schemes) or ()
            )  # the settings' own: a study of before they were facts
            self.choices = SchemeChoices.of([*own, *(["keep"] if kept else [])])
        if [layer.name for layer in record.layers] != list(self.editor.schemes):
            self.labels = label_layers(record.layers)
            self.editor.set_layers(record.layers, self.choices.middle, fuse=self.config.fuse)
            self.touched = False
            recall(self)
        measured = set(record.measurements)
        self.pending -= measured
        self.asked = {digest: plan for digest, plan in self.asked.items() if digest not in measured}
        self.curvature_events += sum(any(isinstance(value, _CURVATURE) for value in event.payload) for event in events)
        if any(event.stage == "hessian" or event.kind in ("error", "cancelled", "finished") for event in events):
            self.hessian_asked = False
        if any(event.kind == "error" for event in events):
            self.pending.clear()  # whatever was queued will not arrive; the log and the run line say why
        self.fit = fit_metric(list(record.measurements.values()), record.baseline)
        if record.info is not None and record.info.loss == "loss" and self.y == "kl":
            self.y = "loss"
        self.measurements = len(self.measured_plans())
        self.measurement_events += sum(isinstance(value, Measurement) for event in events for value in event.payload)
        self.state = record.state

    def _price(self, priced: int) -> None:
        """Candidates to choices and front: up to a second for a large model, so outside of the lock."""
        record = self.record
        if record.info is None:
            return
        problem = Problem.of(record.info.fixed_bytes, record.layers, record.candidates, fuse=self.config.fuse)
        line, choices = front_line(problem), layer_choices(self.choices, self.editor.groups.values(), record.candidates)
        timed = all(candidate.seconds_per_token is not None for offered in record.candidates.values() for candidate in offered.values())
        by_seconds = front_line(problem, "seconds") if timed else None
        with self.lock:
            self.problem, self.front, self.front_by_seconds = problem, line, by_seconds
            self.layer_choices, self.priced = choices, priced
            if self.choices.bits:
                prediction = self.predict(self.uniform(bits_of(self.choices.middle) or 4))
                if self.budget is None:
                    self.budget = prediction.bytes if prediction else problem.largest_bytes
                if self.latency_budget is None and timed:
                    self.latency_budget = prediction.seconds_per_token if prediction else None

    def rank(self) -> None:
        """How alike the scores rank the choices, where that is not known yet: up to a second, so outside of the lock, and only when asked for."""
        record = self.record
        if record.info is None or not record.sensitivity_complete or (self.rankings is not None and self.rankings.key == key(record)):
            return
        self.rankings = rank(record, fuse=self.config.fuse, scheme=self.choices.middle)

    def _propose(self) -> None:
        """Before the first edit: the searched plan at the budget, and once the run is over the best measured one."""
        if self.touched or self.problem is None or self.budget is None:
            return
        fitting = [m for digest, m in self.measured_plans().items() if m.bytes <= self.budget and m.kl is not None]
        if self.record.state == "done" and fitting:
            best = min(fitting, key=lambda m: m.kl if m.kl is not None else float("inf"))
            self.editor.start_from(self.as_asked(self.record.plans[best.plan_digest].schemes))
        else:
            try:
                self.editor.start_from(allocate(self.problem, int(self.budget), locked=self.locked_schemes()))
            except ParedownError as error:
                self.fail(error)

    def _settle(self) -> None:
        """After any change of the plan: its value for Python, and whether it stands where something was measured."""
        plan = self.make_plan(self.editor.schemes)
        digest = "" if plan is None else plan.digest
        if digest in self.record.measurements:
            self.reference = dict(self.editor.schemes)
        if self.locked != (locked := [name for name in self.editor.schemes if name in self.editor.locked]):
            self.locked = locked
        if plan != self.plan:
            self.plan, self.digest = plan, digest

    # -- what follows from it

    def as_asked(self, schemes: Mapping[str, Scheme]) -> dict[str, Scheme]:
        """A plan's schemes in the words of the study: a plan names what applies to a layer, the ladder of bits what was asked."""
        asked: dict[str, Scheme] = {}
        for name in self.editor.schemes:
            scheme = schemes.get(name, KEEP)
            offered = self.record.candidates.get(name, {})
            asked[name] = scheme if scheme in offered else next((s for s, c in offered.items() if c.effective == scheme), scheme)
        return asked

    def offers(self, name: str, scheme: Scheme) -> bool:
        """Whether a layer may get a scheme; before it is priced, any."""
        offered = self.record.candidates.get(name)
        return offered is None or scheme in offered

    def uniform(self, bits: int) -> dict[str, Scheme]:
        """The uniform plan of that many bits; a layer that can't have them gets the next wider scheme, as in the search.

        Raises:
            ParedownError: If the study has no scheme of that many bits.
        """
        return self.everywhere(self.choices.uniform(bits))

    def everywhere(self, scheme: Scheme) -> dict[str, Scheme]:
        """One scheme for all layers; one that can't have it gets the next wider scheme, the first by name of those, or is kept."""
        return {name: scheme if self.offers(name, scheme) else self._wider(name, bits_of(scheme)) for name in self.editor.schemes}

    def _wider(self, name: str, bits: int | None) -> Scheme:
        own = [(width, str(scheme), scheme) for scheme in self.record.candidates[name] if (width := bits_of(scheme)) is not None]
        return min([each for each in own if bits is not None and each[0] >= bits], default=(0, "", KEEP))[2]

    def edit(
        self, layers: Iterable[str], change: Callable[[str, Scheme], Scheme | None], label: str, *, gesture: str | None = None
    ) -> None:
        """Change some layers, and whatever is fused with them; those that can't have it stay, and are counted in `status`.

        Args:
            layers: Names of layers; locked ones stay.
            change: Name and present scheme of a layer to its new scheme, or to None where it can't be changed so.
            label: What undo calls it.
            gesture: Edits of one gesture, such as a drag, are one undo step.
        """
        editor = self.editor
        wanted = [name for name in editor.widened(layers) if name not in editor.locked]
        after = {name: change(name, editor.schemes[name]) for name in wanted}
        stuck = {editor.groups[name] for name, scheme in after.items() if scheme is None or not self.offers(name, scheme)}
        able = {name: scheme for name, scheme in after.items() if scheme is not None and editor.groups[name] not in stuck}
        left = len(wanted) - len(able)
        self.status = f"{left} of {len(wanted)} layers can't have that and stay" if left else ""
        editor.edit(able, label, gesture=gesture)
        self.touch()

    def move(self, layers: Iterable[str], handle: Handle, value: Value, label: str) -> None:
        """Set one handle of some layers; where the others can't stay, `status` says what they do.

        Raises:
            ParedownError: If the study has no scheme of that value.
        """
        if value not in self.choices.values(handle):
            raise self.choices.missing(handle, value)
        before = self.editor.schemes

        @cache
        def moved(choices: SchemeChoices, now: Scheme) -> Scheme | None:
            return choices.moved(now, handle, value)

        self.edit(layers, lambda name, now: moved(self.choices_of(name), now), label)
        moves = [(scheme, self.editor.schemes[name]) for name, scheme in before.items() if self.editor.schemes[name] != scheme]
        self.status = "; ".join(filter(None, [self.status, also_changed(moves, handle)]))

    def choices_of(self, name: str) -> SchemeChoices:
        """What one layer may get; before it is priced, what the study asks for."""
        return self.layer_choices.get(name, self.choices)

    def predict(self, schemes: Mapping[str, Scheme] | None = None) -> Prediction | None:
        """Prediction of the user's plan, or of another one; None while it can't be made."""
        if self.problem is None:
            return None
        if schemes is None:
            schemes = self.editor.schemes
        if schemes is not self._predicted[0] or self.problem is not self._predicted[1]:  # asked for by every panel
            try:
                prediction = self.problem.predict(schemes)
            except ParedownError:  # a plan with schemes that this study did not price: shown without a prediction
                prediction = None
            if schemes is not self.editor.schemes:
                return prediction
            self._predicted = (schemes, self.problem, prediction)
        return self._predicted[2]

    def make_plan(self, schemes: Mapping[str, Scheme], found_by: str = "user") -> Plan | None:
        """A plan value of those schemes; None while the model is not known."""
        info = self.record.info
        if info is None or not self.editor.schemes:
            return None
        prediction = self.predict(schemes)
        if prediction is None or self.problem is None:
            return Plan(info.model, info.digest, dict(schemes), 0, found_by=found_by)
        effective = self.problem.effective(schemes)
        return Plan(info.model, info.digest, effective, prediction.bytes, prediction.loss_increase, prediction.loss_increase_sd, found_by)

    def kept(self, name: str, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, made again only when `key`, which is all that it depends on, has changed."""
        if name not in self.cache or self.cache[name][0] != key:
            self.cache[name] = (key, make())
        return self.cache[name][1]

    def measured_plans(self) -> dict[str, Measurement]:
        """Measurements of compressed plans, the original left out."""
        original, record = self.record.baseline.plan_digest if self.record.baseline else None, self.record

        def make() -> dict[str, Measurement]:
            return {digest: m for digest, m in record.measurements.items() if digest != original and digest in record.plans}

        return self.kept("measured plans", record.sequence, make)

    def measured_uniform(self) -> list[tuple[Measurement, int]]:
        """Measurements of uniform plans, with their bits."""

        def make() -> list[tuple[Measurement, int]]:
            return [(m, bits) for digest, m in self.record.measurements.items() if (bits := self.uniform_bits(digest)) is not None]

        return self.kept("measured uniform", self.record.sequence, make)

    def measurement(self) -> Measurement | None:
        """What was measured of exactly this plan."""
        return self.record.measurements.get(self.digest)

    def last_measurement(self) -> Measurement | None:
        """What was measured of the plan before the edits that followed."""
        reference = self.reference
        if reference is None:
            return None
        digest = self.kept("reference", (reference, self.priced), lambda: plan.digest if (plan := self.make_plan(reference)) else "")
        return self.record.measurements.get(digest)

    def uniform_bits(self, digest: str) -> int | None:
        """Bits of a uniform plan of integer codes; None for any other."""
        plan = self.record.plans.get(digest)
        if plan is None or not plan.found_by.startswith("uniform "):
            return None
        scheme = Scheme.parse(plan.found_by.removeprefix("uniform "))  # embeddings may be wider than what it is called after
        return bits_of(scheme) if is_simple(scheme) else None

    def edited(self) -> set[str]:
        """Layers that differ from where the plan last was measured."""
        schemes, reference = self.editor.schemes, self.reference
        if reference is None:
            return set()
        return self.kept(
            "edited", (schemes, reference), lambda: {name for name, scheme in schemes.items() if reference.get(name) != scheme}
        )

    def edits(self) -> int:
        """Decisions that differ: a fused group counts once."""
        return len({self.editor.groups[name] for name in self.edited()})

    def found(self, text: str) -> tuple[str, ...] | None:
        """Layers that a filter keeps; None for an empty one.

        Raises:
            ParedownError: If the text is no filter (`paredown_widgets.filtering`).
        """
        if not text.strip():
            return None
        states = {"locked": self.editor.locked, "edited": self.edited(), "selected": set(self.selection)}
        layers = [
            Layer(
                name,
                self.labels[name],
                scheme,
                self.record.candidates.get(name, {}).get(scheme),
                frozenset(state for state, those in states.items() if name in those),
            )
            for name, scheme in self.editor.schemes.items()
        ]
        return matching(text, layers)

    def locked_schemes(self) -> dict[str, Scheme]:
        """What the locks hold fast."""
        return {name: scheme for name, scheme in self.editor.schemes.items() if name in self.editor.locked}

    # -- what the user does to the plan

    def touch(self) -> None:
        """After an edit: everything that follows from the plan."""
        self.touched = True
        self._settle()
        self.comparison.hurry(self)
        self.changed()

    def load(self, schemes: Mapping[str, Scheme], label: str, *, calls: tuple[Call, ...] = ()) -> None:
        """Take over a whole plan as one undo step, locked layers too.

        Args:
            schemes: Layer name to scheme; a layer that is absent is kept.
            label: What undo calls it.
            calls: What does the same again (`Step.calls`).

        Raises:
            ParedownError: If it names layers that this model does not have.
        """
        unknown = sorted(set(schemes) - set(self.editor.schemes))
        if unknown:
            raise ParedownError(
                f"the plan names layers that this study does not have: {', '.join(unknown[:3])}; load a plan for the same model"
            )
        before = self.locked_schemes()
        self.editor.replace(self.as_asked(schemes), label, keep_locked=False, calls=calls)
        moved = sum(self.editor.schemes[name] != scheme for name, scheme in before.items())
        self.status = f"{moved} locked layer{'s' * (moved != 1)} changed with it" if moved else ""
        self.touch()
