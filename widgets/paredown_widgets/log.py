"""The run's own lines."""

from __future__ import annotations

import time
from typing import Any

from paredown_widgets.model import ExplorerModel

_LINES = 200
_LEVELS = {"error": "error", "notice": "warning"}


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `log` trait."""
    return {
        "lines": [
            {
                "time": time.strftime("%H:%M:%S", time.localtime(event.time)),
                "stage": event.stage,
                "level": _LEVELS.get(event.kind, "info"),
                "text": event.message,
            }
            for event in model.record.log[-_LINES:]
        ]
    }
