r"""Pruning by K-FAC: saliencies and the update of the kept weights under \(F = G \otimes A\) (LLM Surgeon, van der Ouderaa et al. 2024).

\(A = E[x x^T]\) of the layer's inputs, \(G = E[g g^T]\) of the gradients of its outputs; \(F\) maps a change V [out, in] to
\(G V A\). The damping \(\lambda\) is relative to the mean eigenvalue of F.
"""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.methods import checks, moments
from paredown.methods.pruning import Pruned
from paredown.methods.saliency import Saliency

DAMPING = 0.1
"""Damping relative to the mean eigenvalue."""


def brain_damage(weight: Tensor, inputs: Tensor, gradients: Tensor) -> Saliency:
    r"""\(\tfrac12 G_{ii} A_{jj} w_{ij}^2\): the loss increase if a weight goes and nothing adapts.

    Args:
        weight: [out, in].
        inputs: A, [in, in].
        gradients: G, [out, out].
    """
    weight, inputs, gradients, note = _usable(weight, inputs, gradients)
    curvature = gradients.diagonal().clamp(min=0)[:, None] * inputs.diagonal().clamp(min=0)
    return Saliency((weight.square() * curvature / 2).float(), note)


def brain_surgeon(weight: Tensor, inputs: Tensor, gradients: Tensor, *, damping: float = DAMPING) -> Saliency:
    r"""\(w_q^2 / (2 [(F + \lambda I)^{-1}]_{qq})\): the loss increase if a weight goes and all others adapt.

    With the eigenvalues \(\gamma_k\) of G, \(\alpha_l\) of A and eigenvectors U and V,
    \([(F + \lambda I)^{-1}]_{ij,ij} = \sum_{kl} U_{ik}^2 V_{jl}^2 / (\gamma_k \alpha_l + \lambda)\), two matrix products.

    Args:
        weight: [out, in].
        inputs: A, [in, in].
        gradients: G, [out, out].
        damping: Relative to the mean eigenvalue.
    """
    moments.check_damping(damping)
    weight, inputs, gradients, note = _usable(weight, inputs, gradients)
    (alpha, v), (gamma, u) = torch.linalg.eigh(inputs), torch.linalg.eigh(gradients)
    spectrum = gamma.clamp(min=0)[:, None] * alpha.clamp(min=0)
    diagonal = u.square() @ (1 / (spectrum + damping * spectrum.mean())) @ v.square().T
    return Saliency((weight.square() / (2 * diagonal)).float(), note)


def compensate(
    weight: Tensor, mask: Tensor, inputs: Tensor, gradients: Tensor, *, damping: float = DAMPING, steps: int = 50, tolerance: float = 1e-2
) -> Pruned:
    r"""The kept weights that make up best for the pruned ones, by conjugate gradients on \(F_{KK} \delta_K = F_{KQ} w_Q\).

    Every step lowers \(\tfrac12 \delta^T (F + \lambda I) \delta\), so that stopping early is never worse than pruning without an update.

    Args:
        weight: [out, in].
        mask: Bool [out, in], True where kept.
        inputs: A, [in, in].
        gradients: G, [out, out].
        damping: Relative to the mean eigenvalue.
        steps: Most steps; each is two matrix products.
        tolerance: Size of the residual, relative to the first, at which it stops.
    """
    moments.check_damping(damping)
    weight, inputs, gradients, note = _usable(weight, inputs, gradients)
    ridge = damping * float(inputs.diagonal().mean() * gradients.diagonal().mean())
    scale = gradients.diagonal()[:, None] * inputs.diagonal() + ridge  # Jacobi's preconditioner

    def product(change: Tensor) -> Tensor:
        return gradients @ change @ inputs + ridge * change

    change = torch.where(mask, 0.0, -weight)
    residual = torch.where(mask, -product(change), 0.0)
    first, direction, last = float(residual.norm()), torch.zeros_like(change), 1.0
    for _ in range(steps):
        if float(residual.norm()) <= tolerance * first:
            break
        conditioned = residual / scale
        inner = float((residual * conditioned).sum())
        direction = conditioned + inner / last * direction
        image = torch.where(mask, product(direction), 0.0)
        length = inner / float((direction * image).sum())
        change, residual, last = change + length * direction, residual - length * image, inner
    increase = 0.5 * float((change * product(change)).sum())
    return Pruned(torch.where(mask, weight + change, 0.0).float(), mask, increase, note)


def _usable(weight: Tensor, inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, str]:
    weight = checks.finite(checks.matrix(weight)).double()
    inputs, idle = moments.usable(inputs, weight.shape[1])
    gradients, still = moments.usable(gradients, weight.shape[0])
    return weight, inputs, gradients, idle or (still and "no gradient reaches the layer; its outputs count alike")
