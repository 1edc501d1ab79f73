r"""How other allocators score a change of a layer's weight, from what one calibration pass captured.

All take the gradients as they were captured: whose loss they are of is decided there. For K-FAC and EK-FAC see
`CurvatureOperator.quadratic_forms` of `paredown.curvature.kfac` and `paredown.curvature.ekfac`; `score_changes` gives all by name.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from paredown.calibration import Captured, Part
from paredown.curvature.ekfac import ekfac
from paredown.curvature.kfac import kfac
from paredown.curvature.kronecker import eigenbasis
from paredown.curvature.outer_products import OuterProducts
from paredown.curvature.per_sample import PerSampleGradients
from paredown.errors import ParedownError
from paredown.specs import Score


def fisher_scores(captured: Captured, changes: Sequence[Tensor]) -> Tensor:
    r"""LQ-LoRA's \(\|\sqrt F \odot \Delta W\|^2\), with \(F = \sum_s P_s^{\odot 2}\) the summed squares of the samples' gradients (Guo et al., 2024).

    Args:
        captured: Inputs and gradients of the loss.
        changes: \(\Delta W\), each [out, in].

    Returns:
        [changes], float64.
    """
    return PerSampleGradients(captured).forms(changes)[0].double().sum(0)


def modelopt_scores(captured: Captured, changes: Sequence[Tensor]) -> Tensor:
    r"""ModelOpt AutoQuantize's \(\sum_{t,j} (g_{tj}\, \delta y_{tj})^2\) over tokens and outputs, \(\delta y = \Delta W x\) (NVIDIA, 2024).

    A diagonal of the Fisher matrix in output space: changes of two outputs or tokens never add up or cancel. Inputs that a scheme rounds
    too are left out.

    Args:
        captured: Inputs and gradients of the loss.
        changes: \(\Delta W\), each [out, in].

    Returns:
        [changes], float64.
    """
    scores = [sum((_outputs(part, change) * part.gradients).double().square().sum() for part in _parts(captured)) for change in changes]
    return torch.tensor([float(score) for score in scores], dtype=torch.float64)


def output_delta_scores(captured: Captured, changes: Sequence[Tensor]) -> Tensor:
    r"""The first-order score in output space, \(\sum_{t,j} |g_{tj}\, \delta y_{tj}|\).

    Args:
        captured: Inputs and gradients of the loss.
        changes: \(\Delta W\), each [out, in].

    Returns:
        [changes], float64.
    """
    scores = [sum((_outputs(part, change) * part.gradients).double().abs().sum() for part in _parts(captured)) for change in changes]
    return torch.tensor([float(score) for score in scores], dtype=torch.float64)


def delta_loss_scores(captured: Captured, changes: Sequence[Tensor]) -> Tensor:
    r"""AutoRound AutoScheme's DeltaLoss, \(\sum_b \sum_{ij} |G^b_{ij}\, \Delta W_{ij}|\), \(G^b\) the weight's gradient on batch b (Intel, 2025).

    AutoRound takes the gradients at the quantized weights, a pass for each scheme, so capture them there to follow it; at the original
    weights one pass serves all schemes. Its term for rounded inputs is left out. As the absolute value is taken after the sum over a
    batch, the score depends on how the samples are batched.

    Args:
        captured: Inputs and gradients of the loss.
        changes: \(\Delta W\), each [out, in].

    Returns:
        [changes], float64.
    """
    total = torch.zeros(captured.layer.shape, dtype=torch.float64)
    for parts in captured.batches:
        total += torch.stack([_weight_gradient(part, captured.layer.shape) for part in parts]).sum(0).abs()
    return torch.stack([(total * change.double().abs()).sum() for change in changes]) if changes else torch.zeros(0, dtype=torch.float64)


def score_changes(captured: Captured, changes: Sequence[Tensor], units: Tensor, asked: Collection[Score]) -> tuple[dict[str, Tensor], str]:
    r"""The scores of changes by name, what is measured aside.

    K-FAC's and EK-FAC's are \(\frac12 \langle \Delta W, A\, \Delta W \rangle\), nats per unit where the gradients are those of a probe; the others
    are the sums that their authors define, which rank and have no unit.

    Args:
        captured: Inputs and gradients.
        changes: \(\Delta W\), each [out, in].
        units: Counted units of each sample, [samples].
        asked: Which scores.

    Returns:
        Score to values, [changes], float64; and why K-FAC's are absent, empty where they are there.
    """
    plain = {"fisher": fisher_scores, "modelopt": modelopt_scores, "delta_loss": delta_loss_scores}
    found = {name: score(captured, changes) for name, score in plain.items() if name in asked}
    factored = {"kfac": kfac, "ekfac": ekfac}
    wanted = [name for name in factored if name in asked]
    if not wanted:
        return found, ""
    products = OuterProducts([PerSampleGradients(captured)], units, 1.0, range(len(units)))
    try:
        bases = [eigenbasis(products, 0)]
    except ParedownError as error:
        return found, f"no score by {' or '.join(wanted)}: {error}"
    for name in wanted:
        matrix = factored[name](products, bases)
        values = [0.5 * matrix.quadratic_forms([change]) for change in changes]  # one by one: each is as large as the layer
        found[name] = torch.cat(values) if values else torch.zeros(0, dtype=torch.float64)
    return found, ""


def _parts(captured: Captured) -> list[Part]:
    return [part for parts in captured.batches for part in parts]


def _outputs(part: Part, change: Tensor) -> Tensor:
    """What the change does to the outputs, [samples, tokens, out]."""
    return change[part.inputs] if part.kind == "lookup" else part.inputs @ change.T


def _weight_gradient(part: Part, shape: tuple[int, int]) -> Tensor:
    """Gradient of the weight by all samples together, [out, in], float64; padded tokens have gradients of zero."""
    gradients = part.gradients.flatten(0, 1).double()
    if part.kind == "lookup":
        return torch.zeros(shape, dtype=torch.float64).index_add_(0, part.inputs.flatten(), gradients)
    return gradients.T @ part.inputs.flatten(0, 1).double()
