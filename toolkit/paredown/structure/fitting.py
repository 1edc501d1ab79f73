"""Choose what a layer loses by the statistics of its inputs, take it out, and let what is left make up for it.

A least squares fit of as many inputs as there are tokens follows the tokens, and does more damage on others than no fit at all. So
the pull towards plain removal grows as tokens get fewer: `damping`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paredown.errors import ParedownError
from paredown.methods import attention_rank, channels, heads
from paredown.structure import projections
from paredown.structure.anatomy import Attention, Block, Mlp, Piece, find_blocks
from paredown.structure.inputs import InputMoments, input_moments
from paredown.structure.projections import Side
from paredown.structure.removal import check, factor_value_output_, keep_channels_, keep_heads_, keep_query_key_dimensions_, projected
from paredown.tasks import Batch, Task


@dataclass(frozen=True, slots=True)
class Fractions:
    """What share of each kind stays.

    Attributes:
        mlp: Of the channels.
        heads: Of the heads; of the key-value heads where queries are grouped.
        qk: Of each head's query and key dimensions.
        vo: Of the rank of each head's values.
    """

    mlp: float = 1.0
    heads: float = 1.0
    qk: float = 1.0
    vo: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mlp", "heads", "qk", "vo"):
            if not 0 < getattr(self, name) <= 1:
                raise ParedownError(f"expected a share of {name} to keep, above 0 and at most 1, got {getattr(self, name)}")


def fit_block_(
    model: nn.Module, task: Task, batches: Sequence[Batch], path: str, fractions: Fractions, *, compensate: bool = True
) -> list[str]:
    """Shrink one block by shares: heads, then the rank inside them, then the MLP; each by moments of the model as it is by then.

    Args:
        model: It is changed.
        task: How it is run.
        batches: Calibration data.
        path: Of the block.
        fractions: What stays.
        compensate: Whether the layers that follow are refitted by least squares; else they lose their columns.

    Returns:
        What was left alone and why, and what was done about degenerate inputs; in words.
    """
    notes: list[str] = []

    def attentions(piece: Piece) -> list[Attention]:
        found = _block(model, path).attentions
        notes.extend(f"{attention.core} keeps its {piece}: {attention.refused[piece]}" for attention in found if piece in attention.refused)
        return [attention for attention in found if piece not in attention.refused]

    if fractions.heads < 1 and (found := attentions("heads")):
        moments = input_moments(model, task, batches, [attention.o for attention in found])
        for attention in found:
            keep = count(fractions.heads, attention.key_heads)
            notes.append(_note(attention.o, fit_heads_(model, attention, keep, moments[attention.o], compensate=compensate)))
    ranks = [attention for attention in attentions("value-output rank") if fractions.vo < 1]
    dimensions = attentions("query-key dimensions") if fractions.qk < 1 else []
    paths = {path for attention in dimensions for path in (attention.q, attention.k)} | {attention.v for attention in ranks}
    moments = input_moments(model, task, batches, sorted(paths)) if paths else {}
    for attention in dimensions:
        fit_query_keys_(model, attention, count(fractions.qk, attention.head_dim, 1 + attention.rotary), moments)
    for attention in ranks:
        rank = count(fractions.vo, attention.head_dim)
        notes.append(_note(attention.o, fit_value_output_(model, attention, rank, moments[attention.v])))
    mlp = _block(model, path).mlp
    if fractions.mlp < 1 and mlp is not None:
        moment = input_moments(model, task, batches, [mlp.output])[mlp.output]
        keep = count(fractions.mlp, mlp.channels)
        notes.append(_note(mlp.output, fit_channels_(model, mlp, keep, moment, compensate=compensate)))
    return [note for note in notes if note]


def fit_channels_(model: nn.Module, mlp: Mlp, keep: int, moments: InputMoments, *, compensate: bool = True) -> str:
    """Keep the channels of the largest ridge leverage; see `paredown.methods.channels`.

    Args:
        model: It is changed.
        mlp: Whose channels.
        keep: How many stay.
        moments: Of the inputs of its output projection.
        compensate: Whether that is refitted.

    Returns:
        What was done about degenerate inputs, in words.
    """
    weight = projections.inputs(model, mlp.output).dense.T
    made = channels.keep_channels(weight, moments.second, keep, damping=damping(moments))
    keep_channels_(model, mlp, made.kept, made.weight if compensate else None)
    return made.note


def fit_heads_(model: nn.Module, attention: Attention, keep: int, moments: InputMoments, *, compensate: bool = True) -> str:
    """Keep the heads whose single removal costs most; see `paredown.methods.heads`.

    Args:
        model: It is changed.
        attention: Whose heads.
        keep: How many key-value heads stay.
        moments: Of the inputs of the output projection.
        compensate: Whether that is refitted.

    Returns:
        What was done about degenerate inputs, in words.
    """
    check(attention, "heads")
    side = projections.inputs(model, attention.o)
    made = heads.keep_heads(side.dense.T, moments.second, attention.key_heads, keep, damping=damping(moments))
    put_heads_(model, attention, made.kept, made.output if compensate else None)
    return made.note


def put_heads_(model: nn.Module, attention: Attention, kept: Tensor, output: Tensor | None) -> None:
    """Keep some heads with a new output projection, of which an earlier cut of the rank has left only some columns.

    Args:
        model: It is changed.
        attention: Whose heads.
        kept: Which key-value heads stay, int64, ascending.
        output: The output projection of all positions of the kept heads, [out, kept × unit]; the old one where None.
    """
    side = projections.inputs(model, attention.o)
    if output is not None:
        unit = side.width // attention.key_heads
        output = output[:, torch.isin((kept[:, None] * unit + torch.arange(unit)).flatten(), side.index)]
    keep_heads_(model, attention, kept, output)


def fit_query_keys_(model: nn.Module, attention: Attention, keep: int, moments: Mapping[str, InputMoments]) -> None:
    """Keep the dimensions of each head that add most to the scores; see `paredown.methods.attention_rank`.

    Args:
        model: It is changed.
        attention: Whose queries and keys.
        keep: How many dimensions stay in each head; even where they are rotated.
        moments: Of the inputs of its query and key projections, by path.
    """
    check(attention, "query-key dimensions")
    query, key = (
        attention_rank.mean_squares(side.dense, moments[path].second, _dense_bias(side), moments[path].mean)
        for side, path in ((projected(model, attention, "q"), attention.q), (projected(model, attention, "k"), attention.k))
    )
    scores = attention_rank.query_key_scores(query, key, attention.key_heads, rotary=attention.rotary)
    keep_query_key_dimensions_(model, attention, attention_rank.keep_dimensions(scores, keep, rotary=attention.rotary))


def fit_value_output_(model: nn.Module, attention: Attention, rank: int, moments: InputMoments) -> str:
    """Put the best values of lower rank in place; see `paredown.methods.attention_rank`.

    Args:
        model: It is changed.
        attention: Whose values.
        rank: Of each head.
        moments: Of the inputs of its value projection.

    Returns:
        What was done about degenerate inputs, in words.
    """
    check(attention, "value-output rank")
    values, output = projected(model, attention, "v"), projections.inputs(model, attention.o)
    factors = attention_rank.value_output(
        values.dense, output.dense.T, moments.second, attention.key_heads, rank, value_bias=_dense_bias(values)
    )
    factor_value_output_(model, attention, factors)
    return factors.note


def damping(moments: InputMoments) -> float:
    """Weight of staying at the old projection, relative to the mean of the squared inputs: ½ × inputs / tokens, at least 1e-4.

    Picked on the sentiment demo by held-out KL, all its MLPs cut to 80, 70 and 50 % on three slices of its reviews with 1.4 tokens for each
    input: ½ did less damage than 0.1 in all nine cases, 2 about as much.
    """
    return max(channels.DAMPING, 0.5 * len(moments.mean) / moments.tokens)


def count(fraction: float, whole: int, step: int = 1) -> int:
    """The nearest number of steps to a share of the whole, at least one.

    Example:
        >>> count(0.7, 64, 2), count(0.01, 12)
        (44, 1)
    """
    return step * min(max(round(fraction * whole / step), 1), whole // step)


def _dense_bias(side: Side) -> Tensor | None:
    return None if side.bias is None else side.bias.new_zeros(side.width).index_copy_(0, side.index, side.bias)


def _block(model: nn.Module, path: str) -> Block:
    return next(block for block in find_blocks(model) if block.path == path)


def _note(path: str, note: str) -> str:
    return f"{path}: {note}" if note else ""
