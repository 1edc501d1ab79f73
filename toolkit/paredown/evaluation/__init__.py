"""What models answer, how plans compare with the original, and hundreds of plans in the time that a naive loop takes for a few."""

from paredown.evaluation.comparison import EMULATED, compare, divergence, interval
from paredown.evaluation.evaluator import APPROXIMATE, Evaluator
from paredown.evaluation.observation import Observation, observe
from paredown.evaluation.outcomes import outcomes
from paredown.evaluation.output_errors import output_errors
from paredown.evaluation.paired import Compared, compare_samples
from paredown.evaluation.screening import Screen, Verdict, front_at
from paredown.evaluation.search_split import SearchSplit

__all__ = [
    "APPROXIMATE",
    "EMULATED",
    "Compared",
    "Evaluator",
    "Observation",
    "Screen",
    "SearchSplit",
    "Verdict",
    "compare",
    "compare_samples",
    "divergence",
    "front_at",
    "interval",
    "observe",
    "outcomes",
    "output_errors",
]
