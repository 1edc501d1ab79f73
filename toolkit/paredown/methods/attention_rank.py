r"""Smaller heads: fewer dimensions of queries and keys, and values of lower rank (MoDeGPT's modules II and III, Lin et al. 2025).

Queries and keys meet in \(\sum_i q_i k_i\), a product of two matrices summed over the dimensions of a head. CR keeps the terms with
the largest \(\sqrt{E[q_i^2]}\, \sqrt{E[k_i^2]}\), which over T tokens is \(\|q_i\| \|k_i\| / T\), the Frobenius norm of the term itself.
Rotary embeddings mix dimension i with i + d/2, so that pairs are kept or dropped, by norms that the rotation leaves alone. Queries
that share a key head share the choice, by the sum of their scores. The scale of the scores stays that of the full dimension.

Values and the output projection meet in \(W_O W_V\), without anything between them but an average over tokens: the best rank-r product
under the inputs' moment C is the cut decomposition of \(W_O W_V C^{1/2}\), found here from two matrices of a head's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks, moments


@dataclass(frozen=True, eq=False, slots=True)
class ValueOutput:
    r"""Value and output projections through heads of lower rank.

    Attributes:
        value: Float32 [key-value heads × rank, in].
        output: Float32 [out, heads × rank].
        bias: What the output's bias gains from the old value bias, float32 [out]; the new value projection has none. Attention
            weights sum to one, so that this is exact.
        singular_values: Of each head's \(W_O W_V C^{1/2}\), float64 [key-value heads, head dimension], descending; the squared error
            that a rank leaves is the sum of their squares beyond it.
        note: What was done about degenerate input; empty where nothing was.
    """

    value: Tensor
    output: Tensor
    bias: Tensor
    singular_values: Tensor
    note: str = ""


def mean_squares(weight: Tensor, moment: Tensor, bias: Tensor | None = None, mean: Tensor | None = None) -> Tensor:
    r"""\(E[(Wx + b)_i^2]\) of each output, float64 [out].

    Args:
        weight: [out, in].
        moment: Mean of x xᵀ over tokens, [in, in].
        bias: b, [out]; None where there is none.
        mean: Mean of x, [in]; needed with a bias.

    Raises:
        ParedownError: If there is a bias but no mean.
    """
    weight = checks.finite(checks.matrix(weight)).double()
    moment, _ = moments.usable(moment, weight.shape[1])
    squares = ((weight @ moment) * weight).sum(1).clamp(min=0)
    if bias is None:
        return squares
    if mean is None:
        raise ParedownError("expected the mean of the inputs beside the bias, whose product with them counts too")
    bias = bias.double()
    return (squares + 2 * bias * (weight @ mean.double()) + bias.square()).clamp(min=0)


def query_key_scores(query_squares: Tensor, key_squares: Tensor, key_heads: int, *, rotary: bool) -> Tensor:
    """The norm of what each dimension of a head adds to the attention scores, float64 [key-value heads, dimensions].

    Args:
        query_squares: From `mean_squares`, [heads × dimension].
        key_squares: From `mean_squares`, [key-value heads × dimension].
        key_heads: Key-value heads; each is shared by as many consecutive query heads.
        rotary: Dimension i is rotated together with i + dimension / 2; the scores are then those of the pairs, [.., dimension / 2].
    """
    keys = key_squares.unflatten(0, (key_heads, 1, -1))  # [key heads, queries that share it, dimension]
    queries = query_squares.reshape(key_heads, -1, keys.shape[-1])
    if rotary:
        queries, keys = (squares.unflatten(-1, (2, -1)).sum(-2) for squares in (queries, keys))
    return (queries * keys).sqrt().sum(1)


def keep_dimensions(scores: Tensor, keep: int, *, rotary: bool) -> Tensor:
    """The dimensions of each head with the largest scores, int64 [key-value heads, keep].

    With rotary embeddings the first half holds the chosen i and the second their i + dimension / 2, so that the smaller head is
    rotated as the larger one was, with the cosines and sines of the kept dimensions.

    Args:
        scores: From `query_key_scores`.
        keep: Dimensions that stay, even with rotary embeddings.
        rotary: As there.

    Raises:
        ParedownError: If a head has not that many, or an odd number of rotated ones is asked for.
    """
    units, pairs = scores.shape[1], 2 if rotary else 1
    if not pairs <= keep <= pairs * units or keep % pairs:
        raise ParedownError(f"expected to keep {pairs} to {pairs * units} dimensions of a head{', in pairs' * rotary}, got {keep}")
    kept = scores.topk(keep // pairs, dim=1).indices.sort(dim=1).values
    return torch.cat([kept, kept + units], 1) if rotary else kept


def take(rows: Tensor, kept: Tensor, heads: int) -> Tensor:
    """What stays of a query or key projection: its weight [heads × dimension, in] or bias [heads × dimension].

    Args:
        rows: The weight or bias.
        kept: From `keep_dimensions`, [key-value heads, keep].
        heads: Heads of this projection.
    """
    split = rows.unflatten(0, (heads, -1))
    index = kept.repeat_interleave(heads // len(kept), 0)
    return torch.cat([head[dimensions] for head, dimensions in zip(split, index, strict=True)])


def value_output(
    value: Tensor, output: Tensor, moment: Tensor, key_heads: int, rank: int, *, value_bias: Tensor | None = None
) -> ValueOutput:
    r"""The value and output projections of each head through rank r.

    With \(T = (W_V C W_V^T)^{1/2}\) and the sum of \(W_O^T W_O\) over the query heads that share the values, M, both [dimension, dimension],
    \(T M T = P \Lambda P^T\) holds the squared singular values of \(W_O W_V C^{1/2}\), and the best factors are
    \(W_O T P_r \Lambda_r^{-1/2}\) and \(\Lambda_r^{-1/2} P_r^T T M W_V\). C is never inverted.

    Args:
        value: W_V, [key-value heads × dimension, in].
        output: W_O, [out, heads × dimension].
        moment: C, mean of x xᵀ over tokens, [in, in].
        key_heads: Key-value heads; each is shared by as many consecutive query heads.
        rank: r, dimensions of the new value heads.
        value_bias: [key-value heads × dimension]; None where there is none.

    Raises:
        ParedownError: If the shapes do not belong together, or a head has not that many dimensions.
    """
    value, output = checks.finite(checks.matrix(value)).double(), checks.finite(checks.matrix(output)).double()
    if len(value) % key_heads or output.shape[1] % len(value):
        raise ParedownError(
            f"expected {key_heads} heads of values and a multiple of them in the output projection, got {len(value)} values"
            f" and {output.shape[1]} inputs of the output"
        )
    dimension = len(value) // key_heads
    if not 1 <= rank <= dimension:
        raise ParedownError(f"expected a rank of 1 to {dimension} in heads of {dimension} dimensions, got {rank}")
    moment, note = moments.usable(moment, value.shape[1])
    moments.add_ridge_(moment)
    values = value.reshape(key_heads, dimension, -1)
    outputs = output.reshape(len(output), key_heads, -1, dimension).permute(1, 2, 0, 3)  # [key heads, shared by, out, dimension]
    root = _root(values @ moment @ values.mT)
    gram = (outputs.mT @ outputs).sum(1)
    squares, vectors = torch.linalg.eigh(root @ gram @ root)
    squares, vectors = squares.flip(-1).clamp(min=0), vectors.flip(-1)[..., :rank]
    # directions below the rounding of the factorisations hold nothing
    inverse = torch.where(squares > 1e-14 * squares[:, :1], squares**-0.5, 0.0)[:, None, :rank]
    directions = root @ vectors * inverse  # T P Λ^{-1/2}
    smaller = (outputs @ directions[:, None]).permute(2, 0, 1, 3).flatten(1)
    bias = output.new_zeros(len(output))
    if value_bias is not None:
        bias = (outputs @ value_bias.double().reshape(key_heads, 1, dimension, 1)).sum((0, 1))[:, 0]
    return ValueOutput((directions.mT @ gram @ values).flatten(0, 1).float(), smaller.float(), bias.float(), squares.sqrt(), note)


def _root(matrices: Tensor) -> Tensor:
    """Symmetric square roots of positive semidefinite matrices."""
    values, vectors = torch.linalg.eigh(matrices)
    return vectors * values.clamp(min=0).sqrt()[..., None, :] @ vectors.mT
