"""What the readers of each folding see: forward passes alone, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from paredown.calibration import CAPTURE_BYTES, listening
from paredown.folding.foldings import Folding
from paredown.specs import LayerRef
from paredown.symmetric import gram
from paredown.tasks import Batch


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """The inputs of a folding's readers, over real tokens.

    Attributes:
        moment: Mean of x xᵀ, [in, in], float64.
        largest: Largest magnitude of each input, [in].
    """

    moment: Tensor
    largest: Tensor


@torch.no_grad()
def seen_by(
    model: nn.Module,
    layers: Mapping[str, LayerRef],
    foldings: Sequence[Folding],
    batches: Sequence[Batch],
    run: Callable[[Batch], object],
) -> dict[Folding, Seen]:
    """Run the calibration data; one pass for as many foldings as fit into memory.

    All readers of a folding see the same tensor, so that one of them is listened to.

    Args:
        model: The model.
        layers: Its layers by name.
        foldings: What is of interest.
        batches: Calibration data.
        run: Runs the model on a batch.
    """
    ears = {folding: replace(layers[folding.readers[0]], fused_with=()) for folding in foldings}
    seen: dict[Folding, Seen] = {}
    for some in _passes(ears):
        moments = {folding: torch.zeros(ears[folding].shape[1], ears[folding].shape[1], dtype=torch.float64) for folding in some}
        largest = {folding: torch.zeros(ears[folding].shape[1]) for folding in some}
        tokens = dict.fromkeys(some, 0)
        for batch in batches:
            with listening(model, [ears[folding] for folding in some], batch, lambda call, gradient: None) as calls:
                run(batch)
            for folding in some:
                for call in calls.pop(ears[folding].name):
                    assert call.inputs is not None
                    rows = (call.inputs.flatten(0, 1) if call.mask is None else call.inputs[call.mask]).float()
                    moments[folding] += gram(rows).double()
                    largest[folding] = torch.maximum(largest[folding], rows.abs().amax(0))
                    tokens[folding] += len(rows)
        seen |= {folding: Seen(moments[folding] / max(tokens[folding], 1), largest[folding]) for folding in some}
    return seen


def _passes(ears: Mapping[Folding, LayerRef]) -> Iterator[list[Folding]]:
    some: list[Folding] = []
    used = 0
    for folding, layer in ears.items():
        need = 8 * layer.shape[1] ** 2
        if some and used + need > CAPTURE_BYTES:
            yield some
            some, used = [], 0
        some.append(folding)
        used += need
    if some:
        yield some
