r"""Fisher matrices \(\frac1N \sum_s E[\nabla \ell\, \nabla \ell^\top]\): over labels from the model, or with the labels of the data.

With the model's own labels the expectation is the Gauss-Newton matrix of the cross-entropy; a few sampled labels show it with more noise than
output probes do (relative deviation of a trace 0.50 against 0.05). With the data's labels ("empirical") it is another matrix: where the
model fits them it is too small, elsewhere too large (Kunstner, Balles and Hennig, 2019).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paredown.curvature.outer_products import OuterProducts
from paredown.curvature.probes import generator_for
from paredown.curvature.surface import LossSurface
from paredown.errors import ParedownError
from paredown.specs import LayerRef
from paredown.tasks import Batch


def fisher(surface: LossSurface, layers: Sequence[LayerRef], draws: int = 1, seed: int = 0) -> OuterProducts:
    r"""Fisher matrix with labels sampled from the model, \(y \sim \mathrm{softmax}(z)\), for every counted unit.

    Args:
        surface: Model and data, with logits.
        layers: The layers.
        draws: Labels of each unit; a backward pass each.
        seed: Of the labels; they depend on it and on the samples of a batch.

    Raises:
        ParedownError: If the surface has no logits, there are no draws, a layer is not run, or a gradient is not finite.
    """
    predict = surface.logits
    if predict is None:
        raise ParedownError("expected a loss with logits to sample labels from, got one without; use empirical_fisher or the Hessian")
    if draws < 1:
        raise ParedownError(f"expected at least one draw of each sample, got {draws}")

    def labels(batch: Batch) -> tuple[Tensor, Sequence[Tensor]]:
        logits = predict(batch).logits
        return logits, [_label_gradient(logits, generator_for(seed, "fisher", (draw, *batch.ids))) for draw in range(draws)]

    return OuterProducts.of(surface, layers, labels, averaged=True)


def empirical_fisher(surface: LossSurface, layers: Sequence[LayerRef]) -> OuterProducts:
    r"""Empirical Fisher matrix \(\frac1N \sum_s \nabla \ell_s \nabla \ell_s^\top\) of the surface's own loss.

    A sample's loss is summed over its units before it is squared.

    Args:
        surface: Model and data.
        layers: The layers.

    Raises:
        ParedownError: If the loss or a gradient is not finite, or a layer is not run.
    """

    def ones(batch: Batch) -> tuple[Tensor, Sequence[Tensor]]:
        losses = surface.losses(batch)
        return losses, [torch.ones_like(losses)]

    return OuterProducts.of(surface, layers, ones, averaged=True)


def _label_gradient(logits: Tensor, generator: torch.Generator) -> Tensor:
    r"""\(p - e_y\) with y drawn from p, [units, classes]; drawn on the CPU, so that devices agree."""
    gradient = logits.detach().softmax(-1)
    drawn = torch.multinomial(gradient.cpu(), 1, generator=generator).to(gradient.device)
    return gradient.scatter_add_(1, drawn, torch.full_like(drawn, -1, dtype=gradient.dtype))
