"""What a plan really does: metric with interval, loss, KL to the original model, flipped predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from paredown.evaluation.observation import Observation
from paredown.specs import Measurement, Metric, Plan, Split
from paredown.tasks import Predictions, Scores, Task
from paredown.tasks.base import row_losses, rows_at_once

RESAMPLES = 2000
"""Bootstrap resamples of a metric's interval."""

EMULATED = "dequantized float32 weights (emulated)"
"""Kernel of a measurement that multiplies by the exactly dequantized weights, for want of a low-bit kernel."""


def compare(
    original: Observation,
    compressed: Observation,
    task: Task,
    plan: Plan,
    *,
    split: Split,
    data_digest: str,
    kernel: str = EMULATED,
    seed: int = 0,
) -> Measurement:
    """Measure a plan's observation against the original model's on the same batches.

    Args:
        original: The original model's.
        compressed: The compressed model's.
        task: What both were asked.
        plan: The plan, for its digest and bytes.
        split: Which split it was.
        data_digest: Identifies the data.
        kernel: What multiplied the weights.
        seed: Seed of the bootstrap.

    Returns:
        The measurement. KL and flips count every unit alike; the standard error of the KL is over samples.
    """
    kl = kl_sd = flips = None
    if original.predictions:
        kl, kl_sd = _kl(*sample_divergences(original.predictions, compressed.predictions))
        changed = sum(
            int((a.logits.argmax(-1) != b.logits.argmax(-1)).sum())
            for a, b in zip(original.predictions, compressed.predictions, strict=True)
        )
        flips = changed / max(original.units, 1)
    return Measurement(
        plan_digest=plan.digest,
        data_digest=data_digest,
        split=split,
        n=len(compressed.scores.numerator),
        metric=_metric(compressed.scores, task, seed),
        loss=_loss(compressed.predictions),
        baseline_loss=_loss(original.predictions),
        kl=kl,
        kl_sd=kl_sd,
        flips=flips,
        bytes=plan.bytes,
        seconds_per_unit=compressed.seconds / max(compressed.units, 1),
        device=next((str(p.logits.device) for p in compressed.predictions), "cpu"),
        kernel=kernel,
        versions=_versions(),
    )


def divergence(original: Tensor, compressed: Tensor) -> Tensor:
    r"""\(\mathrm{KL}(p \| q) = \sum_c p_c (\log p_c - \log q_c)\) of each row, nats.

    Args:
        original: Logits of p, [units, classes].
        compressed: Logits of q, [units, classes].

    Returns:
        [units], float64, at least 0.
    """
    rows = rows_at_once(original)
    return torch.cat([_divergence(p, q) for p, q in zip(original.split(rows), compressed.split(rows), strict=True)])


def _divergence(original: Tensor, compressed: Tensor) -> Tensor:
    log_p, log_q = original.log_softmax(-1), compressed.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1, dtype=torch.float64).clamp(min=0)


def interval(scores: Scores, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float | None, float | None]:
    """The metric and its 95 % percentile-bootstrap interval over samples (Efron, 1979); no interval below two samples."""
    transform = np.exp if scores.transform == "exp" else lambda value: value
    numerator, denominator = np.asarray(scores.numerator), np.asarray(scores.denominator)
    value = float(transform(numerator.sum() / denominator.sum()))
    samples = len(numerator)
    if samples < 2:
        return value, None, None
    counts = np.random.default_rng(seed).multinomial(samples, np.full(samples, 1 / samples), size=resamples)
    total = np.maximum(counts @ denominator, np.finfo(float).tiny)
    low, high = np.quantile(transform(counts @ numerator / total), (0.025, 0.975))
    return value, float(low), float(high)


def _metric(scores: Scores, task: Task, seed: int) -> Metric:
    value, low, high = interval(scores, seed=seed)
    return Metric(task.metric, value, low, high, task.higher_is_better)


def sample_divergences(
    original: Sequence[Predictions], compressed: Sequence[Predictions], sizes: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """Of each sample: its divergence summed over its counted units, and their number, [samples] each, float64.

    Args:
        original: The original model's predictions, batch by batch.
        compressed: The compressed model's of the same batches.
        sizes: Samples in each batch; where not given, those behind the last counted unit of a batch are left out.
    """
    sums: list[Tensor] = []
    counts: list[Tensor] = []
    for before, after, rows in zip(original, compressed, sizes or map(_counted, original), strict=True):
        each = torch.zeros(rows, dtype=torch.float64).index_add_(0, before.sample, divergence(before.logits, after.logits))
        sums.append(each)
        counts.append(torch.bincount(before.sample, minlength=rows).double())
    return torch.cat(sums), torch.cat(counts)


def _counted(predictions: Predictions) -> int:
    """Samples up to the last that has a counted unit."""
    return int(predictions.sample.max()) + 1 if len(predictions.sample) else 0


def _kl(total: Tensor, units: Tensor) -> tuple[float, float]:
    mean = total.sum() / units.sum()
    n = len(total)
    residual = (total - mean * units).square().sum()
    return float(mean), float((residual * n / max(n - 1, 1)).sqrt() / units.sum())


def _loss(predictions: Sequence[Predictions]) -> float | None:
    if not predictions or any(p.targets is None for p in predictions):
        return None
    total = sum(float(row_losses(p.logits, p.targets).sum(dtype=torch.float64)) for p in predictions if p.targets is not None)
    return total / max(sum(len(p.logits) for p in predictions), 1)


def _versions() -> dict[str, str]:
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__}
