"""What a run holds in memory: model, task, layers, and what the original model answered."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch

from paredown import kv_cache, tasks
from paredown.apply import Variants, stored_tensors
from paredown.calibration import capture
from paredown.curvature import LossSurface, probe_objective
from paredown.errors import ParedownError
from paredown.evaluation import EMULATED, Evaluator, Observation, compare, observe
from paredown.evaluation.outcomes import outcomes
from paredown.evaluation.pieces import shortened
from paredown.export import compressed_tensors
from paredown.layers import find_layers, weight_of
from paredown.methods import Compressed, compress
from paredown.models import LoadedModel
from paredown.outcomes import Outcomes
from paredown.sensitivity import statistics_of
from paredown.sizes import fixed_bytes
from paredown.specs import ExportFormat, LayerRef, Measurement, ModelInfo, Plan, Scheme, StudyConfig, default_schemes
from paredown.study.arrays import Arrays
from paredown.study.kept import KeptWeights
from paredown.tasks import Batch, Predictions, Scores, Task

_ORIGINAL = "original-held-out"


@dataclass(eq=False, slots=True)
class Session:
    """A loaded model with its task.

    Attributes:
        config: What the study depends on.
        loaded: The original model.
        task: What it is asked.
        layers: Its compressible layers.
        held_out: Batches of the held-out split.
        variants: Puts the weights of a plan in place.
        evaluator: Runs plans on the held-out split.
        kept: The weights that were found with what calibration saw of their layers.
        store: Keeps the original model's answers.
        export_format: What the plans are exported as.
        schemes: The schemes of the study, in their short form.
        offers: The schemes that each layer may get: those of the configuration that the export format can hold for it.
    """

    config: StudyConfig
    loaded: LoadedModel
    task: Task
    layers: tuple[LayerRef, ...]
    held_out: Sequence[Batch]
    variants: Variants
    evaluator: Evaluator
    kept: KeptWeights
    store: Arrays
    export_format: ExportFormat
    schemes: tuple[str, ...]
    offers: Mapping[str, Sequence[Scheme]]
    _original: Observation | None = None

    @classmethod
    def open(cls, config: StudyConfig, store: Arrays, loaded: LoadedModel, task: Task | None) -> Session:
        """Get ready to work: the task that the configuration names, where it is not given, the layers and their schemes.

        Raises:
            ParedownError: If the task can't be loaded, the export format can hold some scheme for no layer at all, or the model has no cache
                to round.
        """
        if config.kv_cache_bits is not None:
            kv_cache.check(loaded.model, config.kv_cache_bits)
        task = task or tasks.load(config.task, loaded)
        layers = find_layers(loaded.model, dtype=loaded.dtype)
        held_out = task.batches("held_out", config.held_out_samples)
        export_format, schemes, offers = _offers(config, loaded, layers)
        kept = KeptWeights(store, functools.partial(_again, config, loaded, task))
        variants = Variants(loaded.model, layers, max_bytes=2**28, kept=kept)
        evaluator = Evaluator(loaded.model, layers, task, held_out, variants, precision=config.precision)
        return cls(config, loaded, task, layers, held_out, variants, evaluator, kept, store, export_format, schemes, offers)

    def info(self) -> ModelInfo:
        """The study in words and numbers."""
        return ModelInfo(
            model=self.loaded.id,
            label=self.loaded.label,
            digest=self.loaded.digest,
            parameters=sum(parameter.numel() for parameter in self.loaded.model.parameters()),
            bytes=self.loaded.bytes,
            fixed_bytes=fixed_bytes(stored_tensors(self.loaded.model, self.loaded.dtype), self.layers),
            task=self.config.task,
            task_label=self.task.label,
            unit=self.task.unit,
            metric=self.task.metric,
            higher_is_better=self.task.higher_is_better,
            loss="kl" if self.task.offers_probabilities else "loss",
            export_format=self.export_format,
            schemes=self.schemes,
            notice=". ".join(filter(None, (self.loaded.notice, _of_cache(self.config)))),
        )

    def original_plan(self) -> Plan:
        """The plan that changes nothing."""
        return Plan(self.loaded.id, self.loaded.digest, {}, self.loaded.bytes, 0.0, 0.0, "original", self.config.seed)

    def original(self) -> Observation:
        """What the original model answers on the held-out split: from the study's artifacts, or computed and kept there."""
        if self._original is None:
            kept = self.store.load_arrays(_ORIGINAL)
            self._original = _observation(kept) if kept is not None else observe(self.loaded.model, self.task, self.held_out)
            if kept is None:
                self.store.save_arrays(_ORIGINAL, _arrays(self._original))
        return self._original

    def surface(self, samples: int | None = None) -> LossSurface:
        """The loss on the first calibration samples, at most those of the configuration."""
        counts = [count for count in (samples, self.config.calibration_samples) if count is not None]
        return LossSurface.of(self.loaded.model, self.task, min(counts, default=None))

    def measure(self, plan: Plan) -> Measurement:
        """Put the plan's weights in place, and the cache's bits, and run the held-out split; the original's cache is full."""
        original, bits, cached = self.original(), self.config.kv_cache_bits, None
        if plan.schemes:
            with self.as_measured() as cached:
                # a person's plans are edited from one to the next, so that the next begins as this one does
                compressed = self.evaluator.observe(plan.schemes, keep=plan.found_by == "user")
        else:
            compressed = original
        self.store.save_arrays(outcomes_name(plan.digest), self.outcomes(original, compressed).arrays())
        digest = self.task.data_digest("held_out", self.config.held_out_samples)
        kernel = self.evaluator.kernel if plan.schemes else EMULATED
        measured = compare(
            original, compressed, self.task, plan, split="held_out", data_digest=digest, kernel=kernel, seed=self.config.seed
        )
        return measured if cached is None else replace(measured, kv_cache_bits=bits, kv_cache_bytes=cached.bytes_per_token)

    def outcomes(self, original: Observation, compressed: Observation) -> Outcomes:
        """What a plan did to each held-out sample."""
        return outcomes(original, compressed, [len(batch.ids) for batch in self.held_out], self.task.words)

    @contextmanager
    def as_measured(self) -> Iterator[kv_cache.CacheRecord | None]:
        """Run plans as they are measured: with the cache's bits, and nobody else running the model; yields what was cached."""
        bits = self.config.kv_cache_bits
        with self.variants.applied({}), nullcontext() if bits is None else kv_cache.rounded_cache(self.loaded.model, bits) as cached:
            yield cached


def _of_cache(config: StudyConfig) -> str:
    bits = config.kv_cache_bits
    return "" if bits is None else f"Plans are measured with keys and values cached at {bits} bits, the original with all of theirs"


def outcomes_name(digest: str) -> str:
    """Under which what a plan did to each sample is kept."""
    return f"samples-{digest}"


def tokens_of(batches: Sequence[Batch]) -> int:
    """Tokens of the longest sequence input, padding included: what a captured activation holds a row for."""
    return sum(
        max((value.shape[0] * value.shape[1] for value in batch.inputs.values() if value.dim() in (2, 3)), default=64 * len(batch.ids))
        for batch in batches
    )


def calibration_batches(config: StudyConfig, loaded: LoadedModel, task: Task) -> list[Batch]:
    """What layers are calibrated and priced on, with little padding."""
    return shortened(task.batches("calibration", config.calibration_samples), task, loaded.model)


def _again(config: StudyConfig, loaded: LoadedModel, task: Task, layer: LayerRef, scheme: Scheme) -> Compressed:
    """One layer by one scheme, with its inputs on the calibration data.

    Raises:
        ParedownError: If the calibration data never runs the layer.
    """
    batches = calibration_batches(config, loaded, task)
    captured = capture(loaded.model, [layer], batches, probe_objective(loaded.model, task, seed=config.seed))
    if layer.name not in captured:
        raise ParedownError(
            f"{layer.name} by {scheme}: the calibration data never runs the layer, so that nothing is known of its inputs; keep it"
        )
    seen = statistics_of(captured[layer.name])
    return compress(weight_of(loaded.model, layer), scheme, seen, dtype=getattr(torch, layer.dtype))


def _offers(
    config: StudyConfig, loaded: LoadedModel, layers: Sequence[LayerRef]
) -> tuple[ExportFormat, tuple[str, ...], dict[str, list[Scheme]]]:
    """The export format, the schemes of the study, and those that the format can hold for each layer."""
    if config.export_format != "paredown":
        names = config.schemes or default_schemes("compressed-tensors")
        schemes = [Scheme.parse(name) for name in names]
        refused = compressed_tensors.refusals(loaded.model, layers, schemes)
        hopeless = [scheme for scheme in schemes if all((layer.name, scheme) in refused for layer in layers)]
        if not hopeless:
            offers = {layer.name: [scheme for scheme in schemes if (layer.name, scheme) not in refused] for layer in layers}
            return "compressed-tensors", names, offers
        if config.export_format != "auto":
            reason, _ = Counter(refused[layer.name, hopeless[0]] for layer in layers).most_common(1)[0]
            raise ParedownError(
                f"a compressed-tensors checkpoint can hold {hopeless[0]} for no layer of {loaded.id}: {reason}."
                " Or choose the export format paredown, which holds every plan"
            )
    names = config.schemes or default_schemes("paredown")
    return "paredown", names, {layer.name: [Scheme.parse(name) for name in names] for layer in layers}


def _arrays(observation: Observation) -> dict[str, np.ndarray]:
    arrays = {
        "numerator": np.asarray(observation.scores.numerator, np.float64),
        "denominator": np.asarray(observation.scores.denominator, np.float64),
        "exp": np.array(observation.scores.transform == "exp"),
        "seconds": np.array(observation.seconds),
        "units": np.array(observation.units),
        "written": np.frombuffer(json.dumps(observation.scores.written).encode(), np.uint8),
    }
    for index, predictions in enumerate(observation.predictions):
        arrays[f"{index:05}.logits"] = predictions.logits.numpy()
        arrays[f"{index:05}.sample"] = predictions.sample.numpy()
        if predictions.targets is not None:
            arrays[f"{index:05}.targets"] = predictions.targets.numpy()
    return arrays


def _observation(arrays: dict[str, np.ndarray]) -> Observation:
    indices = sorted({name.split(".")[0] for name in arrays if name.endswith(".logits")})
    predictions = tuple(
        Predictions(
            torch.from_numpy(arrays[f"{index}.logits"]),
            torch.from_numpy(arrays[f"{index}.targets"]) if f"{index}.targets" in arrays else None,
            torch.from_numpy(arrays[f"{index}.sample"]),
        )
        for index in indices
    )
    written = tuple(json.loads(arrays["written"].tobytes())) if "written" in arrays else ()  # a study of before it was kept
    scores = Scores(arrays["numerator"], arrays["denominator"], "exp" if bool(arrays["exp"]) else "identity", written)
    return Observation(predictions, scores, float(arrays["seconds"]), int(arrays["units"]))
