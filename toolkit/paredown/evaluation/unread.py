"""Rows that nobody reads: where a model answers by a sample's first token, its last block need not be computed for the others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paredown.curvature.surface import rows_of
from paredown.evaluation.modules import modules_of, overridden
from paredown.specs import LayerRef
from paredown.tasks import Batch, Predictions

SAMPLES = 4
"""Samples of the trial."""


@torch.inference_mode()
def first_row_layers(model: nn.Module, layers: Sequence[LayerRef], batch: Batch, predict: Callable[[Batch], Predictions]) -> frozenset[str]:
    """Layers of the last block whose results for a sample's first token alone are read.

    Each is tried: its other results are put to zero, and the predictions have to stay what they were, bit for bit; then all at once.

    Args:
        model: The model.
        layers: Layers whose modules compute as their class does.
        batch: Some samples.
        predict: Makes the predictions of a batch.

    Returns:
        Their names; none where a sample has more than one prediction.
    """
    few = rows_of(batch, torch.arange(min(SAMPLES, len(batch.ids))))
    before = predict(few)
    if before.sample.tolist() != list(range(len(few.ids))):
        return frozenset()
    blocks = [layer.block for layer in layers if layer.block]
    last = {
        layer.name: module
        for layer in layers
        if blocks and layer.block == blocks[-1] and layer.kind == "linear" and not layer.tied_to
        for module in modules_of(model, layer)
    }
    found = {name: module for name, module in last.items() if torch.equal(_without(few, {name: module}, predict), before.logits)}
    return frozenset(found) if found and torch.equal(_without(few, found, predict), before.logits) else frozenset()


def first_row_alone(multiply: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """The results of each sample's first token [samples, tokens, in], and zeros for the others."""
    if inputs.dim() != 3 or inputs.shape[1] < 2:
        return multiply(inputs)
    first = multiply(inputs[:, :1])
    made = first.new_zeros(*inputs.shape[:2], first.shape[-1])
    made[:, :1] = first
    return made


def _without(batch: Batch, modules: Mapping[str, nn.Module], predict: Callable[[Batch], Predictions]) -> Tensor:
    with overridden([(module, functools.partial(_first_kept, module.forward)) for module in modules.values()]):
        return predict(batch).logits


def _first_kept(forward: Callable[..., Tensor], *inputs: Any, **named: Any) -> Tensor:
    made = forward(*inputs, **named)
    if made.dim() != 3:
        return made
    kept = torch.zeros_like(made)
    kept[:, :1] = made[:, :1]
    return kept
