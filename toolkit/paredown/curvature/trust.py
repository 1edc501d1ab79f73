r"""May the quadratic model be trusted? One verdict for a layer, in words made from the figures; no tensors.

Two things can be wrong. The steps may be too long: along the rounding error of 8, 4, 3 and 2 bits, the loss is compared with what the
quadratic form said. And the weights may not be at a minimum, as Q-BERT (Shen et al., 2020) found on SQuAD, where the Hessian has
large negative eigenvalues and its trace misled the choice of bits: the gradient is compared with what chance gives, and the negative
curvature with all of it.

The thresholds, and why:

- A step holds if measured and predicted differ by at most a factor of `TOLERANCE` = 1.5: the error of rounding falls by four with each
  bit, so that misplaces a layer by 0.3 bits, less than the schemes are apart. It fails if they differ by more, and by more than two standard
  errors of their difference. Otherwise, or if that error exceeds half of the larger figure, it is unclear and says nothing. Both figures
  below `NEGLIGIBLE` hold: that is the arithmetic's own noise.
- Predictions that hold down to 3 bits are to be trusted: 4 bits and 3 bits are where allocation lives. Down to 4, with care. If they
  fail at 4 bits or more: no.
- A gradient of more than `GRADIENT` = 2 times its chance value is no chance: the noise of a mean of many samples has several effective
  dimensions, so that its norm spreads by a fifth or so.
- A block of a deep network has a bulk of small eigenvalues of both signs, which takes the negative share to a half by itself (0.49 to 0.50 in
  MiniLM). Above `NEGATIVE` = 0.6 the trace is negative by more than a fifth of the curvature's magnitude: on average, the loss falls away.
  Either makes the verdict "with care" at best, for steps along other directions than those that were tried.
"""

from __future__ import annotations

from collections.abc import Sequence

from paredown.specs import QuadraticStep, Scheme, Verdict

TOLERANCE = 1.5
"""Largest factor between measured and predicted that counts as agreement."""

NEGLIGIBLE = 1e-10
"""Changes of the loss that are not told from zero, nats per unit."""

GRADIENT = 2.0
"""Gradient norm over its chance value above which the weights are not at a minimum."""

NEGATIVE = 0.6
"""Share of negative curvature above which it outweighs the positive one."""


def judge(
    steps: Sequence[QuadraticStep], *, gradient_norm: float, gradient_norm_sd: float, negative_share: float | None
) -> tuple[Verdict, str]:
    """The verdict for one layer and the sentence that gives the reason.

    Args:
        steps: Predicted against measured, any order.
        gradient_norm: As in `QuadraticFit`.
        gradient_norm_sd: As in `QuadraticFit`.
        negative_share: As in `QuadraticFit`.

    Returns:
        Verdict and reason.

    Example:
        >>> steps = [QuadraticStep("int3", 0.1, 0.02, 0.11, 0.02, 0.01), QuadraticStep("int2", 0.5, 0.1, 1.2, 0.2, 0.1)]
        >>> judge(steps, gradient_norm=1.0, gradient_norm_sd=1.1, negative_share=0.02)
        ('yes', 'predictions hold down to 3 bits; at 2 bits the loss rose 2.4 times as much as predicted')
    """
    by_width = sorted(steps, key=_bits, reverse=True)
    known = [(step, _holds(step)) for step in by_width]
    failed = next((step for step, holds in known if holds is False), None)
    held = [step for step, holds in known if holds and (failed is None or _bits(step) > _bits(failed))]
    if failed is None and not held:
        return "unknown", "too few samples to tell predicted from measured" if steps else "nothing was measured yet"
    narrowest = _bits(held[-1]) if held else None
    words = f"predictions hold down to {narrowest} bits" if held else "predictions fail"
    if failed is not None:
        words += f"{'; ' if held else ': '}at {_bits(failed)} bits {_said(failed)}"
    elif held[-1] is not by_width[-1]:
        words += "; for fewer, the samples don't tell"
    verdict: Verdict = "yes" if narrowest is not None and narrowest <= 3 else "with care"
    if failed is not None and _bits(failed) >= 4:
        verdict = "no"
    doubts: list[str] = []
    if gradient_norm_sd > 0 and gradient_norm > GRADIENT * gradient_norm_sd:
        doubts.append(f"the gradient is {gradient_norm / gradient_norm_sd:.2g} times what chance gives")
    if negative_share is not None and negative_share > NEGATIVE:
        doubts.append(f"{100 * negative_share:.0f} % of the curvature is negative")
    if doubts:
        verdict = "with care" if verdict == "yes" else verdict
        words += f"; {' and '.join(doubts)}, so the weights are not at a minimum of the loss"
    return verdict, words


def _bits(step: QuadraticStep) -> int:
    weight = Scheme.parse(step.scheme).weight
    return 32 if weight is None else weight.bits


def _holds(step: QuadraticStep) -> bool | None:
    """Whether the prediction agrees with the measurement; None where the errors leave that open."""
    larger = max(abs(step.predicted), abs(step.measured))
    if larger < NEGLIGIBLE:
        return True
    if step.difference_sd > larger / 2:
        return None
    if step.predicted > 0 and 1 / TOLERANCE <= step.measured / step.predicted <= TOLERANCE:
        return True
    return False if abs(step.measured - step.predicted) > 2 * step.difference_sd else None


def _said(step: QuadraticStep) -> str:
    if step.measured <= 0:
        return "the loss did not rise, where a rise was predicted"
    if step.predicted <= 0:
        return "the loss rose, where no rise was predicted"
    return f"the loss rose {step.measured / step.predicted:.2g} times as much as predicted"
