r"""Output-space probes: random gradients whose second moment is the curvature of the loss in the logits.

For the KL divergence (and the cross-entropy) of a softmax, \(\nabla_z^2 = M = \mathrm{diag}(p) - p p^\top\). A random \(u\) with
\(E[u u^\top] = M\), sent backward, gives per-sample weight gradients \(P = J^\top u\) with \(E[P P^\top] = J^\top M J\), the
Gauss-Newton matrix: no labels, one backward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paredown.calibration import Objective
from paredown.tasks import Batch, Task

EIGENBASIS_CLASSES = 64
"""Up to so many classes the signs are drawn in the eigenbasis of M, which leaves a fifth of the noise (`output_probe`)."""


def output_probe(logits: Tensor, generator: torch.Generator) -> Tensor:
    r"""Draw \(u\) with \(E[u u^\top] = \mathrm{diag}(p) - p p^\top\) for each row, \(p = \mathrm{softmax}(z)\).

    With few classes \(u = Q \Lambda^{1/2} \epsilon\) from the eigendecomposition \(M = Q \Lambda Q^\top\), with many
    \(u = \sqrt p \odot \epsilon - p\, \langle \sqrt p, \epsilon \rangle\); \(\epsilon\) are random signs.

    Args:
        logits: z, [units, classes].
        generator: Source of the signs.

    Returns:
        u, [units, classes]; independent between units, so that tokens of one sequence don't mix in expectation.
    """
    probabilities = logits.detach().softmax(-1)
    signs = torch.randint(0, 2, probabilities.shape, generator=generator, dtype=probabilities.dtype) * 2 - 1
    if probabilities.shape[-1] > EIGENBASIS_CLASSES:
        root = probabilities.sqrt()
        return root * signs - probabilities * (root * signs).sum(-1, keepdim=True)
    matrix = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]
    values, vectors = torch.linalg.eigh(matrix.double())
    values[:, 0] = 0  # the constant vector's; the solver leaves some 1e-17, whose root would show
    return (vectors @ (values.clamp(min=0).sqrt() * signs.double())[:, :, None])[:, :, 0].to(logits.dtype)


def probe_objective(model: nn.Module, task: Task, *, seed: int) -> Objective:
    """The scalar whose gradients are Gauss-Newton probes, or the loss itself where the task offers no probabilities.

    The signs depend on the seed and the batch's samples alone, not on which batches came before.
    """

    def probe(batch: Batch) -> Tensor:
        logits = task.predictions(model, batch).logits
        generator = torch.Generator().manual_seed(hash((seed, *batch.ids)) % 2**63)
        return (logits * output_probe(logits, generator)).sum()

    def loss(batch: Batch) -> Tensor:
        return task.loss(model, batch).sum()

    return probe if task.offers_probabilities else loss
