"""Where a model's scales can be folded: norms whose output goes to linear layers alone, and layers whose rows make another one's inputs.

Norms are found by what reads their output in a forward pass, rows by the layers' roles (v → o, up → down, fc1 → fc2). Both are
proposals: what is returned as found has been tried with random scales, and the model answered as before.

What does not fold, and is refused in words:

- Norms behind the residual (post-norm: BERT, RoBERTa, DistilBERT, wav2vec 2.0 base): their output is the residual, too.
- fc1 → fc2 through GELU, SiLU or the like: only where act(s x) = s act(x), as for ReLU, does a scale pass. Gated MLPs have it easier:
  up enters as a factor.
- A tensor that several modules share: a scale would change all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from torch import Tensor, nn

from paredown.folding.foldings import Folding, Form, Refused
from paredown.folding.trace import Call, Trace, trace
from paredown.folding.verify import Answers, random_scales, verified
from paredown.specs import LayerRef

_SOURCES: Mapping[str, tuple[str, ...]] = {"o": ("v", "qkv"), "xo": ("xv",), "down": ("up",), "fc2": ("fc1",)}
"""Role of a reader to the roles of what makes its inputs."""


@dataclass(frozen=True, slots=True)
class Found:
    """What can be folded in a model, rows before norms, and what can't."""

    foldings: tuple[Folding, ...]
    refused: tuple[Refused, ...]


@torch.no_grad()
def find_foldings(model: nn.Module, layers: Sequence[LayerRef], answers: Answers) -> Found:
    """Find every folding of a model, each of them tried.

    Args:
        model: The model, in evaluation mode; it is left bit for bit as it was.
        layers: Its compressible layers.
        answers: Runs it on a batch, and returns its logits: what must not change. Other outputs may: the encoder's last hidden state of
            Whisper and T5 is scaled where the decoder's keys and values take the inverse.

    Returns:
        Foldings, and refusals with reasons.
    """
    by_name = {layer.name: layer for layer in layers}
    seen = trace(model, layers, answers)
    proposals = [*_rows(model, layers, seen), *_norms(model, layers, seen)]
    refused = [proposal for proposal in proposals if isinstance(proposal, Refused)]
    foldings = [proposal for proposal in proposals if isinstance(proposal, Folding)]
    widths = {folding: by_name[folding.readers[0]].shape[1] for folding in foldings}
    changed = verified(model, by_name, random_scales(foldings, widths), answers)
    refused += [Refused(folding.source, folding.readers, _why(folding, change)) for folding, change in changed.items()]
    return Found(tuple(folding for folding in foldings if folding not in changed), tuple(refused))


def _why(folding: Folding, change: float) -> str:
    amount = f"a scale changes the logits by {change:.1%}"
    if folding.form == "rows":
        return f"what lies between them does not pass a scale on: {amount}"
    return f"the norm's output does not go to them alone (in post-norm blocks it is the residual, too): {amount}"


def _norms(model: nn.Module, layers: Sequence[LayerRef], seen: Trace) -> list[Folding | Refused]:
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    idle = {layer.block for layer in layers if layer.kind != "embedding" and layer.name not in seen.reads}
    proposals: list[Folding | Refused] = []
    for path, calls in seen.norms.items():
        made = {call.output for call in calls}
        readers = [layer for layer in layers if made & set(seen.reads.get(layer.name, ()))]
        if not readers:
            continue
        names = tuple(layer.name for layer in readers)
        module = model.get_submodule(path)
        if any(uses[id(parameter)] > 1 for parameter in module.parameters()):
            proposals.append(Refused(path, names, "several modules share the norm's weight, and a scale would change all of them"))
        elif tied := _tied(readers):
            proposals.append(Refused(path, names, tied))
        elif any(layer.block in idle for layer in readers):
            proposals.append(Refused(path, names, "the batch never runs another layer of the block, so that its inputs are not known"))
        elif any(not set(seen.reads[name]) <= made for name in names):
            proposals.append(Refused(path, names, "one of them reads the outputs of other modules, too"))
        elif (form := _form(module, calls[0])) is None:
            proposals.append(Refused(path, names, "dividing the module's weight does not divide its output"))
        else:
            proposals.append(Folding(path, form, names))
    return proposals


def _form(norm: nn.Module, call: Call) -> Form | None:
    """Whether the output goes with the weight or with 1 + weight: tried."""
    weight, bias = norm.weight, getattr(norm, "bias", None)
    assert isinstance(weight, Tensor)
    divisor = random_scales([probe := Folding("", "norm", ())], {probe: len(weight)})[probe].to(weight.dtype)
    before, expected = weight.data, norm(*call.arguments, **call.options) / divisor
    bias_before = bias.data if isinstance(bias, Tensor) else None
    forms: tuple[tuple[Form, Tensor], ...] = (("norm", before / divisor), ("norm+1", (1 + before) / divisor - 1))
    try:
        for form, changed in forms:
            weight.data = changed
            if isinstance(bias, Tensor) and bias_before is not None:
                bias.data = bias_before / divisor
            if torch.allclose(norm(*call.arguments, **call.options), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())):
                return form
        return None
    finally:
        weight.data = before
        if isinstance(bias, Tensor) and bias_before is not None:
            bias.data = bias_before


def _rows(model: nn.Module, layers: Sequence[LayerRef], seen: Trace) -> list[Folding | Refused]:
    proposals: list[Folding | Refused] = []
    for reader in layers:
        sources = [
            layer
            for layer in layers
            if layer.block == reader.block and layer.role in _SOURCES.get(reader.role, ()) and layer.kind != "embedding"
        ]
        if not sources:
            continue
        source = max(sources, key=lambda layer: _near(layer.name, reader.name))  # an expert's own
        proposal = _layout(model, source, reader)
        reason = _tied([source, reader])
        if not {source.name, reader.name} <= seen.reads.keys():
            reason = "the batch never runs them"
        elif not reason and reader.role == "fc2" and source.shape[0] == reader.shape[1]:
            reason = _act_between(seen, source)
        proposals.append(Refused(source.name, (reader.name,), reason) if reason else proposal)
    return proposals


def _near(path: str, other: str) -> int:
    """How many modules contain both."""
    pairs = zip(path.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _layout(model: nn.Module, source: LayerRef, reader: LayerRef) -> Folding | Refused:
    """Which rows of the source make the reader's inputs."""
    rows, inputs = source.shape[0], reader.shape[1]
    if source.role == "qkv":  # queries, keys, values
        rows = (rows - inputs) // 2
    elif source.role in ("up", "fc1") and rows == 2 * inputs:  # gate, up
        rows = inputs
    folding = Folding(source.name, "rows", (reader.name,), source.shape[0] - rows)
    if rows == inputs:
        return folding
    head_dim = _head_dim(model, source)
    if rows < 1 or inputs % rows or source.role not in ("v", "qkv") or not head_dim or rows % head_dim:
        return Refused(
            source.name,
            (reader.name,),
            f"expected {inputs} rows that make the {inputs} inputs, or heads that divide them, got {source.shape[0]}",
        )
    return replace(folding, repeats=inputs // rows, head_dim=head_dim)


def _head_dim(model: nn.Module, source: LayerRef) -> int:
    """Width of a head: what the attention module around the layer says; 0 where it does not."""
    path = source.name
    while path:
        path = path.rpartition(".")[0]
        if isinstance(width := getattr(model.get_submodule(path), "head_dim", None), int):
            return width
    return 0


def _act_between(seen: Trace, source: LayerRef) -> str:
    """Why the activation that reads a layer's output does not pass a scale; empty where it does, or where no module was seen."""
    for storage in seen.makes[source.name]:
        if storage not in seen.acts:
            continue
        act, values = seen.acts[storage]
        for factor in (0.5, 2.0):
            expected = factor * act(values.clone())
            if not torch.allclose(act(factor * values), expected, rtol=1e-4, atol=1e-6 * float(expected.abs().max())):
                return f"{type(act).__name__} lies between them, and act(s x) = s act(x) does not hold as it does for ReLU"
    return ""


def _tied(layers: Sequence[LayerRef]) -> str:
    tied = next((layer for layer in layers if layer.tied_to), None)
    return "" if tied is None else f"{tied.name} shares its tensor with {tied.tied_to[0]}, and a scale would change both"
