"""First line: the yardsticks that never scroll away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paredown_widgets import numbers
from paredown_widgets.model import ExplorerModel


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `head` trait."""
    record, info = model.record, model.record.info
    baseline = record.baseline
    dtype = record.layers[0].dtype if record.layers else ""
    return {
        "model": info.label if info else model.config.model,
        "task": info.task_label if info else model.config.task if model.config.task != model.config.model else "",
        "notice": info.notice if info else "",
        "metric": numbers.capital(info.metric) if info else "",
        "baseline": f"{numbers.metric_text(baseline.metric)}, n {baseline.n}" if baseline else numbers.NONE,
        "original": f"{numbers.size(info.bytes)} {dtype}".strip() if info else numbers.NONE,
        "study": Path(model.study.store.folder).name,
        "split": "held-out",
        "rule": numbers.RULE,
        "fused": any(len(group) > 1 for group in model.editor.groups.values()),
    }
