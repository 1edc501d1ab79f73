"""The allocators of the literature by name, side by side at one budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paredown.errors import ParedownError
from paredown.search.allocation import allocate
from paredown.search.constraints import Constraints, narrowed
from paredown.search.monotone import monotone_front
from paredown.search.problem import Objective, Problem
from paredown.search.resources import Resource
from paredown.specs import Scheme

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Classic:
    """An allocator of the literature.

    Attributes:
        name: What it is called.
        source: Authors or product, year.
        objective: What it sums (`Problem.costs`).
        formula: The score of one change, in plain signs.
        monotone: Whether bits may not rise as the sensitivity falls, instead of an integer program.
    """

    name: str
    source: str
    objective: Objective
    formula: str
    monotone: bool = False


CLASSICS = (
    Classic("HAWQ", "Dong et al., 2019", "top_eigenvalue", "½ λ_max ‖ΔW‖²"),
    Classic("Q-BERT", "Shen et al., 2020", "slices", "½ (|mean λ_max| + std λ_max over slices of the data) ‖ΔW‖²"),
    Classic("HAWQ-V2", "Dong et al., 2020", "trace", "½ tr(H)/n ‖ΔW‖²", monotone=True),
    Classic("HAWQ-V3", "Yao et al., 2021", "trace", "½ tr(H)/n ‖ΔW‖²"),
    Classic("LQ-LoRA", "Guo et al., 2024", "fisher", "Σ F ΔW², F the squared gradients summed over samples"),
    Classic("K-FAC", "Martens and Grosse, 2015", "kfac", "½ ⟨ΔW, G ΔW A⟩"),
    Classic("EK-FAC", "George et al., 2018", "ekfac", "½ Σ Λ (QᵀΔW Q)²"),
    Classic("AutoQuantize", "NVIDIA ModelOpt, 2024", "modelopt", "Σ (∂L/∂y · Δy)² over tokens and outputs"),
    Classic("AutoScheme", "Intel AutoRound, 2025", "delta_loss", "Σ |∂L/∂W ΔW| over weights, batch after batch"),
    Classic("weight error", "", "weight_error", "‖ΔW‖²"),
    Classic("output error", "", "output_error", "n ‖ΔW x‖² / ‖W x‖²"),
    Classic("measured", "", "measured_loss", "loss with this layer alone changed, less that of the original"),
    Classic("Paredown", "", "guarded_loss", "(½ ⟨ΔW, G ΔW⟩ shrunk + 2σ) (1 + 10 e)"),
)
"""All of them. HAWQ-V3's program and LQ-LoRA's differ in nothing but the score; both may take any resource and constraint."""


def compare(
    problem: Problem,
    budget: float,
    *,
    classics: Sequence[Classic] = CLASSICS,
    ladder: Sequence[Scheme] = (),
    resource: Resource = "bytes",
    constraints: Constraints | None = None,
) -> pd.DataFrame:
    """Each allocator's plan at the same budget.

    Args:
        problem: The choices.
        budget: Largest amount of the resource.
        classics: Which allocators.
        ladder: Schemes of HAWQ-V2 from most bits to fewest; none leaves those out that need one. There, a group that does not offer all of
            them gets the smallest that it offers.
        resource: What the budget limits; HAWQ-V2's enumeration knows bytes alone.
        constraints: What the plans must hold to; HAWQ-V2's enumeration takes what narrows the choices, and no limit on their number.

    Returns:
        One row each, by name: ``source``, ``formula``, ``bytes``, ``loss_increase`` (predicted, nats per unit; it ranks plans, it is
        no result), ``schemes``, and ``refused``: why there is no plan, empty where there is one.
    """
    import pandas as pd  # half a second that only tables should cost

    rows = {}
    for classic in classics:
        try:
            schemes = plan_of(classic, problem, budget, ladder=ladder, resource=resource, constraints=constraints)
        except ParedownError as error:
            rows[classic.name] = (classic.source, classic.formula, None, None, None, str(error))
        else:
            predicted = problem.predict(schemes)
            rows[classic.name] = (classic.source, classic.formula, predicted.bytes, predicted.loss_increase, schemes, "")
    columns = ["source", "formula", "bytes", "loss_increase", "schemes", "refused"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("name")


def ladder_of(problem: Problem) -> tuple[Scheme, ...]:
    """The number formats alone that all groups offer, from most bits to fewest; of equally many the first."""
    found: dict[float, Scheme] = {}
    for scheme in problem.schemes[0]:
        plain = scheme.weight is not None and scheme.sparsity is None and scheme.low_rank is None
        if plain and all(scheme in offered for offered in problem.schemes):
            found.setdefault(scheme.nominal_bits, scheme)
    return tuple(found[bits] for bits in sorted(found, reverse=True))


def plan_of(
    classic: Classic,
    problem: Problem,
    budget: float,
    *,
    ladder: Sequence[Scheme] = (),
    resource: Resource = "bytes",
    constraints: Constraints | None = None,
) -> dict[str, Scheme]:
    """One allocator's plan; the arguments are those of `compare`.

    Raises:
        ParedownError: If it has none, for want of its scores, a ladder or room.
    """
    if not classic.monotone:
        return allocate(problem, budget, objective=classic.objective, resource=resource, constraints=constraints)
    if not ladder or resource != "bytes" or (constraints is not None and constraints.distinct is not None):
        raise ParedownError(f"{classic.name} enumerates plans of a ladder of schemes by size; name the ladder, and limit bytes alone")
    left = narrowed(problem, constraints or Constraints())
    masks = [
        np.full(len(offered), True) if all(scheme in offered for scheme in ladder) else np.arange(len(offered)) == size.argmin()
        for offered, size in zip(left.schemes, left.bytes, strict=True)
    ]
    front = monotone_front(left.narrowed(masks), ladder).front  # its cost is the trace's
    index = front.within(budget)
    if index is None:
        raise ParedownError(
            f"no monotone plan fits into {budget:,.0f} bytes: the smallest has {front.amounts[0]:,} bytes; raise the budget"
        )
    return front.schemes(index)
