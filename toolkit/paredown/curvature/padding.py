"""Batches without needless padding: samples don't mix, so they may run in pieces of about equal length."""

from __future__ import annotations

import torch
from torch import Tensor

from paredown.curvature.surface import LossSurface, rows_of
from paredown.tasks import Batch
from paredown.tasks.base import IGNORED

PER_TOKEN = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds"})
"""Inputs [samples, tokens, ...] of one and the same sequence."""

TOKENS = 256
"""Tokens of a piece: with more there is more padding in it, with fewer the calls cost more than the padding (measured on a BERT)."""


def runs(batch: Batch, rows: Tensor, samples: int, *, by_length: bool) -> list[Tensor]:
    """Some rows of a batch in runs of so many samples at most and, where it goes by length, of `TOKENS` where they are several."""
    mask = batch.inputs.get("attention_mask")
    if not by_length or mask is None:
        return list(rows.split(samples))
    sizes, longest = [0], 0
    for length in mask[rows].sum(1).tolist():
        longest = max(longest, length)
        if sizes[-1] and (sizes[-1] == samples or (sizes[-1] + 1) * longest > TOKENS):
            sizes.append(0)
            longest = length
        sizes[-1] += 1
    return list(rows.split(sizes))


def without_padding(batch: Batch) -> Batch:
    """The batch without the last tokens if they are padding in all its samples; as it is where its tensors don't tell."""
    mask, targets = batch.inputs.get("attention_mask"), batch.targets
    if mask is None or mask.dim() != 2 or targets is None or not PER_TOKEN.issuperset(batch.inputs):
        return batch
    tokens = mask.shape[1]
    end = int((mask.bool().any(0).cpu() * torch.arange(1, tokens + 1)).max())
    per_token = targets.dim() > 1
    if end in (0, tokens) or (per_token and (targets.shape != mask.shape or bool((targets[:, end:] != IGNORED).any()))):
        return batch
    return Batch({name: tensor[:, :end] for name, tensor in batch.inputs.items()}, targets[:, :end] if per_token else targets, batch.ids)


@torch.no_grad()
def padding_is_idle(surface: LossSurface) -> bool:
    """Whether a sample keeps its loss without its padding, tried on a short one; a model that ignores the mask does not."""
    for batch in surface.batches:
        mask = batch.inputs.get("attention_mask")
        if mask is not None and mask.dim() == 2:
            whole = rows_of(batch, mask.sum(1).argmin()[None].cpu())
            short = without_padding(whole)
            if short is not whole:
                return torch.allclose(surface.losses(whole), surface.losses(short), rtol=1e-4, atol=1e-6)
    return False
