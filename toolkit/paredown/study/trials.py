"""Plans on the search split of a session: what measured refinement asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paredown.evaluation.search_split import SearchSplit
from paredown.specs import Plan, RefineObjective
from paredown.study.session import Session


@dataclass(frozen=True, eq=False, slots=True)
class Try:
    """A plan to run on some samples of the search split.

    Attributes:
        plan: The plan.
        pieces: Places of the samples, as `SearchSplit.losses` takes them.
    """

    plan: Plan
    pieces: Sequence[np.ndarray]


def search_split(session: Session) -> SearchSplit:
    """The search split of a session.

    Raises:
        ParedownError: If the task does not offer what the objective needs.
    """
    config = session.config
    samples = config.search_samples or sum(len(batch.ids) for batch in session.held_out)
    return SearchSplit(session.evaluator, config.calibration_samples, samples, _objective(session))


def _objective(session: Session) -> RefineObjective:
    asked = session.config.refine_objective
    if asked == "kl" and not session.task.offers_probabilities:
        return "loss"  # what the candidates were priced by, too
    return asked
