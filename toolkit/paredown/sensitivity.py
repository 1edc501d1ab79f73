"""Every scheme on one layer: bytes, predicted loss increase with its deviation, and the error of the layer's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.calibration import Captured, LayerStats, every_other, statistics, token_rows
from paredown.curvature import PerSampleGradients, ratio
from paredown.curvature.scores import score_changes
from paredown.errors import ParedownError
from paredown.methods import Compressed, Statistics, checks, compress, dequantize
from paredown.methods.activations import static_range
from paredown.methods.criteria import FITS_GRADIENTS
from paredown.sizes import fit, layer_bytes
from paredown.specs import KEEP, Candidate, LayerRef, Scheme, Score
from paredown.symmetric import quadratic

ERROR_BYTES = 256_000_000
"""Rounding errors of one layer, as large as it is, that are held at once."""

CROSS_FIT_SAMPLES = 4
"""Fewest calibration samples of which a half can be set aside: one sample has no spread."""


def price(
    layer: LayerRef,
    weight: Tensor,
    captured: Captured,
    units: Tensor,
    schemes: Sequence[Scheme],
    on_made: Callable[[Compressed], None] | None = None,
    scores: Sequence[Score] = (),
) -> list[Candidate]:
    """Price the schemes on one layer.

    Schemes of one sparsity are made one after the other, so that their mask is found once. No compressed weight outlives its turn.

    The loss increase is a quadratic form in the gradients of the calibration samples. A scheme whose criterion fits the kept weights
    to those gradients (`FITS_GRADIENTS`) makes it small on these samples, not on others. So its increase and deviation are those of
    the same scheme fitted to every other sample alone, from the first, over the samples between (cross-fitting, Chernozhukov et al.,
    2018). This errs on the safe side, for the weight is fitted to all samples, twice as many; its errors, of weight and outputs, are
    those of this fit. With fewer than `CROSS_FIT_SAMPLES` the increase is that over the samples of the fit, and the candidate's note says so.

    Args:
        layer: The layer.
        weight: Its weight, [out, in].
        captured: What it saw.
        units: Counted units of each calibration sample, [samples].
        schemes: Schemes as asked; `KEEP` is added.
        on_made: Called with each weight that needs calibration, and can't be made again without it.
        scores: What the candidates are scored with besides, by what they change in the weight; inputs that they round are left out.

    Returns:
        The candidates.

    Raises:
        ParedownError: If the weight, the activations or the gradients hold NaN or infinite values.
    """
    if not all(checks.all_finite(part.gradients) for parts in captured.batches for part in parts):
        raise ParedownError(
            f"the calibration gradients of {layer.name} are NaN or infinite; look for such values in the model's weights or inputs"
        )
    effective = {scheme: fit(scheme, layer) for scheme in schemes if scheme != KEEP}
    stats = statistics(captured)
    crossed = len(units) >= CROSS_FIT_SAMPLES and any(applied.criterion in FITS_GRADIENTS for applied, _ in effective.values())
    half = statistics_of(every_other(captured, 0)) if crossed else None
    bench = _Bench(layer, weight, captured, units, stats, statistics_of(captured, stats), half, on_made, scores)
    distinct = sorted(
        dict.fromkeys(applied for applied, _ in effective.values()), key=lambda scheme: (scheme.criterion, str(scheme.sparsity))
    )
    step = max(1, ERROR_BYTES // (4 * weight.numel()))
    prices: dict[Scheme, _Price] = {}
    for start in range(0, len(distinct), step):
        prices |= bench.prices(distinct[start : start + step])
    candidates = [Candidate(layer.name, KEEP, KEEP, layer_bytes(layer, KEEP), 0.0, 0.0, 0.0)]
    for scheme, (applied, note) in effective.items():
        found = prices[applied]
        notes = "; ".join(filter(None, (note, found.note)))
        numbers = (found.loss_increase, found.loss_increase_sd, found.output_error)
        size = layer_bytes(layer, applied)
        candidates.append(Candidate(layer.name, scheme, applied, size, *numbers, notes, found.weight_error, scores=found.scores))
    return candidates


def statistics_of(captured: Captured, stats: LayerStats | None = None) -> Statistics:
    """What schemes may ask of a layer, computed when they do, one batch or a few rows at a time.

    A sample's gradient is that of the captured objective in the layer's weight, summed over the tokens of the sample; all samples of
    the calibration are used. The range of the inputs is that of `static_range` over the real tokens.

    Args:
        captured: What the layer saw.
        stats: Of the same, where they are at hand.
    """
    stats = stats or statistics(captured)
    parts = [part for batch in captured.batches for part in batch if part.kind == "dense"]

    def output_moment() -> Tensor:
        total = sum((part.gradients.flatten(0, 1).T @ part.gradients.flatten(0, 1)).double() for part in parts)
        assert isinstance(total, Tensor)
        return total / max(stats.tokens, 1)

    gradients = PerSampleGradients(captured)
    return Statistics(
        stats.input_second_moment,
        stats.tokens,
        gradients.rows,
        output_moment,
        lambda bits: static_range([token_rows(part) for part in parts], bits),
        lambda: gradients.summed_squares() / gradients.samples,
    )


@dataclass(frozen=True, slots=True)
class _Price:
    loss_increase: float
    loss_increase_sd: float
    output_error: float
    weight_error: float
    note: str
    scores: Mapping[str, float]


@dataclass(frozen=True, eq=False, slots=True)
class _Bench:
    """One layer on which schemes are tried; `half` is what every other sample saw of it, where a scheme is fitted to that."""

    layer: LayerRef
    weight: Tensor
    captured: Captured
    units: Tensor
    stats: LayerStats
    seen: Statistics
    half: Statistics | None
    on_made: Callable[[Compressed], None] | None
    scores: Sequence[Score]

    def prices(self, schemes: Sequence[Scheme]) -> dict[Scheme, _Price]:
        """Of some schemes, whose errors are held together: the gradients of all samples are formed once for all of them."""
        errors: list[Tensor] = []  # those that the loss increase is predicted from
        changes: list[Tensor] = []  # those that are applied, which scores go by
        rounded: dict[int, RoundedInputs] = {}
        crossed: list[int] = []
        found: list[tuple[float, float, str]] = []
        exact: list[list[Tensor]] = []
        norm = _output_norm(self.weight, self.stats)
        for place, scheme in enumerate(schemes):
            made, error = self._make(scheme, self.seen)
            if self.on_made is not None and scheme.needs_calibration:
                self.on_made(made)
            if made.round_inputs is None:
                outputs = _output_norm(error, self.stats)
            else:
                exact = exact or outputs_of(self.captured, self.weight)
                rounded[place] = rounded_inputs(self.captured, self.weight, error, made.round_inputs, exact)
                outputs = rounded[place].output_error
            if self.scores:
                changes.append(error)
            note = made.note
            size = float(error.square().sum(dtype=torch.float64))
            if scheme.criterion in FITS_GRADIENTS and self.half is None:
                note = "; ".join(
                    filter(None, (note, f"priced too low, on the {len(self.units)} samples that the kept weights are fitted to"))
                )
            elif scheme.criterion in FITS_GRADIENTS and self.half is not None:
                crossed.append(place)
                made, error = self._make(scheme, self.half)
                if made.round_inputs is not None:
                    rounded[place] = rounded_inputs(self.captured, self.weight, error, made.round_inputs, exact)
            errors.append(error)
            found.append((outputs / norm if norm else 0.0, size, note))
        exact.clear()
        scores, refused = score_changes(self.captured, changes, self.units, self.scores)
        changes.clear()
        diagonal, full = (0.5 * form.double() for form in PerSampleGradients(self.captured).forms(errors))  # [samples, schemes]
        for place, inputs in rounded.items():
            diagonal[:, place] += 0.5 * inputs.diagonal
            full[:, place] = 0.5 * inputs.products.square()
        means, deviations = shrunk(diagonal, full, self.units)
        if crossed:
            means[crossed], deviations[crossed] = shrunk(diagonal[1::2, crossed], full[1::2, crossed], self.units[1::2])
        prices = {}
        for place, (scheme, (outputs, size, note)) in enumerate(zip(schemes, found, strict=True)):
            said = "; ".join(filter(None, (note, refused)))
            own = {name: float(values[place]) for name, values in scores.items()}
            prices[scheme] = _Price(float(means[place]), float(deviations[place]), outputs, size, said, own)
        return prices

    def _make(self, scheme: Scheme, seen: Statistics) -> tuple[Compressed, Tensor]:
        """The compressed weight, and its error."""
        try:
            made = compress(self.weight, scheme, seen, dtype=getattr(torch, self.layer.dtype))
        except ParedownError as error:
            raise ParedownError(f"{self.layer.name} by {scheme}: {error}") from error
        return made, dequantize(made) - self.weight


@dataclass(frozen=True, eq=False, slots=True)
class RoundedInputs:
    r"""What a compressed layer that rounds its inputs does: its outputs change by \(\Delta W x + \hat W e\), \(e = \hat x - x\).

    Attributes:
        products: \(\sum_t g_t \cdot (\Delta W x_t + \hat W e_t)\) of each sample, [samples], float64.
        diagonal: \(\sum_{t,j} (\hat W^T g_t)_j^2 e_{tj}^2\) of each sample, as if the errors were independent, [samples], float64.
        output_error: \(E\|\hat W \hat x - W x\|^2\) over real tokens.
    """

    products: Tensor
    diagonal: Tensor
    output_error: float


def rounded_inputs(
    captured: Captured, weight: Tensor, error: Tensor, round_inputs: Callable[[Tensor], Tensor], outputs: Sequence[Sequence[Tensor]]
) -> RoundedInputs:
    """See what a layer does when its inputs are rounded.

    Args:
        captured: What the layer saw.
        weight: W, [out, in].
        error: Ŵ - W, [out, in].
        round_inputs: Inputs [..., in] to the nearest values of their grid.
        outputs: W x of each batch and part (`outputs_of`).
    """
    compressed = weight + error
    products, diagonal, squares, tokens = [], [], 0.0, 0
    for parts, before in zip(captured.batches, outputs, strict=True):
        product = torch.zeros(len(parts[0].inputs), dtype=torch.float64)
        squared = product.clone()
        for part, exact in zip(parts, before, strict=True):
            rounded = round_inputs(part.inputs)
            change, rounding = (rounded @ compressed.T).sub_(exact), rounded - part.inputs
            product += torch.einsum("sto,sto->s", part.gradients, change).double()
            squared += ((part.gradients @ compressed) * rounding).square_().sum((1, 2)).double()
            real = change.flatten(0, 1) if part.mask is None else change[part.mask]
            squares += float(real.square().sum(dtype=torch.float64))
            tokens += len(real)
        products.append(product)
        diagonal.append(squared)
    return RoundedInputs(torch.cat(products), torch.cat(diagonal), squares / max(tokens, 1))


def outputs_of(captured: Captured, weight: Tensor) -> list[list[Tensor]]:
    """W x of each batch and part, [samples, tokens, out]."""
    return [[part.inputs @ weight.T for part in parts] for parts in captured.batches]


def shrunk(diagonal: Tensor, full: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    r"""The quadratic form, shrunk towards its diagonal by what the samples don't support.

    The full form \(\frac{1}{2n} \sum_s \langle P_s, \Delta W \rangle^2\) is unbiased for any change, but noisy, and a search picks the schemes
    whose noise is lucky. Its diagonal part is far less noisy, and nearly right for rounding errors that look random; it misses what
    adds up or cancels, as with few bits. So the difference counts as far as it stands out of its own standard error \(\sigma\), by the
    positive-part rule of James and Stein (1961): \(d + \max(0, 1 - \sigma^2 / (f - d)^2)\, (f - d)\).

    Args:
        diagonal: Diagonal part of each sample, [samples, schemes].
        full: Full form of each sample, [samples, schemes].
        units: Counted units of each sample, [samples].

    Returns:
        Mean per unit and its standard error, each [schemes].
    """
    difference, noise = ratio(full - diagonal, units)
    weight = (1 - noise.square() / difference.square().clamp(min=torch.finfo(torch.float64).tiny)).clamp(min=0)
    return ratio(diagonal + weight * (full - diagonal), units)


def _output_norm(matrix: Tensor, stats: LayerStats) -> float:
    r"""\(E\|A x\|^2 = \mathrm{tr}(A\, E[x x^\top] A^\top)\); for a lookup the mean squared norm of the rows that are looked up."""
    moment = stats.input_second_moment
    if moment.dim() == 1:
        return float((matrix.square().sum(1) * moment).sum())
    return quadratic(matrix, moment)
