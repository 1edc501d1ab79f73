"""One budget: the best plan of the additive model, as an integer program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from paredown.errors import ParedownError
from paredown.search.problem import Objective, Problem
from paredown.specs import Scheme


def allocate(
    problem: Problem,
    budget_bytes: int,
    *,
    locked: Mapping[str, Scheme] | None = None,
    objective: Objective = "guarded_loss",
) -> dict[str, Scheme]:
    r"""Minimise \(\sum_g c_{g,s_g}\) subject to \(\sum_g b_{g,s_g} \le B\), one scheme \(s_g\) per group.

    The multiple-choice knapsack of HAWQ-V3 (Yao et al., 2021), solved to optimality by HiGHS.

    Args:
        problem: The choices.
        budget_bytes: Largest size of the whole file.
        locked: Layers whose scheme is given; a lock on one layer of a fused group locks all of it.
        objective: What is summed (`Problem` says why not the plain prediction).

    Returns:
        Layer name to scheme, as asked.

    Raises:
        ParedownError: If no plan fits (says the smallest possible size, or the locks that stand in the way), a lock names an
            unknown layer or scheme, two locks within a fused group disagree, or the objective needs curvature that is not known.
    """
    allowed = _allowed(problem, locked or {})
    least = [int(size[mask].min()) for size, mask in zip(problem.bytes, allowed, strict=True)]
    extra = np.concatenate([size - smallest for size, smallest in zip(problem.bytes, least, strict=True)])
    unit = max(1, int(np.gcd.reduce(extra.astype(np.int64))))  # small whole numbers: the solver's tolerance is then far below one
    per_group = problem.costs(objective)
    costs = np.concatenate(per_group)
    smallest = problem.fixed_bytes + sum(least)
    if smallest > budget_bytes:
        held = f" with {', '.join(sorted(locked))} locked; unlock some" if locked else "; raise the budget or allow smaller schemes"
        raise ParedownError(f"no plan fits into {budget_bytes:,} bytes: the smallest possible has {smallest:,} bytes{held}")
    owner = np.repeat(np.arange(len(problem.groups)), [len(size) for size in problem.bytes])
    one_each = csr_array((np.ones(len(owner)), (owner, np.arange(len(owner)))))
    scale = max(float(np.abs(costs).max()), np.finfo(float).tiny)  # HiGHS has absolute tolerances of about 1e-6
    result = milp(
        costs / scale,
        integrality=np.ones(len(costs)),
        bounds=Bounds(np.zeros(len(costs)), np.concatenate(allowed).astype(float)),  # pyright: ignore[reportArgumentType]  (its stubs say float)
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(extra[None, :] / unit, -np.inf, (budget_bytes - smallest) // unit),
        ],
        options={"mip_rel_gap": 1e-9},
    )
    if result.x is None:
        raise ParedownError(f"the integer program was not solved ({result.message}); try another budget")
    picked = np.split(result.x, np.cumsum([len(size) for size in problem.bytes])[:-1])
    choices = [int(choice.argmax()) for choice in picked]
    while (excess := _total(problem, choices) - budget_bytes) > 0:  # the solver's feasibility tolerance may exceed by some bytes
        choices = _step_down(problem, allowed, choices, per_group, excess)
    return problem.decide(choices)


def _total(problem: Problem, choices: list[int]) -> int:
    return problem.fixed_bytes + int(sum(size[choice] for size, choice in zip(problem.bytes, choices, strict=True)))


def _step_down(problem: Problem, allowed: list[np.ndarray], choices: list[int], costs: Sequence[np.ndarray], excess: int) -> list[int]:
    """The cheapest single change that saves the excess, or else the one that saves most."""
    best: tuple[bool, float, int, int] | None = None
    for group, choice in enumerate(choices):
        for other in np.flatnonzero(allowed[group]):
            saved = problem.bytes[group][choice] - problem.bytes[group][other]
            if saved > 0:
                enough = bool(saved >= excess)
                price = costs[group][other] - costs[group][choice] if enough else -float(saved)
                best = min(best or (True, np.inf, 0, 0), (not enough, price, group, int(other)))
    assert best is not None, "the smallest plan fits, so some group can step down"
    return [best[3] if group == best[2] else choice for group, choice in enumerate(choices)]


def _allowed(problem: Problem, locked: Mapping[str, Scheme]) -> list[np.ndarray]:
    """Per group, which choices the locks leave, [choices] bool."""
    unknown = set(locked) - {name for group in problem.groups for name in group}
    if unknown:
        raise ParedownError(f"locked layers that the problem does not have: {', '.join(sorted(unknown))}")
    masks = []
    for group, offered, choices in zip(problem.groups, problem.schemes, problem.candidates, strict=True):
        mask = np.ones(len(offered), bool)
        for position, name in enumerate(group):
            if name in locked:
                wanted = np.array(
                    [locked[name] in (scheme, choice[position].effective) for scheme, choice in zip(offered, choices, strict=True)]
                )
                if not wanted.any():
                    raise ParedownError(
                        f"{name} is locked to {locked[name]}, which was not priced; expected one of {', '.join(map(str, offered))}"
                    )
                mask &= wanted
        if not mask.any():
            raise ParedownError(f"the locks within the fused group {', '.join(group)} disagree; lock them to one scheme")
        masks.append(mask)
    return masks
