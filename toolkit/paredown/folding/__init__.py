"""Scales of a layer's inputs, folded into whatever makes them: the model's function stays as it is, and its weights become easier to round."""

from paredown.folding.find import Found, find_foldings
from paredown.folding.foldings import Folding, Refused, fold_, folded
from paredown.folding.inputs import Seen, seen_by
from paredown.folding.scales import Scaled, round_, scale_
from paredown.folding.verify import relative_change, verified

__all__ = [
    "Folding",
    "Found",
    "Refused",
    "Scaled",
    "Seen",
    "find_foldings",
    "fold_",
    "folded",
    "relative_change",
    "round_",
    "scale_",
    "seen_by",
    "verified",
]
