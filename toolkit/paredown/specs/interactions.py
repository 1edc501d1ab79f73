"""What groups of layers lose together beyond what each loses alone: observations on the search split."""

from __future__ import annotations

from dataclasses import dataclass

from paredown.errors import ParedownError
from paredown.specs.measurements import RefineObjective
from paredown.specs.schemes import Scheme


@dataclass(frozen=True, slots=True)
class LayerInteractions:
    r"""Single and pair terms of groups of layers, all by one scheme: \(I_{ij} = L_{ij} - L_i - L_j + L_0\) (CLADO, Deng et al., 2023).

    Measured on the search split, so that it may be searched by, and is no result.

    Attributes:
        scheme: What each group got.
        groups: Layer names that are decided together, in model order.
        single: Loss increase of each group alone, nats per unit (or the metric's own unit), [groups].
        single_sd: Its standard error over the samples, [groups].
        pairs: \(I_{ij}\), the same unit, symmetric with a diagonal of zeros, [groups, groups].
        pairs_sd: Its standard error over the samples, [groups, groups].
        objective: What was measured.
        data_digest: Identifies the search split.
        n: Number of samples.
        groups_of_model: How many groups the model has; where it has more, those with the largest predicted loss were measured.
    """

    scheme: Scheme
    groups: tuple[tuple[str, ...], ...]
    single: tuple[float, ...]
    single_sd: tuple[float, ...]
    pairs: tuple[tuple[float, ...], ...]
    pairs_sd: tuple[tuple[float, ...], ...]
    objective: RefineObjective
    data_digest: str
    n: int
    groups_of_model: int

    def __post_init__(self) -> None:
        count = len(self.groups)
        shapes = {len(row) for row in (self.single, self.single_sd, self.pairs, self.pairs_sd, *self.pairs, *self.pairs_sd)}
        if shapes != {count}:
            raise ParedownError(f"expected terms of {count} groups with each of the {count}, got lengths of {sorted(shapes)}")

    @property
    def names(self) -> tuple[str, ...]:
        """A short name of each group: its first layer, and how many more there are."""
        return tuple(group[0] if len(group) == 1 else f"{group[0]} and {len(group) - 1} more" for group in self.groups)
