"""Candidates and a budget in, plans and the Pareto front out. Plain numbers, no torch."""

from paredown.search.allocation import allocate
from paredown.search.front import Front, measured_front, pareto_front
from paredown.search.problem import Prediction, Problem

__all__ = ["Front", "Prediction", "Problem", "allocate", "measured_front", "pareto_front"]
