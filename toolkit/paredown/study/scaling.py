"""The scales of a study: found once, kept in its artifacts, folded into the model before anything is priced."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from paredown import models, tasks
from paredown.errors import ParedownError
from paredown.folding import Folding, Refused, Scaled, find_foldings, fold_, relative_change, round_, scale_, seen_by
from paredown.layers import find_layers
from paredown.models import LoadedModel
from paredown.specs import LayerRef, ScalingMethod, Scheme, StudyConfig, WeightFormat, default_schemes, from_json, to_json
from paredown.study.arrays import Arrays
from paredown.tasks import Batch, Task

_ARTIFACT = "scaling"
_NAMES: Mapping[ScalingMethod, str] = {"awq": "AWQ", "smoothquant": "SmoothQuant"}
_SAMPLES = 4  # of the calibration data, on which foldings are tried
_MOST = 0.01  # relative change of the answers: many times the rounding of half precision


@dataclass(frozen=True, slots=True)
class ScalingRecord:
    """What the artifact says beside the scales.

    Attributes:
        config: Of the study that they were found for, its time for the Hessian left out.
        format: What AWQ searched for; empty for SmoothQuant.
        original: Digest of the weights that they were found for.
        scaled: Digest of the weights with the scales folded.
        foldings: Where, in order.
        exponents: Of each folding.
        errors_before: AWQ's error of the layers' outputs without a scale, one for each folding.
        errors_after: The same with it.
        notes: What the methods did about degenerate inputs.
        refused: Where not, and why.
        change: Relative change of the answers on some calibration samples, ‖Δ‖ / ‖answers‖.
    """

    config: StudyConfig
    format: str
    original: str
    scaled: str
    foldings: tuple[Folding, ...]
    exponents: tuple[float, ...]
    errors_before: tuple[float, ...]
    errors_after: tuple[float, ...]
    notes: tuple[str, ...]
    refused: tuple[Refused, ...]
    change: float


def scaled(config: StudyConfig, store: Arrays, loaded: LoadedModel, task: Task | None) -> tuple[LoadedModel, tuple[str, ...]]:
    """The model with the study's scales folded: those of the artifacts, where they are for these weights, or found from the calibration data.

    Args:
        config: With a scaling.
        store: Keeps the scales.
        loaded: The original; left as it is.
        task: None loads that of the configuration, where it is needed.

    Returns:
        A copy, with the digest of its own weights, and what there is to say, in words.

    Raises:
        ParedownError: If no scheme has an int format that AWQ could search for, nothing can be folded, the scales change what the model
            answers, or those of the artifacts are for other weights.
    """
    assert config.scaling is not None
    model = copy.deepcopy(loaded.model)
    layers = {layer.name: layer for layer in find_layers(model, dtype=loaded.dtype)}
    record = _again(config, store, loaded, model, layers)
    if record is None:
        model = copy.deepcopy(loaded.model)  # what did not lead to the digest is given up
        record, scales = _found(config, loaded, model, layers, task or tasks.load(config.task, loaded))
        store.save_arrays(_ARTIFACT, _arrays(record, scales))
    words = _words(record, config)
    summary = words[0]
    return replace(loaded, model=model, digest=record.scaled, notice=". ".join(filter(None, (loaded.notice, summary)))), words


def narrowest(schemes: Iterable[Scheme]) -> WeightFormat:
    """What AWQ searches for: the int format of fewest bits, the first where several have as few.

    Raises:
        ParedownError: If there is none.
    """
    formats = [scheme.weight for scheme in schemes if scheme.weight is not None and scheme.weight.kind == "int"]
    if not formats:
        raise ParedownError(
            "AWQ searches its scales for an int format, and no scheme of the study has one; add one, such as int4g64, or leave scaling out"
        )
    return min(formats, key=lambda format: format.bits)


def _found(
    config: StudyConfig, loaded: LoadedModel, model: nn.Module, layers: Mapping[str, LayerRef], task: Task
) -> tuple[ScalingRecord, list[Tensor]]:
    assert config.scaling is not None
    method = config.scaling
    format = narrowest(map(Scheme.parse, config.schemes or default_schemes("paredown"))) if method == "awq" else None
    batches = task.batches("calibration", config.calibration_samples)
    few = task.batches("calibration", min(_SAMPLES, config.calibration_samples or _SAMPLES))[0]

    def answers(batch: Batch = few) -> Tensor:
        return task.predictions(model, batch).logits if task.offers_probabilities else task.loss(model, batch)

    with torch.no_grad():
        before = answers()
        found = find_foldings(model, list(layers.values()), answers)
        if not found.foldings:
            reasons = "; ".join(_listed((refused.source, refused.readers, refused.reason) for refused in found.refused))
            raise ParedownError(f"no scale can be folded into {loaded.id}, so leave scaling out{f': {reasons}' if reasons else ''}")
        done = scale_(model, layers, found.foldings, seen_by(model, layers, found.foldings, batches, answers), method, format)
        round_(model, layers, found.foldings)
        models.check_finite(models.distinct_tensors(model))
        change = relative_change(before, answers())
    if change > _MOST:
        raise ParedownError(
            f"the scales change what {loaded.id} answers by {change:.2%}, more than rounding does: some are too large or too small for its numbers; leave scaling out"
        )
    return _record(config, loaded, model, format, found.refused, done, change), [each.scaling.scale for each in done]


def _record(
    config: StudyConfig,
    loaded: LoadedModel,
    model: nn.Module,
    format: WeightFormat | None,
    refused: tuple[Refused, ...],
    done: list[Scaled],
    change: float,
) -> ScalingRecord:
    return ScalingRecord(
        _essence(config),
        "" if format is None else str(format),
        loaded.digest,
        models.digest(models.distinct_tensors(model)),
        tuple(each.folding for each in done),
        tuple(each.scaling.exponent for each in done),
        tuple(each.scaling.errors[0] for each in done if each.scaling.errors),
        tuple(min(each.scaling.errors) for each in done if each.scaling.errors),
        tuple(each.scaling.note for each in done),
        refused,
        change,
    )


@torch.no_grad()
def _again(
    config: StudyConfig, store: Arrays, loaded: LoadedModel, model: nn.Module, layers: Mapping[str, LayerRef]
) -> ScalingRecord | None:
    """Fold the scales of the artifacts; None where there are none for these settings, or they don't lead to the digest that they did."""
    arrays = store.load_arrays(_ARTIFACT)
    if arrays is None:
        return None
    record = from_json(ScalingRecord, arrays["record"].tobytes())
    if record.config != _essence(config):
        return None
    if record.original != loaded.digest:
        raise ParedownError(
            f"the study's scales were found for weights {record.original}, but {loaded.id} has {loaded.digest};"
            " give it the same model, or start a new study in another folder"
        )
    for index, folding in enumerate(record.foldings):
        fold_(model, layers, folding, torch.from_numpy(arrays[f"{index:05}"]))
    round_(model, layers, record.foldings)
    return record if models.digest(models.distinct_tensors(model)) == record.scaled else None


def _essence(config: StudyConfig) -> StudyConfig:
    return replace(config, hessian_seconds=0)  # the one setting that may change


def _arrays(record: ScalingRecord, scales: list[Tensor]) -> dict[str, np.ndarray]:
    arrays = {f"{index:05}": scale.numpy() for index, scale in enumerate(scales)}
    return {**arrays, "record": np.frombuffer(to_json(record).encode(), np.uint8)}


def _words(record: ScalingRecord, config: StudyConfig) -> tuple[str, ...]:
    """A summary; where the scales are; where they are not."""
    assert config.scaling is not None
    name, where = _NAMES[config.scaling], f", searched for {record.format}," if record.format else ""
    total = len(record.foldings) + len(record.refused)
    summary = (
        f"{name} scales{where} are folded in {len(record.foldings)} of {total} places; answers change by {record.change:.0e} (relative)"
    )
    if config.scaling == "smoothquant" and not any(Scheme.parse(scheme).activation for scheme in config.schemes or ()):
        summary += "; no scheme rounds inputs, which these scales are for"
    if record.errors_before:
        ratio = sum(record.errors_after) / max(sum(record.errors_before), np.finfo(float).tiny)
        summary += f"; at {record.format} the error of their outputs is {ratio:.3g} of that without"
    places = _listed((folding.source, folding.readers, "") for folding in record.foldings)
    refusals = _listed((refused.source, refused.readers, refused.reason) for refused in record.refused)
    notes = sorted({note for note in record.notes if note})
    return (
        summary,
        f"Scaled: {'; '.join(places)}",
        *([f"Not scaled: {'; '.join(refusals)}"] if refusals else []),
        *([f"Of the scales: {'; '.join(notes)}"] if notes else []),
    )


def _listed(places: Iterable[tuple[str, tuple[str, ...], str]]) -> list[str]:
    """Places that differ by block alone are one, with their number; amounts in the reasons are the first one's.

    Example:
        >>> _listed([("h.0.ln", ("h.0.q", "h.0.k"), ""), ("h.1.ln", ("h.1.q", "h.1.k"), "")])
        ['h.*.ln → q, k (2)']
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    reasons: dict[tuple[str, str, str], str] = {}
    for source, readers, reason in places:
        leaves = ", ".join(dict.fromkeys(reader.rpartition(".")[2] for reader in readers))
        key = (re.sub(r"\.\d+(?=\.)", ".*", source), leaves, re.sub(r"[\d.]+%", "", reason))
        counts[key] += 1
        reasons.setdefault(key, reason)
    return [f"{key[0]} → {key[1]} ({count})" + (f": {reasons[key]}" if reasons[key] else "") for key, count in counts.items()]
