"""A sparsity on a weight: which criterion of a scheme calls which method."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from paredown.methods import kfac_pruning, mfac
from paredown.methods.error_feedback import InverseFactor
from paredown.methods.masks import NOfM, Pattern, Unstructured
from paredown.methods.pruning import Pruned, prune
from paredown.methods.refit import refit
from paredown.methods.saliency import diagonal_fisher, magnitude, wanda
from paredown.methods.sparse_gpt import sparse_gpt
from paredown.methods.statistics import Statistics
from paredown.specs import Criterion, Scheme, Sparsity

FITS_GRADIENTS = ("mfac", "kfac")
"""Criteria that fit the kept weights to gradients of the loss; on the samples that these come from they look better than they are."""


def prune_by(weight: Tensor, scheme: Scheme, seen: Statistics | None) -> Pruned:
    """Prune a weight.

    Args:
        weight: [out, in], any floating type.
        scheme: With a sparsity and its criterion.
        seen: Of the layer; None will do for the criterion ``magnitude``. The last mask is kept there, for the next scheme that has it.

    Returns:
        The weight, with the kept weights as the criterion has them, and the mask.
    """
    assert scheme.sparsity is not None
    pattern = pattern_of(scheme.sparsity)
    if scheme.criterion == "magnitude":
        return prune(weight, magnitude(weight), pattern)
    assert seen is not None  # `compress` has looked
    return seen.last((weight, pattern, scheme.criterion), lambda: _prune(weight, scheme.criterion, pattern, seen))


def _prune(weight: Tensor, criterion: Criterion, pattern: Pattern, seen: Statistics) -> Pruned:
    if criterion == "wanda":
        return replace(prune(weight, wanda(weight, seen.moment), pattern), note=seen.note)
    if criterion == "sparsegpt":
        return sparse_gpt(weight, factor_of(pattern, seen), pattern)
    if criterion == "fisher":
        return prune(weight, diagonal_fisher(weight, seen.fisher(len(weight))), pattern)
    if criterion == "mfac":
        return mfac.prune(weight, seen.sample_gradients, pattern, mean_square=float(seen.fisher(len(weight)).mean(dtype=torch.float64)))
    chosen = prune(weight, kfac_pruning.surgeon_saliency(weight, seen.inverse_diagonal()), pattern)
    pruned = kfac_pruning.compensate(weight, chosen.mask, seen.moment, seen.outputs)
    return replace(pruned, note=f"{seen.note}; {pruned.note}")


def solved(weight: Tensor, pruned: Pruned, criterion: Criterion, factor: InverseFactor) -> Tensor:
    """What is rounded for the outputs with the mask fixed: the kept weights solved for, unless the criterion fits them to gradients."""
    if criterion not in FITS_GRADIENTS:
        return refit(weight.float(), pruned.weight, pruned.mask, factor)
    return pruned.weight


def pattern_of(sparsity: Sparsity) -> Pattern:
    """A sparsity as the pruning methods take it."""
    pair = sparsity.n_of_m
    return Unstructured(sparsity.fraction) if pair is None else NOfM(*pair)


def factor_of(pattern: Pattern | None, seen: Statistics) -> InverseFactor:
    """The inverse second moment in the order that suits a pattern, or rounding alone."""
    if pattern is None:
        return seen.factor("activation", 1)
    return seen.factor("activation", pattern.m) if isinstance(pattern, NOfM) else seen.factor("natural", 1)
