"""Candidates and a budget in, plans and the Pareto front out. Plain numbers, no torch."""

from paredown.search.allocation import allocate
from paredown.search.front import Front, measured_front, pareto_front
from paredown.search.problem import Objective, Prediction, Problem
from paredown.search.sensitivities import Sensitivity

__all__ = ["Front", "Objective", "Prediction", "Problem", "Sensitivity", "allocate", "measured_front", "pareto_front"]
