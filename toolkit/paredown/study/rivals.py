"""What the allocators of the literature would have chosen for a study, and how far their scores agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from paredown.errors import ParedownError
from paredown.record import Record
from paredown.search import Problem, Sensitivity, agreement_table, compare
from paredown.search.problem import Objective
from paredown.specs import KEEP, Scheme, Score
from paredown.study.steps import UniformSizes, plan_of

if TYPE_CHECKING:
    import pandas as pd

OWN: tuple[Objective, ...] = ("guarded_loss", "loss_increase", "output_error", "weight_error")


def classics(record: Record, problem: Problem, bits: float, seed: int = 0) -> pd.DataFrame:
    """Each allocator's plan at the bytes of a uniform plan, and what was measured of it.

    Args:
        record: Of the study.
        problem: Of the study.
        bits: Of the uniform plan.
        seed: The study's.

    Returns:
        As `paredown.search.compare`, with ``plan``, the digest, and ``kl``, held out, where that plan was measured.

    Raises:
        ParedownError: If no uniform plan has so many bits, or nothing is known of the model.
    """
    if record.info is None:
        raise ParedownError("allocators can be compared once the layers are priced; run the study first")
    info, budget = record.info, UniformSizes.of(record.plans.values()).at(bits)
    table = compare(problem, budget, ladder=_ladder(problem))
    plans = [None if schemes is None else plan_of(info, problem, schemes, "", seed).digest for schemes in table.schemes]
    measured = [None if digest not in record.measurements else record.measurements[digest].kl for digest in plans]
    table.insert(4, "plan", plans)
    table.insert(5, "kl", measured)
    return table


def agreement(problem: Problem, objectives: Sequence[Objective] | None = None, scheme: Scheme | None = None, seed: int = 0) -> pd.DataFrame:
    """Rank agreement between any two objectives; see `paredown.search.agreement_table`.

    Args:
        problem: Of the study.
        objectives: Which; None takes all that the study knows, its own first.
        scheme: Rank the groups at this scheme only; None ranks all choices.
        seed: Of the bootstrap.

    Raises:
        ParedownError: If an objective is not known.
    """
    every: tuple[Objective, ...] = (*OWN, *get_args(Sensitivity), *get_args(Score))
    return agreement_table(problem, objectives or [each for each in every if _known(problem, each)], scheme=scheme, seed=seed)


def _known(problem: Problem, objective: Objective) -> bool:
    try:
        problem.costs(objective)
    except ParedownError:
        return False
    return True


def _ladder(problem: Problem) -> list[Scheme]:
    """The schemes that most groups offer from most bits to fewest, one of each width."""
    (usual, _), *_ = Counter(problem.schemes).most_common(1)
    rising = sorted((scheme for scheme in usual if scheme != KEEP), key=lambda scheme: scheme.nominal_bits)
    return [*{scheme.nominal_bits: scheme for scheme in rising}.values()][::-1]
