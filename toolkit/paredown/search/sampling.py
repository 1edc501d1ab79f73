"""Mean losses of plans that ran on the same samples, and what these samples leave open: errors that the plans have in common, in part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paredown.search.paired import standard_error


def estimates(losses: Sequence[np.ndarray], references: Sequence[np.ndarray], units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean losses and the covariance of their errors, beside a level that is common to all plans.

    Some samples are hard for every plan: \(x_{is} \approx \bar x_i h_s\). How many of them were drawn moves all means in proportion, and
    no plan past another. So what the samples leave open is taken of \(r_{is} = x_{is} - \bar x_i h_s\), with \(\sum_s h_s = \sum_s u_s\) by
    least squares, plans weighted by the inverse of their variance; then \(C_{ij} = \frac{S}{S - 1} \sum_s r_{is} r_{js} / (\sum_s u_s)^2\).
    With the common error left in, errors in proportion to the data would make whatever is fitted come out below all of it (Peelle's
    puzzle; D'Agostini, 1994).

    A plan that ran on a part of the samples counts by its difference to a plan that ran on all, whose losses stand for those that it lacks,
    shifted by the mean difference; how little is known of that difference (`standard_error`) is added to its variance.

    Args:
        losses: Of each plan on the first samples, summed over their units, [at most samples] each.
        references: Losses of a plan that ran on all samples, for each plan, [samples] each; those of a plan that did itself are not read.
        units: Of each sample, [samples].

    Returns:
        Mean loss per unit, [n], and the covariance, [n, n]; 0 for a single sample, which says nothing of errors.
    """
    total, whole = units.sum(), np.empty((len(losses), len(units)))
    part = np.zeros(len(losses))
    for row, (seen, reference) in enumerate(zip(losses, references, strict=True)):
        count = len(seen)
        whole[row, :count] = seen
        if count < len(units):
            gaps = seen - reference[:count]
            whole[row, count:] = reference[count:] + gaps.sum() / units[:count].sum() * units[count:]
            part[row] = standard_error(gaps, units[:count], len(units)) ** 2
    means = whole.sum(1) / total
    if len(units) < 2:
        return means, np.diag(part)
    variances = np.square(whole - np.multiply.outer(means, units)).sum(1) + 1e-9 * np.square(whole).sum(1)
    common = np.divide(means, variances, out=np.zeros_like(means), where=variances > 0) @ whole
    common = common * total / common.sum() if common.sum() > 0 else units
    residuals = (whole - np.multiply.outer(means, common)) / total
    return means, len(units) / (len(units) - 1) * residuals @ residuals.T + np.diag(part)
