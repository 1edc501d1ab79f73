r"""The diagonal by random probes: \(E[v \odot A v] = \mathrm{diag}(A)\) for random signs v (Bekas, Kokiopoulou and Saad, 2007).

One probe's variance of entry i is \(\sum_{j \ne i} A_{ij}^2\). Where the matrix knows its diagonal (`OuterProducts.diagonal`), ask it.
"""

from __future__ import annotations

from torch import Tensor

from paredown.curvature.operators import CurvatureOperator
from paredown.curvature.probes import generator_for
from paredown.curvature.uncertainty import Moments
from paredown.errors import ParedownError


def probed_diagonal(operator: CurvatureOperator, probes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The diagonal from a number of probes, one product each.

    Args:
        operator: The matrix.
        probes: How many.
        seed: Of the signs; the first probes of a longer run are the same.

    Returns:
        Mean and standard error over the probes (NaN for one), each [n], float64.

    Raises:
        ParedownError: If there are no probes.
    """
    if probes < 1:
        raise ParedownError(f"expected at least one probe, got {probes}")
    moments: Moments | None = None
    for probe in range(probes):
        signs = operator.signs(generator_for(seed, "diagonal", (probe,)))
        value = signs * (operator @ signs)
        moments = Moments.of(value) if moments is None else moments.plus(value)
    assert moments is not None
    return moments.mean, (moments.variance / probes).sqrt()
