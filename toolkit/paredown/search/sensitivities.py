r"""Other sensitivities than the predicted loss: one number of curvature a layer, times \(\|\Delta W\|^2\).

Each stands for the layer's block by a multiple of the identity, \(\frac12 \langle \Delta W, H \Delta W \rangle \approx \frac12 c\, \|\Delta W\|^2\):

- ``trace``: \(c = \mathrm{tr}\, H / n\), n weights (HAWQ-V2, Dong et al., 2020), the mean over directions;
- ``top_eigenvalue``: \(c = \lambda_{\max}\) (HAWQ, Dong et al., 2019), the worst direction;
- ``slices``: \(c = |\mu| + \sigma\) of \(\lambda_{\max}\) over disjoint slices of the data (Q-BERT, Shen et al., 2020).

A Hessian's trace may be negative or drown in its error, as in the query and key layers. It then counts as its own standard error, which is
what it may well be: at zero or below, the layer's bits would seem to be free. An eigenvalue below zero counts as zero.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Literal

from paredown.errors import ParedownError
from paredown.record import MatrixEstimates
from paredown.specs import LayerRef

Sensitivity = Literal["trace", "top_eigenvalue", "slices"]


def curvature_of(sensitivity: Sensitivity, layer: LayerRef, known: Mapping[str, MatrixEstimates]) -> float:
    """The number c that stands for the layer's curvature.

    Args:
        sensitivity: Which one.
        layer: The layer.
        known: Layer name to the estimates of the matrix that is to be used.

    Returns:
        At least 0, nats per unit and squared weight.

    Raises:
        ParedownError: If it was not estimated for the layer.
    """
    estimates = known.get(layer.name, MatrixEstimates())
    if sensitivity == "trace" and estimates.trace is not None:
        trace = estimates.trace
        return max(trace.value, math.hypot(trace.data_sd, trace.probe_sd or 0.0)) / layer.parameters
    if sensitivity == "top_eigenvalue" and estimates.eigenvalues is not None and estimates.eigenvalues.top:
        return max(estimates.eigenvalues.top[0], 0.0)
    if sensitivity == "slices" and estimates.eigenvalues is not None and len(estimates.eigenvalues.slice_tops) > 1:
        tops = estimates.eigenvalues.slice_tops
        return abs(statistics.fmean(tops)) + statistics.stdev(tops)
    raise ParedownError(
        f"the sensitivity {sensitivity!r} needs an estimate that {layer.name} does not have; let the run go on, or ask for it with Study.estimate"
    )
