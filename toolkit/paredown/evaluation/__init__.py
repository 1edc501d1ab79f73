"""Hundreds of plans in the time that building and running each of them takes for a few."""

from paredown.evaluation.evaluator import APPROXIMATE, Evaluator
from paredown.evaluation.weights import Precision

__all__ = ["APPROXIMATE", "Evaluator", "Precision"]
