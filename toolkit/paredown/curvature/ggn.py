r"""The Gauss-Newton matrix \(\frac1N \sum_s J_s^\top (\nabla_z^2 \ell_s) J_s\) of cross-entropy or KL divergence in the logits z.

It equals the Fisher matrix of the model's own predictions; no labels are needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paredown.curvature.outer_products import OuterProducts
from paredown.curvature.probes import EIGENBASIS_CLASSES, exact_directions, generator_for, output_probe
from paredown.curvature.surface import LossSurface
from paredown.errors import ParedownError
from paredown.specs import LayerRef
from paredown.tasks import Batch


def gauss_newton(
    surface: LossSurface, layers: Sequence[LayerRef], *, exact: bool | None = None, draws: int = 1, seed: int = 0
) -> OuterProducts:
    r"""Gauss-Newton matrix of the layers together; take one layer for its block, or ask the answer for its `block`.

    Exact: a backward pass for each column of \(\mathrm{diag}(p) - p p^\top = \sum_k u_k u_k^\top\), classes − 1 of them, and that for each
    counted unit of a sample, since the units of one sample must not mix. With two classes and one unit a single pass is exact. Otherwise
    random output probes, unbiased, with a little noise (`output_probe`).

    Args:
        surface: Model and data, with logits.
        layers: The layers.
        exact: Whether to be exact; where None, if it takes no more than `EIGENBASIS_CLASSES` backward passes a batch.
        draws: Random probes of each sample, averaged, where it is not exact.
        seed: Of the probes; they depend on it and on the samples of a batch.

    Raises:
        ParedownError: If the surface has no logits, there are no draws, a layer is not run, or a gradient is not finite.
    """
    predict = surface.logits
    if predict is None:
        raise ParedownError(
            "expected a loss with logits for the Gauss-Newton matrix, got one without; use the empirical Fisher or the Hessian"
        )
    if draws < 1:
        raise ParedownError(f"expected at least one draw of each sample, got {draws}")
    longest = int(surface.units.max())
    if exact is None:
        with torch.no_grad():
            classes = predict(surface.first(1).batches[0]).logits.shape[-1]
        exact = (classes - 1) * longest <= EIGENBASIS_CLASSES

    def columns(batch: Batch) -> tuple[Tensor, Sequence[Tensor]]:
        predictions = predict(batch)
        return predictions.logits, list(exact_directions(predictions, longest))  # as many in every batch

    def probes(batch: Batch) -> tuple[Tensor, Sequence[Tensor]]:
        logits = predict(batch).logits
        return logits, [output_probe(logits, generator_for(seed, "gauss_newton", (draw, *batch.ids))) for draw in range(draws)]

    return OuterProducts.of(surface, layers, columns if exact else probes, averaged=not exact)
