"""One pass over the calibration data: what goes into each layer, and what comes back to its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from paredown.errors import ParedownError
from paredown.specs import LayerRef
from paredown.symmetric import gram
from paredown.tasks import Batch

GRAM_TOKENS = 8192
"""Tokens whose outer products are summed in float32; the sums of so many in float64."""

Objective = Callable[[Batch], Tensor]
"""A batch to the scalar whose gradients are wanted."""

CAPTURE_BYTES = 1_500_000_000
"""Inputs and gradients that are held at once; more layers than fit take another pass."""


@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """One call of one module that uses a layer's weight, over one batch.

    Attributes:
        kind: ``dense`` for a matrix product, ``lookup`` for an embedding.
        inputs: Activations [samples, tokens, in], or token ids [samples, tokens].
        gradients: Of the objective with respect to the module's output, [samples, tokens, out].
        mask: Which tokens are real, [samples, tokens]; None where all are.
    """

    kind: Literal["dense", "lookup"]
    inputs: Tensor
    gradients: Tensor
    mask: Tensor | None


@dataclass(frozen=True, eq=False, slots=True)
class Captured:
    """What a layer saw: per batch, its parts (several where a weight is tied or used twice).

    Attributes:
        layer: The layer.
        batches: Per batch, the parts. Gradients of padded tokens are zero, for nothing that counts depends on them.
    """

    layer: LayerRef
    batches: tuple[tuple[Part, ...], ...]


@dataclass(frozen=True, eq=False, slots=True)
class LayerStats:
    """Statistics of a layer's inputs over the real tokens.

    Attributes:
        layer: The layer's name.
        tokens: How many there were.
        input_second_moment: Mean of x xᵀ, [in, in]; for a lookup the share of each row, [rows].
        input_abs_max: Largest magnitude of each input, [in]; empty for a lookup.
    """

    layer: str
    tokens: int
    input_second_moment: Tensor
    input_abs_max: Tensor


def capture(model: nn.Module, layers: Sequence[LayerRef], batches: Sequence[Batch], objective: Objective) -> dict[str, Captured]:
    """Run the objective forward and backward on every batch and keep what the layers need.

    One forward and one backward pass to the layers' outputs a batch; no gradient of a weight is formed.

    Args:
        model: In evaluation mode, its parameters without gradients.
        layers: The layers of interest; their inputs and gradients stay in memory (`passes` splits a long list).
        batches: Calibration data.
        objective: What is differentiated.

    Returns:
        Layer name to what it saw; a layer that no batch ran is absent.

    Raises:
        ParedownError: If the model is in training mode, or the objective is not finite on some batch.
    """
    if model.training:
        raise ParedownError("the model is in training mode, where dropout makes every pass differ; call model.eval() first")
    seen: dict[str, list[tuple[Part, ...]]] = {layer.name: [] for layer in layers}
    for index, batch in enumerate(batches):
        gradients: dict[Call, Tensor] = {}
        with listening(model, layers, batch, gradients.__setitem__) as calls, torch.enable_grad():
            value = objective(batch)
            if not torch.isfinite(value):
                raise ParedownError(
                    f"the loss is {value.item()} on calibration batch {index} (samples {batch.ids[0]} to {batch.ids[-1]});"
                    " look for NaN or infinite weights, or for inputs that the model can't take"
                )
            value.backward()
        for name, made in calls.items():
            if made:
                seen[name].append(tuple(_part(call, gradients.get(call)) for call in made))
    by_name = {layer.name: layer for layer in layers}
    return {name: Captured(by_name[name], tuple(parts)) for name, parts in seen.items() if parts}


def passes(layers: Sequence[LayerRef], tokens: int, *, limit_bytes: int = CAPTURE_BYTES) -> Iterator[tuple[LayerRef, ...]]:
    """Split the layers into consecutive runs whose inputs and gradients fit into `limit_bytes` for that many tokens."""
    run: list[LayerRef] = []
    used = 0
    for layer in layers:
        need = 4 * tokens * sum(layer.shape)
        if run and used + need > limit_bytes:
            yield tuple(run)
            run, used = [], 0
        run.append(layer)
        used += need
    if run:
        yield tuple(run)


def statistics(captured: Captured) -> LayerStats:
    """The input statistics of one layer, over its real tokens, accumulated in float32 over `GRAM_TOKENS` and in float64 beyond."""
    layer = captured.layer
    if all(part.kind == "lookup" for parts in captured.batches for part in parts):
        counts = torch.zeros(layer.shape[0], dtype=torch.float64)
        for part in (part for parts in captured.batches for part in parts):
            counts += torch.bincount(_real(part.inputs, part.mask), minlength=layer.shape[0])
        tokens = int(counts.sum())
        return LayerStats(layer.name, tokens, (counts / max(tokens, 1)).float(), torch.empty(0))
    width = layer.shape[1]
    total, largest, tokens = torch.zeros(()), torch.zeros(width), 0
    parts = [part for batch in captured.batches for part in batch if part.kind == "dense"]
    for rows in _together([token_rows(part) for part in parts]):
        products = gram(rows)
        total = total.double().add_(products) if tokens else products.to(torch.promote_types(rows.dtype, torch.float32))
        largest = torch.maximum(largest, rows.abs().amax(0))
        tokens += len(rows)
    return LayerStats(layer.name, tokens, total.div_(tokens).float() if tokens else torch.zeros(width, width), largest)


def _together(pieces: Sequence[Tensor]) -> Iterator[Tensor]:
    """Rows of consecutive pieces in one, up to `GRAM_TOKENS` where a piece alone is no longer."""
    some: list[Tensor] = []
    for piece in pieces:
        if some and sum(map(len, some)) + len(piece) > GRAM_TOKENS:
            yield torch.cat(some)
            some = []
        some.append(piece)
    if some:
        yield torch.cat(some) if len(some) > 1 else some[0]


def every_other(captured: Captured, start: int) -> Captured:
    """What the layer saw of every other sample, counted through all batches from `start`, 0 or 1; batches that none is left of are absent."""
    batches = []
    for parts in captured.batches:
        samples = len(parts[0].inputs)
        if start < samples:
            batches.append(tuple(some_samples(part, slice(start, None, 2)) for part in parts))
        start = (start - samples) % 2 if start < samples else start - samples
    return Captured(captured.layer, tuple(batches))


def some_samples(part: Part, samples: slice) -> Part:
    """A part as if there were only those samples."""
    return Part(part.kind, part.inputs[samples], part.gradients[samples], None if part.mask is None else part.mask[samples])


def token_rows(part: Part) -> Tensor:
    """The inputs of the real tokens, [tokens, in]."""
    return _real(part.inputs, part.mask)


def _real(values: Tensor, mask: Tensor | None) -> Tensor:
    """The real tokens in one row: [tokens, ...]."""
    return values.flatten(0, 1) if mask is None else values[mask]


def _part(call: Call, gradient: Tensor | None) -> Part:
    assert call.inputs is not None
    if gradient is None:  # the objective does not depend on it
        gradient = torch.zeros(call.outputs, dtype=call.dtype, device=call.inputs.device)
    return Part(call.kind, call.inputs, gradient, call.mask)


def token_mask(batch: Batch) -> Tensor | None:
    """Which tokens of a batch are real, [samples, tokens]; None where all are."""
    mask = batch.inputs.get("attention_mask")
    return None if mask is None or mask.dim() != 2 or bool(mask.all()) else mask.bool()


class Call:
    """One use of a layer's weight in a forward pass, waiting for the gradient of its output.

    Attributes:
        layer: The layer.
        kind: As in `Part`.
        inputs: As in `Part`; whoever has used them may drop them.
        mask: As in `Part`.
        outputs: Shape of the output as its gradient comes, [samples, tokens, out].
        dtype: Its type.
    """

    def __init__(self, layer: LayerRef, kind: Literal["dense", "lookup"], inputs: Tensor, mask: Tensor | None, dtype: torch.dtype) -> None:
        self.layer = layer
        self.kind: Literal["dense", "lookup"] = kind
        self.inputs: Tensor | None = inputs
        self.mask = mask
        width = layer.shape[1] if kind == "lookup" else layer.shape[0]
        self.outputs = (*inputs.shape[:2], width)
        self.dtype = dtype


Heard = Callable[[Call, Tensor], None]
"""What is done with a call when the gradient of its output [samples, tokens, out] arrives."""


@contextmanager
def listening(model: nn.Module, layers: Sequence[LayerRef], batch: Batch, heard: Heard) -> Iterator[dict[str, list[Call]]]:
    """Within it, the model's forward passes note each use of the layers' weights, and backward passes call `heard` for each.

    Gradients flow to the layers' outputs even where no parameter wants one.

    Args:
        model: The model.
        layers: The layers of interest.
        batch: What the model will run on.
        heard: Called in the middle of the backward pass: what is not kept there is freed.

    Yields:
        Layer name to its calls, filled by the forward pass.
    """
    calls: dict[str, list[Call]] = {layer.name: [] for layer in layers}
    modules = dict(model.named_modules(remove_duplicate=False))
    samples, mask = len(batch.ids), token_mask(batch)

    def recorder(layer: LayerRef):
        def record(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            kind: Literal["dense", "lookup"] = "lookup" if isinstance(module, nn.Embedding) else "dense"
            inputs = arguments[0].detach()
            inputs = inputs.unsqueeze(0) if kind == "lookup" and inputs.dim() == 1 else inputs
            output = output if output.requires_grad else output.detach().requires_grad_()
            if kind == "lookup" and inputs.shape[0] == 1 and samples > 1:  # positions are looked up once for the whole batch
                inputs = inputs.expand(samples, -1)
                output = output.expand(samples, *output.shape[-2:])
            width = inputs.shape[-1:] if kind == "dense" else ()
            inputs = inputs.reshape(samples, -1, *width)
            fits = mask is not None and inputs.shape[1] == mask.shape[1]
            call = Call(layer, kind, inputs, mask if fits else None, output.dtype)
            calls[layer.name].append(call)
            output.register_hook(lambda gradient: heard(call, gradient.detach().reshape(call.outputs)))
            return output

        return record

    handles = [modules[path].register_forward_hook(recorder(layer)) for layer in layers for path in (layer.name, *layer.tied_to)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
