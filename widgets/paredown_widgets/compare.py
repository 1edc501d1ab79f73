"""The table of the compared plans: what each takes and does, what it changes beyond the others, and which plans may be added."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from paredown.errors import ParedownError
from paredown.search import Prediction
from paredown.search.paired import Difference
from paredown.specs import Measurement, ModelInfo, Plan
from paredown_widgets import compare_layers, numbers
from paredown_widgets.comparison import LETTERS, Entry, Pair, name_of
from paredown_widgets.summary import bits_per_weight

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

Json = dict[str, Any]
_MOST_OFFERED = 40  # measured plans in the menu, those of nearest size; the front and Python reach the others
_MOST_EDITS = 12
_PERPLEXITY = "perplexity"
RULE = "Bold: better than every other plan by more than two standard errors of the paired difference."


def view(model: ExplorerModel) -> Json:
    """State of the `compare` trait."""
    comparison = model.comparison
    if not comparison.opened:
        return {"plans": [], "count": 1 + len(comparison.added)}
    entries = comparison.entries(model)
    baseline = model.record.baseline
    told = sorted({m.n for m in (baseline, *(entry.measurement for entry in entries)) if m is not None})
    return {
        "plans": [_head(model, entry) for entry in entries],
        "count": len(entries),
        "sub": f"held-out split, n {', '.join(map(str, told))}" if told else "",
        "rows": rows(model, entries) if entries else [],
        "foot": RULE if len(entries) > 1 else "",
        "notices": notices(model, entries),
        "layers": compare_layers.view(model, entries),
        "add": offered(model) if len(entries) < len(LETTERS) and not model.offline else [],
        "empty": "" if entries else "Plans can be compared once the model's layers are known.",
    }


def _head(model: ExplorerModel, entry: Entry) -> Json:
    """The head of a plan's column: what it is, and what is to be done about it."""
    digest, measured = entry.plan.digest, entry.measurement
    waiting = digest in model.pending
    again = measured is not None and model.comparison.ready > 0 and not _answered(entry) and model.record.info is not None
    edits = model.edits() if entry.letter == "A" and measured is None and model.reference is not None else 0
    chip = "measuring" if waiting else f"stale, {edits} edit{'s' * (edits != 1)}" if edits else "" if measured else "predicted"
    return {
        "letter": entry.letter,
        "digest": digest,
        "name": entry.name,
        "title": f"Plan {digest}, {entry.plan.found_by}",
        "chip": chip,
        "said": f"{edits} edit{'s' * (edits != 1)} since it was measured: its figures are predicted" if edits else "",
        "kind": "live" if waiting else "warn" if edits else "",
        "measured": measured is not None,
        "measure": ""
        if waiting or model.offline or model.problem is None
        else "Measure"
        if measured is None
        else "Measure again"
        if again
        else "",
        "why": "It was measured by an earlier version, which kept no answers: measure it again to see flipped answers" if again else "",
        "removable": entry.letter != "A" and not model.offline,
    }


def _answered(entry: Entry) -> bool:
    return entry.outcomes is not None and (entry.outcomes.answered or not len(entry.outcomes.units))


def rows(model: ExplorerModel, entries: Sequence[Entry]) -> list[Json]:
    """One row a quantity, one cell a plan."""
    info, baseline = model.record.info, model.record.baseline
    if info is None:
        return []
    factor = 100.0 if numbers.is_share(info.metric) or info.metric == _PERPLEXITY else 1.0
    unit = "%" if info.metric == _PERPLEXITY else "points" if factor > 1 else info.metric

    def change(found: Difference | None) -> tuple[str, str]:
        if found is None:
            return numbers.NONE, ""
        value, sd, low, high = (factor * one for one in metric_change(info, found))
        return _plus(value, sd), _interval([low, high], f" {unit}", found.samples)

    def paired(label: str, to: Callable[[Entry], Measurement | None], title: str) -> Json:
        cells = []
        for entry in entries:
            other = to(entry)
            pair = model.comparison.pair(entry.measurement, other)
            text, interval = change(pair.compared.metric if pair else None)
            same = entry.measurement is not None and other is entry.measurement
            cells.append(
                {
                    "text": "0" if same else text,
                    "kind": "same" if same else "measured" if pair else "none",
                    "best": False,
                    "title": interval,
                }
            )
        return {"id": label, "label": label, "title": title, "original": "0" if "original" in label else "", "cells": cells}

    table = [
        _row("Size", numbers.size(info.bytes), [_exact(e, numbers.size(bytes_of(e))) for e in entries], _smallest([bytes_of(e) for e in entries])),
        _row("Bits per weight", numbers.significant(bits_per_weight(model, info.bytes)), [_exact(e, numbers.significant(bits_per_weight(model, size)) if (size := bytes_of(e)) else numbers.NONE) for e in entries]),
        _row(numbers.capital(info.metric), numbers.metric_text(baseline.metric if baseline else None).split(" ±")[0], [_metric(model, e) for e in entries], _best(model, entries, lambda pair: pair.compared.metric)),
        paired(f"Change to original, {unit}", lambda _: baseline, "Less the original's on the same samples, with the standard error of the paired difference"),
    ]  # fmt: skip
    if len(entries) > 1:
        first = entries[0].measurement
        table.append(
            paired(
                f"Change to A, {unit}", lambda _: first, "Less A's on the same samples, with the standard error of the paired difference"
            )
        )
    if info.loss == "kl":
        table.append(_row("KL to original, nats", "0", [_kl(e) for e in entries], _best(model, entries, lambda pair: pair.compared.kl)))
    if baseline is not None and baseline.loss is not None:
        table.append(
            _row("Loss increase, nats", "0", [_loss(model, e) for e in entries], _best(model, entries, lambda pair: pair.compared.loss))
        )
    if info.loss == "kl":
        table.append(_row("Flipped", "0", [_flipped(model, e) for e in entries], _best(model, entries, lambda pair: pair.flips)))
    timings = [timing_of(model, entry) for entry in entries]
    if any(seconds is not None for seconds, _ in timings):
        cells = [
            _cell(numbers.NONE, "none") if seconds is None else _cell(numbers.latency(seconds, sd), "predicted") for seconds, sd in timings
        ]
        table.append(_row("Latency of the layers", "", cells, title="Predicted from layers that were timed on this machine, per token"))
    return table


def metric_change(info: ModelInfo, found: Difference) -> tuple[float, float, float, float]:
    """A change of the metric in its own direction, its standard error and its 95 % interval; of a perplexity, relative to the other's."""
    if info.metric == _PERPLEXITY:  # the difference is of its logarithm
        return math.expm1(found.value), found.sd * math.exp(found.value), math.expm1(found.low), math.expm1(found.high)
    sign = -1.0 if info.higher_is_better else 1.0  # differences are turned so that less is better
    low, high = sorted((sign * found.low, sign * found.high))
    return sign * found.value, found.sd, low, high


def _row(label: str, original: str, cells: list[Json], best: int | None = None, title: str = "") -> Json:
    for index, cell in enumerate(cells):
        cell["best"] = index == best
    return {"id": label, "label": label, "title": title, "original": original, "cells": cells}


def _cell(text: str, kind: str, title: str = "") -> Json:
    return {"text": text, "kind": kind if text != numbers.NONE else "none", "best": False, "title": title}


def _exact(entry: Entry, text: str) -> Json:
    """What is known of a plan without measuring it; it looks predicted with the rest of its column all the same."""
    return _cell(text, "measured" if entry.measurement else "predicted")


def bytes_of(entry: Entry) -> int:
    """Size of its file, which needs no measurement."""
    return entry.measurement.bytes if entry.measurement else entry.plan.bytes


def _smallest(sizes: Sequence[int]) -> int | None:
    return sizes.index(min(sizes)) if len(sizes) > 1 and sizes.count(min(sizes)) == 1 else None


def _metric(model: ExplorerModel, entry: Entry) -> Json:
    if entry.measurement is not None:
        interval = numbers.metric_interval(entry.measurement.metric)
        return _cell(
            numbers.metric_text(entry.measurement.metric),
            "measured",
            f"95 % interval {interval}, n {entry.measurement.n}" if interval else "",
        )
    info, predicted = model.record.info, entry.plan.loss_increase
    value = None if model.fit is None or predicted is None or info is None or info.loss != "kl" else model.fit.at(predicted)
    if value is None or model.fit is None or info is None:
        return _cell(numbers.NONE, "none")
    factor = numbers.scale(info.metric)
    text = numbers.with_error(value * factor, model.fit.deviation * factor, "%" if numbers.is_share(info.metric) else "")
    return _cell(text, "predicted", "Read off the plans that were measured, at its predicted KL")


def _kl(entry: Entry) -> Json:
    if entry.measurement is not None:
        return _cell(numbers.quantity(entry.measurement.kl, entry.measurement.kl_sd), "measured")
    return _cell(numbers.quantity(entry.plan.loss_increase, entry.plan.loss_increase_sd), "predicted")


def _loss(model: ExplorerModel, entry: Entry) -> Json:
    m, baseline = entry.measurement, model.record.baseline
    if m is None and model.record.info is not None and model.record.info.loss == "loss":
        return _cell(numbers.quantity(entry.plan.loss_increase, entry.plan.loss_increase_sd), "predicted")
    pair = model.comparison.pair(m, baseline)
    if pair is not None and pair.compared.loss is not None:
        found = pair.compared.loss
        return _cell(
            numbers.quantity(found.value, found.sd),
            "measured",
            _interval([found.low, found.high], " nats", found.samples, numbers.significant),
        )
    if m is None or m.loss is None or m.baseline_loss is None:
        return _cell(numbers.NONE, "none")
    return _cell(numbers.quantity(m.loss - m.baseline_loss), "measured")


def _flipped(model: ExplorerModel, entry: Entry) -> Json:
    m, found = entry.measurement, entry.outcomes
    if m is None or m.flips is None:
        return _cell(numbers.NONE, "none")
    share = f"{numbers.fixed(100 * m.flips, 1)}{numbers.SPACE}%"
    original = model.comparison.original(model)
    if found is None or original is None or not (found.answered and original.answered):
        return _cell(share, "measured")
    return _cell(f"{int(found.changed(original).sum()):,} of {len(found.answers):,}", "measured", share)


def timing_of(model: ExplorerModel, entry: Entry) -> tuple[float | None, float | None]:
    """Predicted seconds a token in its layers, and their standard error; None where nothing was timed, or it is not known."""
    timed: Plan | Prediction | None = entry.plan
    if entry.plan.seconds_per_token is None:
        timed = model.predict(entry.plan.schemes) if model.front_by_seconds is not None else None
    return (timed.seconds_per_token, timed.seconds_per_token_sd) if timed else (None, None)


def _best(model: ExplorerModel, entries: Sequence[Entry], part: Callable[[Pair], Difference | None]) -> int | None:
    """The plan that is below every other by more than two standard errors of the paired difference."""
    for index, entry in enumerate(entries):
        pairs = [model.comparison.pair(entry.measurement, other.measurement) for other in entries if other is not entry]
        found = [part(pair) if pair is not None else None for pair in pairs]
        if found and all(one is not None and one.value < -2 * one.sd for one in found):
            return index
    return None


def _plus(value: float, error: float) -> str:
    text = numbers.with_error(value, error if math.isfinite(error) else None)
    return f"+{text}" if value > 0 else text


def _interval(ends: Sequence[float], unit: str, samples: int, write: Callable[[float], str] | None = None) -> str:
    if not all(map(math.isfinite, ends)):
        return ""
    write = write or (lambda end: numbers.fixed(end, 1))
    return f"95 % interval {write(ends[0])} to {write(ends[1])}{unit}, {samples:,} samples"


def notices(model: ExplorerModel, entries: Sequence[Entry]) -> list[str]:
    """Where KL is decided one way between two plans, and the loss or the metric the other way."""
    found = []
    for index, one in enumerate(entries):
        for other in entries[index + 1 :]:
            pair = model.comparison.pair(one.measurement, other.measurement)
            if pair is not None and pair.compared.disagreement:
                found.append(f"{one.letter} against {other.letter}: {pair.compared.disagreement}.")
    return found


def offered(model: ExplorerModel) -> list[Json]:
    """The plans that may be added, in groups: uniform ones, saved ones, other measured ones by size, and earlier states of this plan."""
    here, out = model.plan, set(model.comparison.added)
    measured = model.measured_plans()
    uniform = {digest: bits for digest in measured if (bits := model.uniform_bits(digest)) is not None}
    size = here.bytes if here else 0
    nearest = sorted((digest for digest in measured if digest not in uniform), key=lambda digest: abs(measured[digest].bytes - size))[
        :_MOST_OFFERED
    ]
    record = model.record.plans  # by digest: working a digest out again takes as long as all the rest of a row
    by_width = sorted(uniform, key=uniform.__getitem__)
    by_size = sorted(nearest, key=lambda digest: measured[digest].bytes)
    groups = [
        ("Uniform", [(digest, name_of(model, record[digest], digest), record[digest]) for digest in by_width]),
        ("Saved", [(plan.digest, name, plan) for name, plan in model.saved.as_plans(model).items()]),
        ("Measured, nearest in size", [(digest, name_of(model, record[digest], digest), record[digest]) for digest in by_size]),
        ("History of this plan", _states(model)),
    ]
    return [
        {"label": label, "items": items}
        for label, plans in groups
        if (items := [_item(model, digest, name, plan) for digest, name, plan in plans if digest not in out])
    ]


def plan_of(model: ExplorerModel, digest: str) -> Plan:
    """A plan that may be compared, by its digest.

    Raises:
        ParedownError: If there is none.
    """
    saved = {plan.digest: plan for plan in model.saved.as_plans(model).values()}
    states = {known: plan for known, _, plan in _states(model)}
    found = model.comparison.find(model, digest) or saved.get(digest) or states.get(digest)
    if found is None:
        raise ParedownError(f"this study has no plan {digest}; open the menu again, the plan may have been edited meanwhile")
    return found


def _states(model: ExplorerModel) -> list[tuple[str, str, Plan]]:
    """What the plan is and was while it was edited, the latest first."""
    plans = [("This plan as it is now", model.plan)]
    if model.reference is not None and model.measurement() is None:
        plans.append(("Before the edits, measured", model.make_plan(model.reference)))
    plans += [(f"Before: {step.label}", model.make_plan(step.schemes)) for step in model.editor.steps[: -_MOST_EDITS - 1 : -1]]
    first = {digest: (digest, name, plan) for name, plan in reversed(plans) if plan is not None for digest in [plan.digest]}
    return list(reversed(first.values()))


def _item(model: ExplorerModel, digest: str, name: str, plan: Plan) -> Json:
    m = model.record.measurements.get(digest)
    words = numbers.size(m.bytes if m else plan.bytes)
    words += (
        f", KL {numbers.quantity(m.kl, m.kl_sd)}"
        if m and m.kl is not None
        else f", {numbers.metric_text(m.metric)}"
        if m
        else ", predicted"
    )
    return {"digest": digest, "name": name, "note": words, "measured": m is not None}
