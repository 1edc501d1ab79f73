"""A study without a model: a store filled by a simple formula, shaped like MiniLM-L6 (embedding, six blocks, pooler).

`FakeStudy` has the surface of `paredown.study.Study` that the explorer uses; its run writes to the store from a thread, slowly
enough to be watched. `filled` gives one that is over. All numbers are inventions of the formula in `_damage`.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import fake_curvature
import fake_outcomes
import fake_profiles
from paredown.outcomes import Outcomes
from paredown.record import Record
from paredown.search import Problem, allocate
from paredown.sizes import layer_bytes
from paredown.specs import (
    KEEP,
    Candidate,
    CurvatureRequest,
    ExportFormat,
    LayerRef,
    Measurement,
    Metric,
    ModelInfo,
    Plan,
    Priority,
    Scheme,
    Shown,
    StudyConfig,
)
from paredown.store import Store

if TYPE_CHECKING:
    from paredown.evaluation.paired import Compared

SCHEMES = ("int2g64", "int3g64", "int4g64", "int5g64", "int6g64", "int8g64")
RICH = (
    "int2g64", "int3g64", "int4g64", "int8g64", "int4g64-gptq", "nf4g64", "int8g64a8", "int3g64+eora16", "int4g64+eora16", "int3g64+eora32",
    "int4g64+2:4-wanda", "int8g64+2:4-wanda", "int4g64-gptq+2:4", "int4g64+50%", "int4g64+2:4+eora16",
)  # fmt: skip
"""Bits, sparsity and rank, not all of them together."""
CONFIG = StudyConfig(model="demo:sentiment", task="demo:sentiment", schemes=SCHEMES)
FIXED_BYTES = 1_900_000
BASELINE = 0.858
N = 500
_ROLES = {"q": (384, 384), "k": (384, 384), "v": (384, 384), "o": (384, 384), "fc1": (1536, 384), "fc2": (384, 1536)}
_PATHS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "o": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}


def layers(blocks: int = 6, *, prefix: str = "bert.encoder.layer", hostile: bool = False) -> list[LayerRef]:
    """The layers of a BERT of that depth; `hostile` names try to be markup."""
    if hostile:
        prefix = "<img src=x onerror=alert(1)>.layer"
    made = [LayerRef("bert.embeddings.word_embeddings", "embedding", "embedding", "", (30522, 384), "float32")]
    for block in range(blocks):
        path = f"{prefix}.{block}"
        names = {role: f"{path}.{tail}" for role, tail in _PATHS.items()}
        fused = [names[role] for role in "qkv"]
        for role, shape in _ROLES.items():
            mates = tuple(name for name in fused if name != names[role]) if role in "qkv" else ()
            made.append(LayerRef(names[role], "linear", role, path, shape, "float32", fused_with=mates))
    made.append(LayerRef("bert.pooler.dense", "linear", "pooler", "", (384, 384), "float32"))
    return made


def _damage(layer: LayerRef, index: int, bits: float) -> float:
    """Nats: falls by a factor of four a bit; v, fc1 and late blocks matter more."""
    weight = {"v": 2.0, "fc1": 4.0, "fc2": 4.0, "embedding": 12.0, "pooler": 0.2}.get(layer.role, 1.0)
    wobble = math.exp(0.7 * math.sin(1.7 * index))
    return 0.02 * weight * wobble * 4.0 ** (2 - bits)


def candidates(layer: LayerRef, index: int, schemes: Sequence[str] = SCHEMES, *, timed: bool = False) -> list[Candidate]:
    """Sparsity costs what 1.5 bits do, a solver gains 0.3 bits, a correction of rank 16 0.5. 3 bits are slower than 4."""
    result = []
    for scheme in map(Scheme.parse, schemes):
        if scheme == KEEP:
            seconds = 5e-11 * layer.parameters if timed else None
            result.append(Candidate(layer.name, KEEP, KEEP, layer_bytes(layer, KEEP), 0.0, 0.0, 0.0, seconds_per_token=seconds))
            continue
        assert scheme.weight is not None
        rank = scheme.low_rank.rank if scheme.low_rank else 0
        width = scheme.nominal_bits + 24 / 64
        size = round(layer.parameters * width / 8) + 2 * rank * sum(layer.shape)
        bits = (
            scheme.weight.bits
            - 1.5 * (scheme.sparsity is not None)
            + 0.3 * ((scheme.rounding, scheme.criterion) != ("rtn", "magnitude"))
            + rank / 32
        )
        loss = _damage(layer, index, bits)
        error = min(1.0, 0.8 * 4.0 ** (2 - bits))
        seconds = 1e-12 * layer.parameters * (8 + scheme.weight.bits + 3 * (scheme.weight.bits == 3)) if timed else None
        result.append(
            Candidate(
                layer.name,
                scheme,
                scheme,
                size,
                loss,
                0.15 * loss,
                error,
                weight_error=2e-5 * error * layer.parameters,
                seconds_per_token=seconds,
                seconds_per_token_sd=None if seconds is None else 0.02 * seconds,
            )
        )
    return result


def scale_of(layer: LayerRef, index: int) -> float:
    """Its largest eigenvalue, about."""
    return 400 * _damage(layer, index, 4)


def info(*, digest: str = "0123456789abcdef", label: str = "MiniLM-L6", loss: str = "kl", schemes: Sequence[str] = SCHEMES) -> ModelInfo:
    return ModelInfo(
        model="demo:sentiment",
        label=label,
        digest=digest,
        parameters=22_700_000,
        bytes=90_900_000,
        fixed_bytes=FIXED_BYTES,
        task="demo:sentiment",
        task_label="movie-review sentiment",
        unit="sample",
        metric="accuracy",
        higher_is_better=True,
        loss=loss,  # pyright: ignore[reportArgumentType]
        schemes=tuple(schemes),
        notice="",
    )


def measurement(plan: Plan, *, seed: int = 0) -> Measurement:
    """What the plan would do: its prediction, a little worse, and an accuracy that falls with it."""
    draw = random.Random(f"{plan.digest} {seed}")
    kl = 0.0 if not plan.schemes else 1.1 * (plan.loss_increase or 0.0) * math.exp(0.12 * draw.gauss(0, 1))
    value = max(0.5, BASELINE - 0.2 * (1 - math.exp(-1.5 * kl)) + (0.004 * draw.gauss(0, 1) if plan.schemes else 0.0))
    half = 1.96 * math.sqrt(value * (1 - value) / N)
    return Measurement(
        plan_digest=plan.digest,
        data_digest="feedfacefeedface",
        split="held_out",
        n=N,
        metric=Metric("accuracy", value, value - half, value + half, True),
        loss=0.34 + 0.6 * kl,
        baseline_loss=0.34,
        kl=kl,
        kl_sd=0.12 * kl,
        flips=min(1.0, 0.5 * math.sqrt(kl / 2)),
        bytes=plan.bytes,
        seconds_per_unit=0.005,
        device="cpu",
        kernel="emulation",
    )


class FakeStudy:
    """Looks like a study to the explorer. `pause_each` is how long one step of its run takes, seconds."""

    def __init__(
        self,
        folder: str | Path,
        *,
        blocks: int = 6,
        pause_each: float = 0.02,
        hostile: bool = False,
        info: ModelInfo | None = None,
        fail_at: str = "",
        hessian_share: float = 0.5,
        schemes: Sequence[str] = SCHEMES,
        timed: bool = False,
    ) -> None:
        self.store = Store(folder, create=True)
        self.folder = self.store.folder
        self.config = replace(CONFIG, schemes=tuple(schemes))
        self.layers = layers(blocks, hostile=hostile)
        self.info = info or globals()["info"](schemes=schemes)
        self.pause_each = pause_each
        self.fail_at = fail_at
        self.hessian_share = hessian_share
        self.timed = timed
        self.busy_elsewhere = False
        self.hostile = hostile
        self.answered = True
        self.unanswered: set[str] = set()  # digests of plans whose answers were not kept
        self.asked: list[CurvatureRequest] = []
        self.exported: list[tuple[Plan, Path]] = []
        self.waiting: list[Plan] = []
        self.serving = threading.Event()
        self.serving.set()
        self._thread: threading.Thread | None = None
        self._cancel = threading.Event()
        self._go = threading.Event()
        self._go.set()

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    @property
    def paused(self) -> bool:
        return not self._go.is_set()

    def record(self) -> Record:
        record = Record()
        record.update(self.store.events())
        return record

    def problem(self) -> Problem:
        priced = {
            layer.name: {c.scheme: c for c in candidates(layer, i, self.config.schemes, timed=self.timed)}
            for i, layer in enumerate(self.layers)
        }
        return Problem.of(self.info.fixed_bytes, self.layers, priced)

    def start(self) -> FakeStudy:
        if not self.running:
            self._cancel.clear()
            self._go.set()
            self._thread = threading.Thread(target=self._guarded, name="fake-study", daemon=True)
            self._thread.start()
        return self

    def pause(self) -> None:
        self._go.clear()

    def resume(self) -> None:
        self._go.set()

    def cancel(self) -> None:
        self._cancel.set()
        self._go.set()

    def wait(self, timeout: float | None = None) -> FakeStudy:
        if self._thread is not None:
            self._thread.join(timeout)
        return self

    def measure(self, schemes: Mapping[str, Scheme]) -> Plan:
        plan = self.plan(schemes, "user")
        self.waiting.append(plan)
        threading.Thread(target=self._measure_next, daemon=True).start()
        return plan

    def _measure_next(self) -> None:
        """One plan that waits, once `serving` is set."""
        self.serving.wait()
        time.sleep(self.pause_each)
        if self.waiting:
            plan = self.waiting.pop(0)
            self.store.append("user", "measure", "plan", payload=[plan])
            self.store.append("user", "measure", "measurement", done=1, total=1, payload=[measurement(plan)])
            self.store.append("user", "measure", "finished", message="done")

    @property
    def queued(self) -> tuple[Plan, ...]:
        return tuple(self.waiting)

    def hasten(self, digest: str) -> None:
        self.waiting.sort(key=lambda plan: plan.digest != digest)

    def withdraw(self, digest: str) -> None:
        self.waiting = [plan for plan in self.waiting if plan.digest != digest]

    def prioritise(self, low_bytes: int, high_bytes: int) -> None:
        record = self.record()
        self.store.append(record.run, record.stage, "progress", payload=[Priority(low_bytes, high_bytes)])

    def outcomes(self, plan: Plan | None = None) -> Outcomes | None:
        """None in a study of an earlier version, `answered` False, and for `unanswered` plans."""
        record = self.record()
        measured = record.baseline if plan is None else record.measurements.get(plan.digest)
        if measured is None or not self.answered or (plan is not None and plan.digest in self.unanswered):
            return None
        return fake_outcomes.outcomes(record.plans[measured.plan_digest], measured, self.shown())

    def shown(self) -> tuple[Shown, ...]:
        return tuple(fake_outcomes.samples(N, hostile=self.hostile)) if self.answered else ()

    def compare(self, one: Plan, other: Plan | None = None) -> Compared:
        from paredown.evaluation.paired import compare_samples

        first, second = self.outcomes(one), self.outcomes(other)
        assert first is not None
        assert second is not None
        return compare_samples(first, second, metric=self.info.metric, higher_is_better=self.info.higher_is_better)

    def estimate(self, request: CurvatureRequest) -> None:
        self.asked.append(request)

        def work() -> None:
            for _ in self.hessians(request.layers or [layer.name for layer in self.layers], "user"):
                time.sleep(self.pause_each)
            self.store.append("user", "hessian", "finished", message="done")

        threading.Thread(target=work, daemon=True).start()

    def export(self, plan: Plan, folder: Path, *, export_format: ExportFormat | None = None) -> int:
        self.exported.append((plan, folder))
        return plan.bytes

    def refusals(self, plan: Plan, *, export_format: ExportFormat | None = None) -> tuple[object, ...]:
        from paredown.export.compressed_tensors import check_layers  # imports torch, which no other test of the explorer needs

        return check_layers(self.layers, plan) if export_format == "compressed-tensors" else ()

    def plan(self, schemes: Mapping[str, Scheme], found_by: str) -> Plan:
        predicted = self.problem().predict(schemes)
        kept = {name: scheme for name, scheme in schemes.items() if scheme != KEEP}
        found = Plan(
            self.info.model, self.info.digest, kept, predicted.bytes, predicted.loss_increase, predicted.loss_increase_sd, found_by
        )
        return replace(found, seconds_per_token=predicted.seconds_per_token)

    def plans(self) -> list[Plan]:
        """Uniform plans and searched ones between, every second of them away from its optimum, as a real search measures some."""
        problem = self.problem()
        found = [
            self.plan({layer.name: scheme for layer in self.layers}, f"uniform {scheme}")
            for scheme in map(Scheme.parse, self.config.schemes)
        ]
        smallest, largest = problem.smallest_bytes, problem.largest_bytes
        for step in range(16):
            budget = round(smallest * (largest / smallest) ** ((step + 0.4) / 18))
            found.append(self.plan(allocate(problem, budget, objective="output_error" if step % 4 == 3 else "loss_increase"), "ggn"))
        return list({plan.digest: plan for plan in found}.values())

    def _guarded(self) -> None:
        for _ in self.steps():
            if self.paused:
                self.store.append("fake", "measure", "paused", message="paused; everything so far is saved")
                self._go.wait()
                if not self._cancel.is_set():
                    self.store.append("fake", "measure", "resumed")
            if self._cancel.is_set():
                self.store.append("fake", "measure", "cancelled", message="cancelled; everything so far is saved")
                return
            time.sleep(self.pause_each)

    def steps(self) -> Iterator[None]:
        """The whole run; what the store has already is not written twice."""
        add, done = self.store.append, self.record()
        add("fake", "load", "started", message="Loading demo:sentiment", payload=[] if done.config else [self.config])
        if done.info is None:
            add("fake", "load", "model", payload=[self.info])
            add("fake", "load", "layers", payload=self.layers)
        yield
        for index, layer in enumerate(self.layers):
            if layer.name not in done.curvature:
                payload = fake_curvature.ggn(layer, index, scale_of(layer, index))
                add("fake", "spectra", "curvature", layer=layer.name, done=index + 1, total=len(self.layers), payload=payload)
                yield
        if done.baseline is None:
            original = Plan(self.info.model, self.info.digest, {}, self.info.bytes, 0.0, 0.0, "original")
            add("fake", "baseline", "progress", total=1, message="Measuring the original")
            add("fake", "baseline", "plan", payload=[original])
            add("fake", "baseline", "measurement", done=1, total=1, payload=[measurement(original)])
            yield
        for index, layer in enumerate(self.layers):
            if layer.name in done.candidates:
                continue
            if self.fail_at == layer.name:
                add("fake", "sensitivity", "error", message=f"{layer.name}: out of memory; use fewer calibration samples, then run again")
                return
            total = len(self.layers)
            add(
                "fake",
                "sensitivity",
                "candidates",
                layer=layer.name,
                done=index + 1,
                total=total,
                payload=[*candidates(layer, index, self.config.schemes, timed=self.timed), fake_profiles.profile(layer, index)],
            )
            yield
        found = self.plans()
        add("fake", "search", "front", done=1, total=1, message=f"{len(found)} plans to measure")
        for plan in found:
            if plan.digest not in done.plans:
                add("fake", "search", "plan", payload=[plan])
        for index, plan in enumerate(sorted(found, key=lambda plan: plan.bytes % 97)):
            if plan.digest not in done.measurements:
                add("fake", "measure", "measurement", done=index + 1, total=len(found), payload=[measurement(plan)])
                yield
        yield from self.hessians()
        add("fake", "measure", "finished", message="done")

    def hessians(self, names: Collection[str] = (), run: str = "fake") -> Iterator[None]:
        """Of some layers, or of a share of them, the largest first: one probe of each, then two and the verdict."""
        ranked = sorted(enumerate(self.layers), key=lambda pair: -scale_of(pair[1], pair[0]))
        share = ranked[: round(self.hessian_share * len(ranked))]
        wanted = [(index, layer) for index, layer in ranked if layer.name in names] if names else share
        done = self.record()
        for step, (index, layer) in enumerate(wanted):
            if done.estimates(layer.name, "hessian").density:
                continue
            for probes in (1, 2):
                payload = fake_curvature.hessian(layer, index, scale_of(layer, index), probes)
                self.store.append(run, "hessian", "curvature", layer=layer.name, done=step, total=len(wanted), payload=payload)
                yield
            self.store.append(
                run, "hessian", "curvature", layer=layer.name, done=step + 1, total=len(wanted), payload=[fake_curvature.fit(layer, index)]
            )


def filled(folder: str | Path, **more: object) -> FakeStudy:
    """A study that is over."""
    study = FakeStudy(folder, **more)  # pyright: ignore[reportArgumentType]
    for _ in study.steps():
        pass
    return study
