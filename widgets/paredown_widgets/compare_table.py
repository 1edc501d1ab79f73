"""The comparison for programs: the same plans and figures as the view shows, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from paredown.errors import ParedownError
from paredown.specs import KEEP, Plan, Scheme
from paredown_widgets.compare import bytes_of, metric_change, timing_of
from paredown_widgets.comparison import KINDS, Kind
from paredown_widgets.flips import flips_of
from paredown_widgets.model import ExplorerModel
from paredown_widgets.summary import bits_per_weight

Json = dict[str, Any]
Given = Plan | Mapping[str, Scheme | str] | str


def compare_plans(model: ExplorerModel, plans: Sequence[Given]) -> pd.DataFrame:
    """Compare these plans with the one in the user's hands; without any, those that are compared already.

    Raises:
        ParedownError: If there are too many, or one is unknown.
    """
    comparison = model.comparison
    with model.lock:
        found = [_found(model, plan) for plan in plans]
        if found:
            comparison.added = ()
        for plan in found:
            comparison.add(model, plan)
        comparison.opened = True
    comparison.work(model)
    model.changed()
    with model.lock:
        return table(model)


def flips_table(model: ExplorerModel, kind: Kind) -> pd.DataFrame:
    """Every flipped answer of a kind.

    Raises:
        ParedownError: If there is no such kind, or no answers are known.
    """
    if kind not in KINDS:
        raise ParedownError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    model.comparison.opened = True
    model.comparison.work(model)
    with model.lock:
        known = flips_of(model)
        if known is None:
            raise ParedownError(
                "no answers are known: none of the compared plans was measured with its answers kept; measure one, or measure it again"
            )
        flips, entries = known
        return flips.table([entry.letter for entry in entries], kind)


def _found(model: ExplorerModel, plan: Given) -> Plan:
    if isinstance(plan, Plan):
        return plan
    if isinstance(plan, str):
        digests = [digest for digest in model.record.plans if digest.startswith(plan)]
        if len(digests) != 1:
            raise ParedownError(f"expected the first digits of one plan's digest, got {plan!r}, with which {len(digests)} begin")
        return model.record.plans[digests[0]]
    unknown = set(plan) - set(model.editor.schemes)
    if unknown:
        raise ParedownError(f"the plan names layers that this study does not have: {', '.join(sorted(unknown))}")
    schemes = {name: scheme if isinstance(scheme, Scheme) else Scheme.parse(scheme) for name, scheme in plan.items()}
    made = model.make_plan({name: schemes.get(name, KEEP) for name in model.editor.schemes})
    if made is None:
        raise ParedownError("plans can be compared once the model's layers are known; run the study first")
    return made


def table(model: ExplorerModel) -> pd.DataFrame:
    """The same figures for programs: one row a plan, by its letter. Shares are fractions, a change of a perplexity is relative."""
    info, baseline, entries = model.record.info, model.record.baseline, model.comparison.entries(model)
    if info is None or not entries:
        raise ParedownError("plans can be compared once the model's layers are known; run the study first")
    records = []
    for entry in entries:
        m, metric, original = entry.measurement, info.metric.replace(" ", "_"), model.comparison.original(model)
        predicted = entry.plan.loss_increase if info.loss == "kl" else None
        record: Json = {
            "plan": entry.plan.digest,
            "name": entry.name,
            "measured": m is not None,
            "n": m.n if m else None,
            "bytes": bytes_of(entry),
        }
        record |= {"bits_per_weight": bits_per_weight(model, bytes_of(entry)), metric: m.metric.value if m else None}
        for name, other in (("original", baseline), ("A", entries[0].measurement)):
            pair = model.comparison.pair(m, other)
            found = metric_change(info, pair.compared.metric) if pair else (None,) * 4
            record |= dict(zip([f"change_to_{name}{end}" for end in ("", "_sd", "_low", "_high")], found, strict=True))
        record |= {"kl": m.kl if m else predicted, "kl_sd": m.kl_sd if m else entry.plan.loss_increase_sd if info.loss == "kl" else None}
        record["loss_increase"] = m.loss - m.baseline_loss if m and m.loss is not None and m.baseline_loss is not None else None
        known = entry.outcomes is not None and original is not None and entry.outcomes.answered and original.answered
        record["flipped"] = int(entry.outcomes.changed(original).sum()) if known and entry.outcomes and original else None
        record["units"] = len(entry.outcomes.answers) if known and entry.outcomes else None
        record |= dict(zip(("seconds_per_token", "seconds_per_token_sd"), timing_of(model, entry), strict=True))
        records.append(record)
    return pd.DataFrame(records, index=pd.Index([entry.letter for entry in entries], name="letter"))
