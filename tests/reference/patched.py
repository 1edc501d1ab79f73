"""The slow obvious way to take what `paredown_widgets.difference` tells."""

from __future__ import annotations

from typing import Any


def patched(old: Any, change: Any) -> Any:
    """The value that a change, read from JSON, makes of `old`."""
    if isinstance(change, list):
        if len(change) == 1:
            return change[0]
        start, count, added = change
        return [*old[:start], *added, *old[start + count :]]
    if isinstance(old, list):
        return [patched(value, change[str(place)]) if str(place) in change else value for place, value in enumerate(old)]
    kept = {key: patched(value, change[key]) if key in change else value for key, value in old.items() if change.get(key) != []}
    return kept | {key: inner[0] for key, inner in change.items() if key not in old}
