"""Second line: where the run is, how long it will take, and what can be done about it."""

from __future__ import annotations

import sys
import time
from typing import Any

from paredown.specs import Stage
from paredown_widgets import numbers
from paredown_widgets.model import ExplorerModel

STAGES: tuple[tuple[Stage, str, str, str], ...] = (
    ("load", "Load", "Loading model and data", "step"),
    ("spectra", "Spectra", "Estimating spectra", "layer"),
    ("baseline", "Baseline", "Measuring the original", "step"),
    ("sensitivity", "Sensitivity", "Estimating sensitivity", "layer"),
    ("search", "Search", "Searching plans", "plan"),
    ("measure", "Measure", "Measuring plans", "plan"),
    ("hessian", "Hessian", "Estimating the Hessian", "layer"),
)
_CAN = {
    "idle": ["run"],
    "running": ["pause", "cancel"],
    "paused": ["resume", "cancel"],
    "failed": ["run"],
    "cancelled": ["run"],
    "done": [],
    "watching": [],
}


def state_of(model: ExplorerModel) -> str:
    """The record's state, seen from here: a run of another process is watched, one that died is over."""
    state, study = model.record.state, model.study
    if model.running:
        return "paused" if study.paused else "running"
    if state in ("running", "paused"):
        return "watching" if alive_elsewhere(model) else "cancelled"
    return state


def alive_elsewhere(model: ExplorerModel) -> bool:
    """Whether another process holds the study; asked at most every two seconds, since asking takes its lock for a moment."""
    asked, answer = model.elsewhere
    if time.monotonic() - asked > 2.0:
        answer = model.study.busy_elsewhere
        model.elsewhere = (time.monotonic(), answer)
    return answer


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `run` trait."""
    record, state = model.record, state_of(model)
    ids = [stage for stage, *_ in STAGES]
    at = ids.index(record.stage) if record.stage in ids else len(ids) - 1
    words = STAGES[at]
    interrupted = state == "cancelled" and record.state in ("running", "paused")
    finished = state == "done"
    label = {
        "idle": "Not run yet",
        "paused": "Paused",
        "failed": f"{words[1]} failed",
        "cancelled": "Stopped" if interrupted else "Cancelled",
        "done": "Done",
    }.get(state, words[2])
    message, remedy = "", ""
    if state == "failed":
        message, _, remedy = record.message.partition("; ")
    elif state in ("paused", "cancelled"):
        message = "everything so far is saved"
    elif state == "watching":
        message = "runs in another process"
    busy = state in ("running", "watching")
    left, rate = _pace(model) if busy else ("", "")
    curved = record.curvature.values()
    have = {
        "spectra": any(each.density for layer in curved for each in layer.values()), "baseline": record.baseline is not None, "sensitivity": record.sensitivity_complete, "search": len(record.plans) > 1,
        "measure": model.measurements > 0, "hessian": any("hessian" in layer for layer in curved),
    }  # fmt: skip
    counted = f"{record.done} of {record.total}" if record.total and not finished else ""
    return {
        "state": state,
        "stages": [
            {
                "id": stage,
                "label": name,
                "state": "now"
                if i == at and state != "idle" and not finished
                else "done"
                if finished or i < at or have.get(stage)
                else "todo",
            }
            for i, (stage, name, *_) in enumerate(STAGES)
        ],
        "share": min(1.0, record.done / record.total) if record.total else 0.0,
        "label": label,
        "detail": f"{model.measurements} plans measured" if finished else counted,
        "left": left,
        "rate": rate,
        "memory": _memory() if model.running else "",
        "message": message,
        "remedy": remedy,
        "can": [] if model.offline else _CAN[state],
    }


def _pace(model: ExplorerModel) -> tuple[str, str]:
    """Time left and time per step, of the steps of this stage that this run has made."""
    record = model.record
    if not record.total or not record.done or record.time <= record.stage_started:
        return "", ""
    each = (record.time - record.stage_started) / record.done
    unit = next((unit for stage, *_, unit in STAGES if stage == record.stage), "step")
    return f"{numbers.clock(each * (record.total - record.done))} left", f"{numbers.duration(each)} per {unit}"


def _memory() -> str:
    """Largest resident size of this process; nothing where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return numbers.size(round(peak * (1 if sys.platform == "darwin" else 1024), -8) or None)
