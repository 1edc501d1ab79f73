"""What waits to be measured: the plans that a person asked for, then those of the run; and the sizes that go first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paredown.errors import ParedownError
from paredown.search import allocate
from paredown.specs import Plan
from paredown_widgets import numbers
from paredown_widgets.model import ExplorerModel

Json = dict[str, Any]
_SHOWN = 40  # rows of the run's own plans
_HERE = 3  # plans that are asked for where nothing runs and a region is to be looked at first


def view(model: ExplorerModel) -> Json:
    """State of the `queue` trait."""
    if model.offline:
        return {"rows": [], "note": "", "priority": None, "empty": "Nothing waits in a saved report."}
    queued = {plan.digest: plan for plan in model.study.queued}
    waiting = [*queued]
    wished = {**queued, **model.asked}  # another view of the study may have asked too
    own = sorted(wished.values(), key=lambda plan: _place(model, plan.digest, waiting))
    rows = [_row(model, plan, _state(model, plan.digest, waiting)) for plan in own]
    planned = [plan for plan in _planned(model) if plan.digest not in queued]
    rows += [_row(model, plan, "planned" if model.running else "stopped") for plan in planned[:_SHOWN]]
    left = len(planned) - _SHOWN
    wanted = model.record.priority
    sizes = wanted and {"low": wanted.low_bytes, "high": wanted.high_bytes, "text": region_text(wanted.low_bytes, wanted.high_bytes)}
    return {
        "rows": rows,
        "count": f"{len(own) + len(planned)} waiting" if rows else "",
        "note": f"and {left} more of the run" if left > 0 else "",
        "priority": sizes,
        "empty": "" if rows else "Nothing waits to be measured. Measure puts your plan here, ahead of the run's own.",
    }


def look(model: ExplorerModel) -> bool:
    """Whether what waits is something else than at the last look: another view of the study may have asked, or taken back."""
    now = () if model.offline else tuple(plan.digest for plan in model.study.queued)
    before, model.queue_seen = model.queue_seen, now
    return now != before


def region_text(low: float, high: float) -> str:
    """A range of sizes in words: ``9.1 to 11.2 MB``."""
    return f"{numbers.significant(low / 1e6)} to {numbers.significant(high / 1e6)}{numbers.SPACE}MB"


def queue(model: ExplorerModel, plan: Plan) -> None:
    """Have a plan measured; it is queued when this returns. Where that fails it stays asked for."""
    model.pending.add(plan.digest)
    model.asked[plan.digest] = plan
    model.touched = True
    try:
        model.study.measure(dict(plan.schemes))
    except BaseException:
        model.pending.discard(plan.digest)
        raise


def first(model: ExplorerModel, digest: str) -> None:
    """Measure a plan before the others, whether a person or the run wanted it.

    Raises:
        ParedownError: If it does not wait any more, or can't be measured now.
    """
    if digest not in [plan.digest for plan in model.study.queued]:
        queue(model, _plan(model, digest))
    if digest in [plan.digest for plan in model.study.queued]:  # otherwise it has begun meanwhile
        model.study.hasten(digest)


def remove(model: ExplorerModel, digest: str) -> None:
    """Take back a plan that a person asked for.

    Raises:
        ParedownError: If it is being measured, or is one of the run's own.
    """
    if digest not in model.asked:
        raise ParedownError("that plan is one of the run's own; cancel the run to leave it out")
    if digest in [plan.digest for plan in model.study.queued]:
        model.study.withdraw(digest)
    elif digest in model.pending and model.running:
        raise ParedownError("that plan is being measured; it takes a moment, or cancel the run")
    model.pending.discard(digest)
    del model.asked[digest]
    model.touched = True


def look_here_first(model: ExplorerModel, low: float, high: float) -> None:
    """Have plans of these sizes measured, and searched for, before others. Where nothing runs, up to three of them are asked for.

    Raises:
        ParedownError: If the sizes are the wrong way round, or none is positive.
    """
    model.study.prioritise(round(low), round(high))
    if not high or model.running:
        return
    there = [plan for plan in _planned(model) if low <= plan.bytes <= high] or _optima(model, low, high)
    for plan in there[:_HERE]:
        queue(model, plan)


def _optima(model: ExplorerModel, low: float, high: float) -> list[Plan]:
    """The predicted optima at some sizes of a region that were not measured yet."""
    problem, found = model.problem, dict[str, Plan]()
    if problem is None:
        raise ParedownError("plans are found once every layer is priced; run the sensitivity stage first")
    least = max(low, problem.smallest_bytes)
    for budget in np.geomspace(least, max(high, least), _HERE + 1)[1:]:  # a plan is below its budget
        plan = model.make_plan(allocate(problem, int(budget)), "user")
        if plan is not None and low <= plan.bytes <= high and plan.digest not in model.record.measurements:
            found[plan.digest] = plan
    if not found:
        raise ParedownError(
            f"the predicted optima of {region_text(low, high)} are measured already; edit a plan there, or widen the region"
        )
    return list(found.values())


def _plan(model: ExplorerModel, digest: str) -> Plan:
    plan = model.asked.get(digest) or model.record.plans.get(digest)
    if plan is None or digest in model.record.measurements:
        raise ParedownError(f"the plan {digest} does not wait any more; it was measured or taken back")
    return plan


def _planned(model: ExplorerModel) -> list[Plan]:
    """The run's own, those of the wanted sizes first."""
    wanted, record = model.record.priority, model.record

    def make() -> list[Plan]:
        left = [p for digest, p in record.plans.items() if digest not in record.measurements and digest not in model.asked and p.schemes]
        return sorted(left, key=lambda plan: not (wanted is not None and wanted.holds(plan.bytes)))

    return model.kept("planned", (record.sequence, wanted, tuple(model.asked)), make)


def _place(model: ExplorerModel, digest: str, waiting: Sequence[str]) -> int:
    """What is being measured, then what waits, then what was left from before."""
    if digest in waiting:
        return waiting.index(digest)
    return -1 if digest in model.pending else len(waiting)


def _state(model: ExplorerModel, digest: str, waiting: Sequence[str]) -> str:
    if digest in waiting:
        return "waits"
    return "measuring" if digest in model.pending else "left"


_CAN = {"measuring": [], "waits": ["first", "remove"], "left": ["first", "remove"], "planned": ["first"], "stopped": ["first"]}
_WORDS = {
    "measuring": "being measured", "waits": "waits", "left": "was not measured before the study was closed", "planned": "planned by the run", "stopped": "the run is stopped",
}  # fmt: skip


def _row(model: ExplorerModel, plan: Plan, state: str) -> Json:
    known, own = model.record.plans.get(plan.digest), plan.digest in model.asked
    words = ["Your plan"] if own or known is not None else ["Plan of another view"]
    if known is not None and known.found_by != "user":
        words = known.found_by.split(", ", 1)
    return {
        "digest": plan.digest,
        "label": words[0],
        "title": "\n".join([*words, f"plan {plan.digest}"]),
        "size": numbers.size(plan.bytes or None),
        "predicted": numbers.quantity(plan.loss_increase, plan.loss_increase_sd),
        "state": state,
        "words": _WORDS[state],
        "can": [does for does in _CAN[state] if own or does == "first"],  # another's plan is theirs to take back
        "own": own,
    }
