r"""Output-space probes: random gradients whose second moment is the curvature of the loss in the logits.

For the KL divergence (and the cross-entropy) of a softmax, \(\nabla_z^2 = M = \mathrm{diag}(p) - p p^\top\). A random \(u\) with
\(E[u u^\top] = M\), sent backward, gives per-sample weight gradients \(P = J^\top u\) with \(E[P P^\top] = J^\top M J\), the
Gauss-Newton matrix: no labels, one backward pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from paredown.calibration import Objective
from paredown.tasks import Batch, Predictions, Task

EIGENBASIS_CLASSES = 64
"""Up to so many classes the signs are drawn in the eigenbasis of M, which leaves a fifth of the noise (`output_probe`)."""


def generator_for(seed: int, purpose: str, ids: Sequence[int] = ()) -> torch.Generator:
    """A generator of its own for each purpose and batch: what it draws depends on nothing that was drawn before, nor on the process."""
    digest = hashlib.blake2b(repr((seed, purpose, *ids)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") % 2**63)


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
    if logits.shape[-1] <= EIGENBASIS_CLASSES:
        columns = output_columns(logits)
        return torch.einsum("kuc,uk->uc", columns, signs((logits.shape[0], len(columns)), logits, generator))
    probabilities = logits.detach().softmax(-1)
    # in place: with a vocabulary of 49k each further copy takes 200 MB a thousand tokens
    probe = probabilities.sqrt().mul_(signs(logits.shape, logits, generator))
    return probe.addcmul_(probabilities, probe.sum(-1, keepdim=True), value=-1)


def output_columns(logits: Tensor) -> Tensor:
    r"""The columns \(u_k = \sqrt{\lambda_k}\, q_k\) with \(\sum_k u_k u_k^\top = \mathrm{diag}(p) - p p^\top\) for each row.

    Each sent backward, they give the Gauss-Newton matrix exactly where a sample has one unit (otherwise see `exact_directions`); for two
    classes a single one does.

    Args:
        logits: z, [units, classes].

    Returns:
        [classes - 1, units, classes]; the eigenvalue 0 of the constant vector is left out.
    """
    probabilities = logits.detach().double().softmax(-1)
    values, vectors = torch.linalg.eigh(torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :])
    return (vectors * values.clamp(min=0).sqrt()[:, None, :])[:, :, 1:].permute(2, 0, 1).to(logits.dtype)


def exact_directions(predictions: Predictions, places: int | None = None) -> Iterator[Tensor]:
    r"""What must go backward, one by one, for the exact Gauss-Newton matrix of samples with several units (tokens).

    Per-sample gradients that hold two units at once would mix them, so each unit has its own turn: the columns of the first units of all
    samples, then those of the second ones.

    Args:
        predictions: Of a batch.
        places: Units of a sample at most; those of this batch where None. Places that no sample has give zeros.

    Yields:
        places × (classes − 1) tensors [units, classes].
    """
    counts = predictions.sample.bincount()
    place = torch.arange(len(predictions.sample), device=counts.device) - (counts.cumsum(0) - counts)[predictions.sample]
    columns = output_columns(predictions.logits)
    for index in range(int(counts.max()) if places is None else places):
        for column in columns:
            yield column * (place == index)[:, None]


def probe_objective(model: nn.Module, task: Task, *, seed: int) -> Objective:
    """The scalar whose gradients are Gauss-Newton probes, or the loss itself where the task offers no probabilities.

    The signs depend on the seed and the batch's samples alone, not on which batches came before.
    """

    def probe(batch: Batch) -> Tensor:
        logits = task.predictions(model, batch).logits
        return (logits * output_probe(logits, generator_for(seed, "probe", batch.ids))).sum()

    def loss(batch: Batch) -> Tensor:
        return task.loss(model, batch).sum()

    return probe if task.offers_probabilities else loss


def signs(shape: Sequence[int], like: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs of `like`'s type; drawn on the CPU, so that they are the same on every device."""
    return torch.empty(tuple(shape), dtype=like.dtype).bernoulli_(0.5, generator=generator).mul_(2).sub_(1).to(like.device)
