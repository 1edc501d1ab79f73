"""Patterns of pruning, and the mask that keeps the most salient weights of each.

A mask is bool [out, in], True where a weight is kept; a pruned weight holds exact zeros. Zeros survive what comes after only on a
grid that has a zero. All grids of `paredown.methods.grid` do: an asymmetric one is widened to hold zero and its zero point is
whole, a symmetric one puts code 2^(bits-1) there, clipped and mirrored ranges included. A symmetric grid of 2^bits levels that
straddles zero evenly does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks

_NARROW, _MANY = 8, 1024  # rows that are ordered by comparing all pairs


@dataclass(frozen=True, slots=True)
class Unstructured:
    """Any weight may go.

    Attributes:
        fraction: Share of the weights that is pruned; the count is rounded to the nearest whole number.
        per_row: Of every row alike, and weights are compared within their row alone.
    """

    fraction: float
    per_row: bool = False

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)


@dataclass(frozen=True, slots=True)
class NOfM:
    """Exactly n of every m consecutive inputs of a row are kept; of a tail of t inputs n t / m, rounded up.

    Attributes:
        n: Kept in each group; 2 in 2:4.
        m: Width of a group; 4 in 2:4.
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 1 <= self.n <= self.m:
            raise ParedownError(f"expected 1 ≤ n ≤ m in n of m, got {self.n}:{self.m}; 2:4 keeps two of every four inputs")

    def kept(self, width: int) -> int:
        """How many of a group of that width are kept."""
        return -(-self.n * width // self.m)


@dataclass(frozen=True, slots=True)
class Rows:
    """Whole output rows go, by the sum of their saliencies.

    Attributes:
        fraction: Share of the rows that is pruned; the count is rounded to the nearest whole number.
    """

    fraction: float

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)


Pattern = Unstructured | NOfM | Rows


def select(saliency: Tensor, pattern: Pattern) -> Tensor:
    """The mask of a pattern that keeps the most salient weights; of equal ones the earlier is kept.

    Args:
        saliency: What pruning each weight costs, [out, in]; infinite values are allowed and extreme.
        pattern: What may be pruned, and how much of it.

    Returns:
        Bool [out, in], True where kept. The counts are exact.

    Raises:
        ParedownError: If the saliency is no matrix or holds NaN.
    """
    saliency = checks.matrix(saliency)
    if torch.isnan(saliency).any():
        raise ParedownError("the saliency holds NaN, which has no place in an order; look for infinite weights, moments or gradients")
    out, inputs = saliency.shape
    if isinstance(pattern, Rows):
        kept = keep(saliency.double().sum(1)[None], out - round(pattern.fraction * out))
        return kept[0, :, None].expand(out, inputs).clone()
    if isinstance(pattern, Unstructured):
        groups = saliency if pattern.per_row else saliency.reshape(1, -1)
        size = groups.shape[1]
        return keep(groups, size - round(pattern.fraction * size)).reshape(out, inputs)
    whole = inputs - inputs % pattern.m
    head = keep(saliency[:, :whole].reshape(-1, pattern.m), pattern.n).reshape(out, whole)
    if whole == inputs:
        return head
    return torch.cat([head, keep(saliency[:, whole:], pattern.kept(inputs - whole))], 1)


def select_across(saliencies: Sequence[Tensor], fraction: float) -> list[Tensor]:
    """Masks that prune the least salient weights of several layers together; layers may end up unequally sparse.

    Args:
        saliencies: One [out, in] a layer, in the same unit (expected loss increase).
        fraction: Share of all their weights that is pruned.
    """
    together = torch.cat([saliency.reshape(1, -1) for saliency in saliencies], 1)
    parts = select(together, Unstructured(fraction))[0].split([saliency.numel() for saliency in saliencies])
    return [part.reshape(saliency.shape) for part, saliency in zip(parts, saliencies, strict=True)]


def follows(mask: Tensor, pattern: Pattern) -> bool:
    """Whether a mask [out, in] keeps as many weights as the pattern says, everywhere that it says so."""
    out, inputs = mask.shape
    if isinstance(pattern, Rows):
        return bool((mask == mask[:, :1]).all()) and int(mask[:, 0].sum()) == out - round(pattern.fraction * out)
    if isinstance(pattern, Unstructured):
        counts = mask.sum(1) if pattern.per_row else mask.sum()
        size = inputs if pattern.per_row else mask.numel()
        return bool((counts == size - round(pattern.fraction * size)).all())
    whole = inputs - inputs % pattern.m
    head = mask[:, :whole].reshape(-1, pattern.m).sum(1) == pattern.n
    tail = mask[:, whole:].sum(1) == pattern.kept(inputs - whole)
    return bool(head.all()) and bool(tail.all())


def stages(pattern: Pattern, steps: int) -> list[Pattern]:
    r"""A pattern reached in steps: after step j of J, a share \((1 - s)^{j / J}\) of the weights is left, s the final sparsity.

    So every step prunes the same share of what is left (Frantar et al. 2021). Steps of n of m that would prune nothing are left out.
    """
    if steps < 1:
        raise ParedownError(f"expected at least one step, got {steps}")
    shares = [step / steps for step in range(1, steps)]
    if isinstance(pattern, NOfM):
        counts = [max(pattern.n, round(pattern.m * (pattern.n / pattern.m) ** share)) for share in shares]
        fewer = sorted({count for count in counts if pattern.n < count < pattern.m}, reverse=True)
        return [*(NOfM(count, pattern.m) for count in fewer), pattern]
    fractions = [1 - (1 - pattern.fraction) ** share for share in shares]
    if isinstance(pattern, Rows):
        return [*map(Rows, fractions), pattern]
    return [*(Unstructured(fraction, pattern.per_row) for fraction in fractions), pattern]


def keep(groups: Tensor, count: int) -> Tensor:
    """True at the `count` largest of each row; of equal ones the earlier, so that the mask is the same on every machine.

    Args:
        groups: [rows, size], without NaN.
        count: How many are kept of each row.
    """
    rows, size = groups.shape
    if not 0 < count < size:
        return torch.full_like(groups, count > 0, dtype=torch.bool)
    if size <= _NARROW and rows >= _MANY:
        return _keep_by_pairs(groups, count)
    least = groups.kthvalue(size - count + 1, dim=1, keepdim=True).values
    kept, equal = groups > least, groups == least
    missing = count - kept.sum(1, keepdim=True)
    if not torch.equal(equal.sum(1, keepdim=True), missing):
        equal &= equal.cumsum(1) <= missing
    return kept | equal


def _keep_by_pairs(groups: Tensor, count: int) -> Tensor:
    """The same for many narrow rows: a number is kept if few others go before it."""
    columns = groups.unbind(1)
    ahead = torch.zeros((len(columns), len(groups)), dtype=torch.uint8, device=groups.device)
    for left, right in combinations(range(len(columns)), 2):
        behind = columns[left] < columns[right]
        ahead[left] += behind
        ahead[right] += behind.logical_not_()
    return (ahead < count).T


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise ParedownError(f"expected the fraction of weights to prune, at least 0 and below 1, got {fraction}")
