"""What pairs of layers lose together beyond what each loses alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paredown_widgets import numbers
from paredown_widgets.figures.heat_map import heat_map
from paredown_widgets.labels import group_text

if TYPE_CHECKING:
    from paredown_widgets.model import ExplorerModel

Json = dict[str, Any]
_TOP = 4
_UNITS = {"kl": "nats of KL", "loss": "nats"}


def view(model: ExplorerModel) -> Json:
    """State of the `interactions` trait."""
    known = model.record.interactions
    if known is None or len(known.groups) < 2:
        asked = model.config.interactions
        empty = (
            "What pairs of layers lose together appears here once it is measured."
            if asked
            else "Not measured: a study with interactions=300 runs up to so many plans for what pairs of layers lose together."
        )
        return {"figure": None, "pairs": [], "note": "", "label": "", "sub": "", "empty": empty}
    count = len(known.groups)
    ranked = sorted(((i, j) for i in range(count) for j in range(i)), key=lambda pair: -abs(known.pairs[pair[0]][pair[1]]))
    sure = sum(abs(known.pairs[i][j]) > 2 * known.pairs_sd[i][j] for i, j in ranked)
    unit = _UNITS.get(known.objective, model.record.info.metric if model.record.info else "metric")
    left = known.groups_of_model - count
    return {
        "figure": heat_map(model, known),
        "groups": [list(group) for group in known.groups],
        "pairs": [
            {
                "layers": [*known.groups[j], *known.groups[i]],
                "label": f"{group_text(model.labels, known.groups[j])} with {group_text(model.labels, known.groups[i])}",
                "value": numbers.signed(known.pairs[i][j], known.pairs_sd[i][j]),
            }
            for i, j in ranked[:_TOP]
        ],
        "sub": f"of {known.scheme}, {unit}",
        "note": f"{sure} of {len(ranked)} pairs are beyond two standard errors, on {known.n:,} samples of the search split."
        + (f" {left} more groups, of lower predicted loss, were not measured." if left > 0 else ""),
        "label": f"Pair terms of {count} groups of layers at {known.scheme}; {sure} of {len(ranked)} are beyond two standard errors.",
        "empty": "",
    }
