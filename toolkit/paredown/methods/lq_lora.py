r"""LQ-LoRA: a quantized weight plus a low-rank one, found together (Guo et al. 2024).

Alternately \(Q \leftarrow \mathrm{quantize}(W - BA)\) and \(BA \leftarrow \mathrm{SVD}_r(W - Q)\). With a diagonal Fisher F the aim is
\(\|\sqrt F \odot (W - Q - BA)\|_F\), and the decomposition is that of \(D_r (W - Q) D_c\) with
\(D_r = \sqrt{\text{row means of } F}\) and \(D_c = \sqrt{\text{column means of } F}\), which is exact where F has rank one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import checks, moments
from paredown.methods.factors import LowRank
from paredown.methods.low_rank import scaled_svd

Codes = TypeVar("Codes")


@dataclass(frozen=True, eq=False, slots=True)
class Decomposed(Generic[Codes]):
    """W ≈ Q + BA.

    Attributes:
        quantized: Q as the quantizer gave it.
        factors: B and A.
        errors: The weighted error after each round, falling; the last belongs to what is returned.
        note: What was done about degenerate input; empty where nothing was.
    """

    quantized: Codes
    factors: LowRank
    errors: tuple[float, ...]
    note: str = ""


def decompose(
    weight: Tensor,
    rank: int,
    quantize: Callable[[Tensor], Codes],
    dequantize: Callable[[Codes], Tensor],
    *,
    fisher: Tensor | None = None,
    steps: int = 20,
    tolerance: float = 5e-3,
) -> Decomposed[Codes]:
    """Alternate until a round gains little or nothing; the best round is returned, not the last.

    Args:
        weight: [out, in].
        rank: Of the correction.
        quantize: Any quantizer of a float32 [out, in].
        dequantize: Its way back, to [out, in].
        fisher: Mean of squared gradients, [out, in]; None weighs all errors alike.
        steps: Most rounds; each costs a quantization and a singular value decomposition.
        tolerance: Relative gain of a round below which it is the last; 20 rounds gain a few percent over the half dozen of the default.

    Raises:
        ParedownError: If no step is asked for.
    """
    weight = checks.finite(checks.matrix(weight))
    fisher, note = moments.usable_fisher(torch.ones_like(weight) if fisher is None else fisher, weight.shape)
    rows, columns, root = fisher.mean(1).sqrt(), fisher.mean(0).sqrt(), fisher.sqrt()
    factors, best, errors = scaled_svd(weight, rows, columns, rank), None, []
    for _ in range(steps):
        quantized = quantize(weight - factors.dense())
        rest = weight - dequantize(quantized).float()
        factors = scaled_svd(rest, rows, columns, rank)
        error = float((root * (rest - factors.dense())).norm())
        if best is not None and error >= errors[-1]:
            break
        best = Decomposed(quantized, factors, (*errors, error), "; ".join(filter(None, (note, factors.note))))
        errors.append(error)
        if len(errors) > 1 and error > (1 - tolerance) * errors[-2]:
            break
    if best is None:
        raise ParedownError(f"expected at least one step, got {steps}")
    return best
