"""Candidates and a budget in, plans and the Pareto front out. Plain numbers, no torch."""

from paredown.search.allocation import Allocation, allocate, allocation
from paredown.search.constraints import Constraints, narrowed
from paredown.search.front import Front, measured_front, pareto_front
from paredown.search.problem import Objective, Prediction, Problem, Score
from paredown.search.resources import Resource, bit_operations
from paredown.search.sensitivities import Sensitivity

__all__ = [
    "Allocation",
    "Constraints",
    "Front",
    "Objective",
    "Prediction",
    "Problem",
    "Resource",
    "Score",
    "Sensitivity",
    "allocate",
    "allocation",
    "bit_operations",
    "measured_front",
    "narrowed",
    "pareto_front",
]
