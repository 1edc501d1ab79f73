"""Hundreds of plans in the time that building and running each of them takes for a few."""

from paredown.evaluation.evaluator import APPROXIMATE, Evaluator
from paredown.evaluation.output_errors import output_errors
from paredown.evaluation.screening import Screen, Verdict, front_at
from paredown.evaluation.weights import Precision

__all__ = ["APPROXIMATE", "Evaluator", "Precision", "Screen", "Verdict", "front_at", "output_errors"]
