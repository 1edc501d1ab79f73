"""What a plan may use up besides bytes."""

from __future__ import annotations

from typing import Literal

from paredown.specs import LayerRef, Scheme

Resource = Literal["bytes", "bit_operations", "seconds"]
"""What a budget limits: size of the file, bit operations a token, or measured latency: `Candidate.seconds_per_token`, or a column in
whatever unit of work it was measured for."""

FULL_BITS = 16
"""Width of a weight or an input that is not rounded."""


def bit_operations(layer: LayerRef, scheme: Scheme) -> float:
    r"""Bit operations of a layer for one token: \(b_w\, b_a\) for each multiplication (HAWQ-V3, Yao et al., 2021).

    \(b_w\) and \(b_a\) are the widths of weights and inputs. Weights that are pruned away are not multiplied; factors of low rank are
    multiplied besides. A looked-up embedding multiplies nothing. This counts work, it is no latency: most kernels turn codes of few bits
    back into 16 before they multiply.

    Args:
        layer: The layer.
        scheme: What is done to it.
    """
    if layer.kind == "embedding":
        return 0.0
    out, inputs = layer.shape
    weight = FULL_BITS if scheme.weight is None else scheme.weight.bits
    activation = FULL_BITS if scheme.activation is None else scheme.activation.bits
    kept = out * inputs if scheme.sparsity is None else scheme.sparsity.kept(out, inputs)
    if scheme.low_rank is not None and scheme.weight is None and scheme.sparsity is None:
        kept = 0  # the factors replace the weight
    factors = 0 if scheme.low_rank is None else scheme.low_rank.rank * (out + inputs) * scheme.low_rank.bits
    return float((kept * weight + factors) * activation)
