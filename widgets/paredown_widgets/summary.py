"""This plan: original, predicted and measured in the same rows and units, and the nearest uniform plan beside it."""

from __future__ import annotations

from typing import Any

from paredown.specs import KEEP, Measurement
from paredown_widgets import numbers, sensitivities
from paredown_widgets.filling import limit
from paredown_widgets.metric_fit import MetricFit
from paredown_widgets.model import ExplorerModel


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `summary` trait."""
    measured = model.measurement()
    stale = measured is None and model.last_measurement() is not None
    return {
        "chip": _chip(model, measured is not None, stale),
        "columns": ["Original", "Predicted", "Measured, stale" if stale else "Measured"],
        "stale": stale,
        "rows": rows(model, measured or model.last_measurement()),
        "note": _nearest_uniform(model),
        "measure": _measure_button(model, measured is not None),
        "fill": _fill_button(model),
    }


def _chip(model: ExplorerModel, measured: bool, stale: bool) -> dict[str, str]:
    if model.plan is None:
        return {"text": "", "kind": ""}
    if model.digest in model.pending:
        return {"text": "measuring", "kind": "live"}
    if measured:
        return {"text": "measured, held-out", "kind": "measured"}
    if stale:
        edits = model.edits()
        return {"text": f"{edits} edit{'s' * (edits != 1)} since measured", "kind": "warn"}
    return {"text": "not measured", "kind": ""}


def bits_per_weight(model: ExplorerModel, file_bytes: int) -> float | None:
    """Mean bits that the file spends on each weight that a plan may touch."""
    info = model.record.info
    weights = sum(layer.parameters for layer in model.record.layers)
    return None if info is None or not weights else 8 * (file_bytes - info.fixed_bytes) / weights


def rows(model: ExplorerModel, measured: Measurement | None) -> list[dict[str, str]]:
    """One row a quantity: label, original, predicted, measured."""
    info, baseline, predicted = model.record.info, model.record.baseline, model.predict()
    if info is None:
        return []
    none = numbers.NONE

    def row(label: str, original: str, prediction: str, measurement: str) -> dict[str, str]:
        return {"label": label, "original": original, "predicted": prediction, "measured": measurement}

    table = [
        row("Size", numbers.size(info.bytes), numbers.size(predicted.bytes if predicted else None), numbers.size(measured.bytes if measured else None)),
        row("Bits per weight", *(numbers.significant(None if b is None else bits_per_weight(model, b)) for b in (info.bytes, predicted.bytes if predicted else None, measured.bytes if measured else None))),
    ]  # fmt: skip
    loss = numbers.quantity(predicted.loss_increase, predicted.loss_increase_sd) if predicted else none
    if info.loss == "kl":
        table.append(row("KL to original, nats", "0", loss, numbers.quantity(measured.kl, measured.kl_sd) if measured else none))
    metric = none if predicted is None or model.fit is None else _fitted(model.fit, predicted.loss_increase, info.metric)
    table.append(row(numbers.capital(info.metric), _plain(baseline), metric, numbers.metric_text(measured.metric if measured else None)))
    if baseline is not None and baseline.loss is not None:
        change = None if measured is None or measured.loss is None else measured.loss - (measured.baseline_loss or baseline.loss)
        table.append(row("Loss increase, nats", "0", loss if info.loss == "loss" else none, numbers.fixed(change, 3)))
    if predicted is not None and predicted.seconds_per_token is not None:
        own = numbers.latency(predicted.seconds_per_token, predicted.seconds_per_token_sd)
        table.append(row("Latency a token", _original_latency(model), own, none))
    if info.loss == "kl" or (measured is not None and measured.flips is not None):
        share = measured.flips if measured else None
        table.append(row("Flipped predictions", "0", none, none if share is None else f"{numbers.fixed(100 * share, 1)}{numbers.SPACE}%"))
    return table


def _original_latency(model: ExplorerModel) -> str:
    """What the layers take uncompressed, where that was timed too."""
    kept = [model.record.candidates.get(name, {}).get(KEEP) for name in model.editor.schemes]
    seconds = [candidate.seconds_per_token for candidate in kept if candidate is not None and candidate.seconds_per_token is not None]
    if not seconds or len(seconds) < len(kept):
        return numbers.NONE
    deviations = [
        candidate.seconds_per_token_sd for candidate in kept if candidate is not None and candidate.seconds_per_token_sd is not None
    ]
    return numbers.latency(sum(seconds), sum(deviations) if len(deviations) == len(kept) else None)


def _plain(baseline: Measurement | None) -> str:
    """The original's metric; its error stands in the first line of the explorer."""
    return numbers.metric_text(baseline.metric if baseline else None).split(" ±")[0]


def _fitted(fit: MetricFit, kl: float, metric: str) -> str:
    value = fit.at(kl)
    if value is None:
        return numbers.NONE
    factor = numbers.scale(metric)
    return numbers.with_error(value * factor, fit.deviation * factor, "%" if numbers.is_share(metric) else "")


def _nearest_uniform(model: ExplorerModel) -> str:
    """The uniform plan whose size is nearest, in words: what the same bytes give without a search."""
    size = model.predict()
    uniform = model.measured_uniform()
    if size is None or not uniform:
        return ""
    nearest, bits = min(uniform, key=lambda pair: abs(pair[0].bytes - size.bytes))
    kl = f", KL {numbers.quantity(nearest.kl, nearest.kl_sd)}" if nearest.kl is not None else ""
    return f"Uniform W{bits} at {numbers.size(nearest.bytes)}: {nearest.metric.name} {numbers.metric_text(nearest.metric)}{kl}"


def _measure_button(model: ExplorerModel, measured: bool) -> dict[str, Any]:
    waiting = model.digest in model.pending
    ready = model.plan is not None and model.problem is not None and not measured and not waiting and not model.offline
    return {"enabled": ready, "label": "Measuring" if waiting else "Measure"}


def _fill_button(model: ExplorerModel) -> dict[str, Any]:
    locked = len({model.editor.groups[name] for name in model.editor.locked})
    free = len(set(model.editor.groups.values())) - locked
    resource, most = limit(model)
    if model.problem is None or most is None:
        return {"enabled": False, "text": ""}
    choice = sensitivities.chosen(model)
    unknown = len(sensitivities.missing(model, choice))
    if unknown:
        return {
            "enabled": False,
            "text": f"{unknown} layer{'s' * (unknown != 1)} without {choice.label[:1].lower()}{choice.label[1:].replace(' × ‖ΔW‖²', '')}",
        }
    by = f", by {choice.label.split(' × ')[0].replace('Trace', 'trace')}" if choice.matrix else ""
    return {
        "enabled": free > 0 and not model.offline,
        "text": f"{locked} locked, {free} free, to {numbers.size(most) if resource == 'bytes' else numbers.latency(most)}{by}",
    }
