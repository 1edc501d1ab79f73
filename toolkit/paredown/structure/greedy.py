"""Try, remove, evaluate, keep (AxFormer, Nagarajan et al. 2022): coarse to fine, as long as the loss allows.

First whole attentions and MLPs, from the last block to the first; then heads, in each attention from the cheapest on; then groups of
channels, in each MLP from the least leverage on. A removal stays if the loss on the search data is at most the original's plus a
threshold. Attentions and MLPs go as they are; when heads or channels go, the projection that read them is refitted by least squares,
by moments taken at the beginning of the level. After its first refusal an attention loses no more heads, an MLP no more channels.

The search data decides some dozens of times, so its loss flatters: measure the result on other data.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from paredown.errors import ParedownError
from paredown.methods import channels, heads
from paredown.structure import projections
from paredown.structure.anatomy import Attention, Block, Mlp, find_blocks
from paredown.structure.fitting import damping, put_heads_
from paredown.structure.inputs import input_moments
from paredown.structure.measuring import mean_loss
from paredown.structure.removal import keep_channels_, remove_attention_, remove_mlp_, renumber_
from paredown.tasks import Batch, Predictions, Task

Level = Literal["pieces", "heads", "channels"]

CHANNEL_GROUPS = 8
"""Groups that the channels of an MLP are tried in."""


@dataclass(frozen=True, slots=True)
class Step:
    """One removal that was tried.

    Attributes:
        level: How coarse.
        piece: Module path of the attention or MLP.
        lost: What it would lose, in words.
        accepted: Whether it is gone.
        loss: On the search data after it, nats per unit; None where it can't be removed.
        parameters: Of the model without it; of the model as it is, where it can't be removed.
        note: Why it can't be removed; empty where it can.
    """

    level: Level
    piece: str
    lost: str
    accepted: bool
    loss: float | None
    parameters: int
    note: str = ""


def greedy(
    model: nn.Module,
    task: Task,
    batches: Sequence[Batch],
    *,
    threshold: float,
    levels: Sequence[Level] = ("pieces", "heads", "channels"),
    done: Sequence[Step] = (),
) -> Iterator[Step]:
    """Remove what the loss allows; between two steps the model is whole, so that the search may end at any of them.

    Args:
        model: It is changed as the steps come.
        task: What the loss is; where the search data has no labels, the KL to the model as it comes in.
        batches: The search data.
        threshold: How much the loss may rise above the original's in all, nats per unit.
        levels: Which kinds are tried, in this order.
        done: Steps of an earlier search with the same model, data and threshold, which are taken over without evaluation.

    Yields:
        Each step, accepted or not.

    Raises:
        ParedownError: If the threshold is negative, or the earlier steps are those of another search.
    """
    if not threshold >= 0:
        raise ParedownError(f"expected a threshold of 0 nats or more, got {threshold}")
    search = _Search(model, task, batches, threshold, list(done))
    makers = {"pieces": _pieces, "heads": _heads, "channels": _channels}
    for level in levels:
        yield from makers[level](search)
    if search.done:
        raise ParedownError(f"the earlier search went on with {search.done[0].piece}, this one has ended; give it the same model and data")


class _Search:
    """The model, what may be lost, and the steps that are known."""

    def __init__(self, model: nn.Module, task: Task, batches: Sequence[Batch], threshold: float, done: list[Step]) -> None:
        self.model, self.task, self.batches, self.done = model, task, batches, done
        self.original: list[Predictions] | None = None
        if task.offers_probabilities:
            with torch.no_grad():
                self.original = [task.predictions(model, batch) for batch in batches]
        self.limit = self.loss() + threshold

    def loss(self) -> float:
        return mean_loss(self.model, self.task, self.batches, self.original)

    def decided(self, level: Level, piece: str, lost: str) -> Step:
        """The step for the model as it was just changed: known from before, or by its loss."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        if self.done:
            step = self.done.pop(0)
            if (step.level, step.piece, step.lost) != (level, piece, lost):
                raise ParedownError(f"the earlier search tried {step.piece}, this one {piece}; give it the same model, data and threshold")
            return step
        loss = self.loss()
        return Step(level, piece, lost, loss <= self.limit, loss, parameters)

    def refused(self, level: Level, piece: str, lost: str, reason: str) -> Step:
        if self.done:
            self.done.pop(0)
        return Step(level, piece, lost, False, None, sum(parameter.numel() for parameter in self.model.parameters()), reason)


def _pieces(search: _Search) -> Iterator[Step]:
    model = search.model
    for block in reversed(find_blocks(model)):
        for piece in (*reversed(block.attentions), block.mlp):
            if piece is None:
                continue
            name = piece.core if isinstance(piece, Attention) else piece.output
            lost = "the attention" if isinstance(piece, Attention) else "the MLP"
            before = copy.deepcopy(model.get_submodule(block.path))
            try:
                remove_attention_(model, piece) if isinstance(piece, Attention) else remove_mlp_(model, piece)
            except ParedownError as error:
                yield search.refused("pieces", name, lost, str(error))
                continue
            step = search.decided("pieces", name, lost)
            if not step.accepted:
                model.set_submodule(block.path, before)
                renumber_(model)
            yield step


def _heads(search: _Search) -> Iterator[Step]:
    model = search.model
    found = [(block, attention) for block in find_blocks(model) for attention in block.attentions]
    found = [(block, attention) for block, attention in found if "heads" not in attention.refused and attention.key_heads > 1]
    moments = input_moments(model, search.task, search.batches, [attention.o for _, attention in found]) if found else {}
    for block, attention in found:
        moment, pull = moments[attention.o].second, damping(moments[attention.o])
        weight = projections.inputs(model, attention.o).dense.T
        order = heads.head_losses(weight, moment, attention.key_heads, damping=pull).argsort().tolist()
        unit = weight.shape[1] // attention.key_heads
        whole = copy.deepcopy(model.get_submodule(block.path))
        for lost in range(1, attention.key_heads):
            kept = torch.tensor(sorted(order[lost:]))
            before = model.get_submodule(block.path)
            model.set_submodule(block.path, copy.deepcopy(whole))
            columns = (kept[:, None] * unit + torch.arange(unit)).flatten()
            put_heads_(model, attention, kept, channels.project(weight, moment, columns, damping=pull).weight)
            step = search.decided("heads", attention.core, f"{lost} of {attention.key_heads} heads")
            if not step.accepted:
                model.set_submodule(block.path, before)
            yield step
            if not step.accepted:
                break


def _channels(search: _Search) -> Iterator[Step]:
    model = search.model
    found: list[tuple[Block, Mlp]] = [(block, block.mlp) for block in find_blocks(model) if block.mlp is not None]
    moments = input_moments(model, search.task, search.batches, [mlp.output for _, mlp in found]) if found else {}
    for block, mlp in found:
        moment, pull = moments[mlp.output].second, damping(moments[mlp.output])
        weight = projections.inputs(model, mlp.output).dense.T
        order = channels.leverage(moment, max(mlp.channels // 2, 1)).argsort()
        whole = copy.deepcopy(model.get_submodule(block.path))
        for group in range(1, CHANNEL_GROUPS):
            lost = group * mlp.channels // CHANNEL_GROUPS
            kept = order[lost:].sort().values
            before = model.get_submodule(block.path)
            model.set_submodule(block.path, copy.deepcopy(whole))
            keep_channels_(model, mlp, kept, channels.project(weight, moment, kept, damping=pull).weight)
            step = search.decided("channels", mlp.output, f"{lost} of {mlp.channels} channels")
            if not step.accepted:
                model.set_submodule(block.path, before)
            yield step
            if not step.accepted:
                break
