"""The history of the user's plan: what was done, what was undone, and where it stands."""

from __future__ import annotations

from typing import Any

from paredown_widgets.model import ExplorerModel

_SHOWN = 60


def view(model: ExplorerModel) -> dict[str, Any]:
    """State of the `steps` trait: places to go to, the latest first; place n is the plan after n steps."""
    done, undone = model.editor.steps, model.editor.undone
    labels = [step.label for step in (*done, *undone)]
    rows = [{"place": place, "label": label, "undone": place > len(done)} for place, label in enumerate(labels, 1)]
    rows.insert(0, {"place": 0, "label": "the plan that it began with", "undone": False})
    return {"rows": rows[::-1][max(0, len(undone) - _SHOWN // 2) :][:_SHOWN], "place": len(done)}
