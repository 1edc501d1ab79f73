"""Batches in pieces of about equal length: samples don't mix, so that little padding need be computed with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from paredown.curvature.padding import without_padding
from paredown.curvature.surface import rows_of
from paredown.tasks import Batch, Predictions, Task

CALL = 48
"""Tokens that take as long as what a pass costs beside its tokens (measured on a BERT of six blocks)."""


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """Some samples of a batch.

    Attributes:
        batch: They, as short as they can be.
        rows: Their rows in the whole batch, [samples].
    """

    batch: Batch
    rows: Tensor


class Pieces:
    """Cuts batches, each once, so that a pass over all pieces is cheapest."""

    def __init__(self) -> None:
        self.refused = ""
        """Why batches stay whole; empty where they are cut."""
        self._cut: WeakKeyDictionary[Batch, tuple[Piece, ...]] = WeakKeyDictionary()

    def of(self, batch: Batch) -> tuple[Piece, ...]:
        """The pieces of a batch: itself alone, where it has no padding or must stay whole."""
        if self.refused:
            return (_whole(batch),)
        if batch not in self._cut:
            self._cut[batch] = _cut(batch)
        return self._cut[batch]

    def prove(self, batches: Sequence[Batch], predict: Callable[[Batch], Predictions]) -> None:
        """Refuse to cut where a sample's predictions are others without its padding, tried on the batch with the most of it.

        Args:
            batches: That will be cut.
            predict: Makes the predictions of a batch.
        """
        padded = [pieces for batch in batches if len(pieces := self.of(batch)) > 1]
        if not padded:
            return
        shortest, longest = padded[-1][0], padded[-1][-1]
        whole = next(batch for batch in reversed(batches) if self.of(batch) is padded[-1])
        together = rows_of(whole, torch.stack([shortest.rows[0], longest.rows[-1]]))
        padding, alone = predict(together).logits, merged([(piece, predict(piece.batch)) for piece in _cut(together, call=0)])
        rounding = 100 * torch.finfo(padding.dtype).eps
        if padding.shape != alone.logits.shape or float((padding - alone.logits).norm()) > rounding * float(padding.norm()):
            self.refused = "samples answer otherwise without their padding"
            self._cut.clear()


@torch.no_grad()
def shortened(batches: Sequence[Batch], task: Task, model: nn.Module) -> list[Batch]:
    """The same samples in batches with little padding; the batches as they are where that would change a prediction, or none can be compared.

    Args:
        batches: Of a task.
        task: Makes the predictions.
        model: Of which.
    """
    pieces = Pieces()
    if not task.offers_probabilities:
        return list(batches)
    pieces.prove(batches, lambda batch: task.predictions(model, batch))
    return [piece.batch for batch in batches for piece in pieces.of(batch)]


def merged(made: Sequence[tuple[Piece, Predictions]]) -> Predictions:
    """The predictions of a batch from those of its pieces."""
    if len(made) == 1:
        return made[0][1]
    sample = torch.cat([piece.rows.to(each.sample.device)[each.sample] for piece, each in made])
    order = sample.argsort(stable=True)
    targets = [each.targets for _, each in made if each.targets is not None]
    return Predictions(torch.cat([each.logits for _, each in made])[order], torch.cat(targets)[order] if targets else None, sample[order])


def _whole(batch: Batch) -> Piece:
    return Piece(batch, torch.arange(len(batch.ids)))


def _cut(batch: Batch, call: int = CALL) -> tuple[Piece, ...]:
    mask = batch.inputs.get("attention_mask")
    if mask is None or mask.dim() != 2 or len(mask) != len(batch.ids):
        return (_whole(batch),)
    lengths, order = (mask != 0).cpu().sum(1).sort(stable=True)
    cuts = _cheapest(lengths.tolist(), call)
    pieces = tuple(Piece(without_padding(rows_of(batch, rows)), rows) for rows in order.tensor_split(cuts))
    shorter = sum(next(iter(piece.batch.inputs.values())).shape[1] * len(piece.rows) for piece in pieces) < mask.numel()
    return pieces if shorter else (_whole(batch),)


def _cheapest(lengths: Sequence[int], call: int) -> list[int]:
    r"""Where to cut rising lengths so that \(\sum_\text{pieces} (\text{samples} \cdot \text{longest} + \text{call})\) is least."""
    best, last = [0] * (len(lengths) + 1), [0] * (len(lengths) + 1)
    for end in range(1, len(lengths) + 1):
        best[end], last[end] = min((best[start] + (end - start) * lengths[end - 1] + call, start) for start in range(end))
    cuts = [last[-1]]
    while cuts[-1]:
        cuts.append(last[cuts[-1]])
    return cuts[-2::-1]
