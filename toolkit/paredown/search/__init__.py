"""Candidates and a budget in, plans and the Pareto front out. Plain numbers, no torch."""

from paredown.search.allocation import Allocation, allocate, best_plan
from paredown.search.bisection import Lowered, lower_to_target
from paredown.search.classics import CLASSICS, Classic, compare
from paredown.search.constraints import Constraints, narrowed
from paredown.search.front import Front, measured_front, pareto_front
from paredown.search.integer_program import Budget
from paredown.search.interactions import Interactions, augmented_order, measure_interactions
from paredown.search.mixes import TradeOffs, trade_offs
from paredown.search.monotone import MonotoneFront, monotone_front
from paredown.search.paired import Difference, difference
from paredown.search.pairwise import allocate_pairs
from paredown.search.problem import Objective, Prediction, Problem
from paredown.search.ranks import Agreement, agreement_table, rank_agreement
from paredown.search.refinement import Refinement
from paredown.search.resources import Resource, bit_operations
from paredown.search.sensitivities import Sensitivity
from paredown.search.trials import Improvement, Request
from paredown.specs import Score

__all__ = [
    "CLASSICS",
    "Agreement",
    "Allocation",
    "Budget",
    "Classic",
    "Constraints",
    "Difference",
    "Front",
    "Improvement",
    "Interactions",
    "Lowered",
    "MonotoneFront",
    "Objective",
    "Prediction",
    "Problem",
    "Refinement",
    "Request",
    "Resource",
    "Score",
    "Sensitivity",
    "TradeOffs",
    "agreement_table",
    "allocate",
    "allocate_pairs",
    "augmented_order",
    "best_plan",
    "bit_operations",
    "compare",
    "difference",
    "lower_to_target",
    "measure_interactions",
    "measured_front",
    "monotone_front",
    "narrowed",
    "pareto_front",
    "rank_agreement",
    "trade_offs",
]
