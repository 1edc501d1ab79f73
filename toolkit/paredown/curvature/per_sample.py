r"""Per-sample weight gradients of one layer, \(P_s = \sum_t g_t a_t^\top\) [out, in], from what was captured.

The sum runs over the tokens of sample s; g are the gradients of an output-space probe (`paredown.curvature.probes`), a the layer's inputs.
Then \(\frac1N \sum_s P_s P_s^\top\) is the Gauss-Newton block; with gradients of the loss itself it is the empirical Fisher. Products and
inner products don't need the P themselves: they are as large as the layer, samples times.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.calibration import Captured, Part, some_samples

CHUNK_BYTES = 256_000_000
"""Per-sample gradients that exist at once."""

BLOCK_BYTES = 8_000_000
"""The same where they are only reduced to numbers: few enough to stay in the cache."""

FORM_BYTES = 1_200_000
"""The same where some output rows of a few samples are multiplied with changes of the weight."""

FORM_SAMPLES = 4
"""How many samples that is: enough for the change to be read once for several, few enough for long products."""

EIGENVALUE_SAMPLES = 64
"""Samples that the eigenvalues are taken from; their cost grows with the square."""


@dataclass(frozen=True, eq=False, slots=True)
class PerSampleGradients:
    r"""Per-sample weight gradients of one layer, one row for each draw and sample (draw after draw).

    Attributes:
        captured: Inputs and output gradients.
        further: Other draws: other gradients that came back over the same forward passes.
    """

    captured: Captured
    further: tuple[Captured, ...] = ()

    @property
    def draws(self) -> tuple[Captured, ...]:
        """All draws."""
        return self.captured, *self.further

    @property
    def samples(self) -> int:
        """Calibration samples."""
        return sum(len(parts[0].inputs) for parts in self.captured.batches)

    def first(self, samples: int) -> PerSampleGradients:
        """Those of the first samples only."""
        captured, *further = (_first(captured, samples) for captured in self.draws)
        return PerSampleGradients(captured, tuple(further))

    def chunks(self, limit_bytes: int = CHUNK_BYTES) -> Iterator[Tensor]:
        """Dense gradients [some rows, out, in], as many at once as fit into the limit (at least one)."""
        rows, width = self.captured.layer.shape
        for parts in (parts for captured in self.draws for parts in captured.batches):
            step = max(1, limit_bytes // (parts[0].gradients.element_size() * rows * width))
            for start in range(0, len(parts[0].inputs), step):
                yield functools.reduce(Tensor.add_, (_dense(part, slice(start, start + step), rows) for part in parts))

    def rows(self, start: int, stop: int) -> Tensor:
        """Some output rows of all P, [rows of draws and samples, stop - start, in]; no P exists whole."""
        like = self.captured.batches[0][0].gradients
        block = like.new_empty(len(self.draws) * self.samples, stop - start, self.captured.layer.shape[1])
        at = 0
        for parts in (parts for captured in self.draws for parts in captured.batches):
            target = block[at : at + len(parts[0].inputs)]
            for index, part in enumerate(parts):
                _rows_of(part, start, target, add=index > 0)
            at += len(target)
        return block

    def products(self, vectors: Tensor) -> Tensor:
        r"""\(\langle P_s, V \rangle = \sum_t g_t \cdot V a_t\), without forming any P: [k, out, in] to [rows, k].

        Cost: one matrix product of the layer for each vector, however many draws there are.
        """
        results = []
        for batch in zip(*(captured.batches for captured in self.draws), strict=True):
            result = vectors.new_zeros(len(batch), len(batch[0][0].inputs), len(vectors))
            for uses in zip(*batch, strict=True):  # the same use in every draw
                for k, vector in enumerate(vectors):
                    outputs = vector[uses[0].inputs] if uses[0].kind == "lookup" else uses[0].inputs @ vector.T
                    for draw, use in enumerate(uses):
                        result[draw, :, k] += torch.einsum("sto,sto->s", use.gradients, outputs)
            results.append(result)
        return torch.cat(results, 1).flatten(0, 1)

    def combinations(self, coefficients: Tensor) -> Tensor:
        r"""\(\sum_s c_s P_s = \sum_{s,t} (c_s g_t) a_t^\top\), without forming any P: [rows, k] to [k, out, in].

        Cost: as `products`.
        """
        count = coefficients.shape[1]
        by_draw = coefficients.reshape(len(self.draws), self.samples, count)
        result = coefficients.new_zeros(count, *self.captured.layer.shape)
        start = 0
        for batch in zip(*(captured.batches for captured in self.draws), strict=True):
            end = start + len(batch[0][0].inputs)
            for uses in zip(*batch, strict=True):
                inputs = uses[0].inputs.flatten(0, 1)
                for k in range(count):
                    scaled = functools.reduce(
                        Tensor.add_, (use.gradients * by_draw[draw, start:end, k, None, None] for draw, use in enumerate(uses))
                    ).flatten(0, 1)
                    if uses[0].kind == "lookup":
                        result[k].index_add_(0, inputs, scaled)
                    else:
                        result[k].addmm_(scaled.T, inputs)
            start = end
        return result

    def gram(self, limit_bytes: int = BLOCK_BYTES) -> Tensor:
        r"""\(\langle P_s, P_r \rangle\) for all pairs of rows, [rows, rows], float64.

        The cheaper of two ways: dense gradients a few output rows at a time, \(R T\, in\, out + R^2\, in\, out\) operations for R rows of
        T tokens; or, for short sequences and large layers, token by token without them, \((G_s G_r^\top) \odot (A_s A_r^\top)\) summed,
        \(R^2 T^2 (in + out)\). Products in the gradients' type, sums of blocks in float64.
        """
        rows, width = self.captured.layer.shape
        count, tokens = (
            len(self.draws),
            sum(part.inputs.shape[0] * part.inputs.shape[1] for parts in self.captured.batches for part in parts),
        )
        if self._lookup:
            return _compact(self)._gram_by_rows(limit_bytes)
        by_rows = (count * tokens + (count * self.samples) ** 2) * rows * width
        by_tokens = tokens**2 * (width + count**2 * (rows + 16))  # 16: what an element-wise pass over memory costs
        return self._gram_by_rows(limit_bytes) if by_rows <= by_tokens else self._gram_by_tokens(limit_bytes)

    def forms(self, changes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        r"""The quadratic form of each change of the weight, its diagonal part and all of it, for each row.

        Args:
            changes: \(\Delta W_c\), each [out, in].

        Returns:
            \(\langle P_s^{\odot 2}, \Delta W_c^{\odot 2} \rangle\) and \(\langle P_s, \Delta W_c \rangle^2\), each [rows, changes].
        """
        if not changes:
            return torch.zeros(self.samples, 0), torch.zeros(self.samples, 0)
        if self._lookup:
            return _joined([self._lookup_forms(parts, changes) for captured in self.draws for parts in captured.batches])
        rows, width = self.captured.layer.shape
        like = self.captured.batches[0][0].gradients
        count = len(self.draws) * self.samples
        full = torch.zeros(count, len(changes), dtype=torch.float64, device=like.device)
        diagonal = torch.zeros_like(full)
        step = max(1, min(rows, FORM_BYTES // (like.element_size() * FORM_SAMPLES * width)))
        memory = like.new_empty(FORM_SAMPLES * step * width)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            some = torch.stack([change[start:stop].reshape(-1) for change in changes])
            squares = some.square()
            at = 0
            for parts in (parts for captured in self.draws for parts in captured.batches):
                for few in _slices(len(parts[0].inputs), FORM_SAMPLES):
                    taken = few.stop - few.start
                    block = memory[: taken * (stop - start) * width].view(taken, stop - start, width)
                    for index, part in enumerate(parts):
                        _rows_of(some_samples(part, few), start, block, add=index > 0)
                    place = slice(at + few.start, at + few.stop)
                    full[place] += block.flatten(1) @ some.T
                    diagonal[place] += block.flatten(1).square_() @ squares.T
                at += len(parts[0].inputs)
        return diagonal, full.square_()

    def squared_norms(self) -> Tensor:
        r"""\(\|P_s\|^2\) of each row, whose mean is the trace; [rows]."""
        if self._lookup:
            ones = torch.ones(self.captured.layer.shape, dtype=self.captured.batches[0][0].gradients.dtype)
            return self.forms([ones])[0][:, 0]
        return torch.cat([chunk.flatten(1).square_().sum(1) for chunk in self.chunks(BLOCK_BYTES)])

    def summed_squares(self) -> Tensor:
        r"""\(\sum_s P_s^{\odot 2}\), whose mean is the diagonal; [out, in]."""
        total = self.captured.batches[0][0].gradients.new_zeros(self.captured.layer.shape)
        for gradient in (gradient for chunk in self.chunks(BLOCK_BYTES) for gradient in chunk):
            total.addcmul_(gradient, gradient)
        return total

    def eigenvalues(self, limit: int = EIGENVALUE_SAMPLES, limit_bytes: int = 2 * CHUNK_BYTES) -> tuple[Tensor, int]:
        r"""Non-zero eigenvalues of \(\sum_s P_s P_s^\top\) over the first samples, from their Gram matrix \(\langle P_s, P_t \rangle\).

        Exact for those samples and that probe; as an estimate for all data the largest are biased upward, by about 1.5 at 64.

        Args:
            limit: Most samples.
            limit_bytes: Most bytes of gradients that this may cost to go through; fewer samples are taken where a layer is large.

        Returns:
            Eigenvalues, descending, and the number of samples.
        """
        rows, width = self.captured.layer.shape
        taken = self.first(max(2, min(limit, limit_bytes // (4 * rows * width))))
        return torch.linalg.eigvalsh(taken.gram()).flip(0).clamp(min=0), taken.samples

    @property
    def _lookup(self) -> bool:
        return all(part.kind == "lookup" for parts in self.captured.batches for part in parts)

    def _gram_by_rows(self, limit_bytes: int) -> Tensor:
        """Each block of output rows of all P at once: no P exists whole, and none is formed twice."""
        rows, width = self.captured.layer.shape
        count, like = len(self.draws) * self.samples, self.captured.batches[0][0].gradients
        step = max(1, limit_bytes // (like.element_size() * count * width))
        gram = torch.zeros(count, count, dtype=torch.float64, device=like.device)
        for start in range(0, rows, step):
            block = self.rows(start, min(start + step, rows))
            flat = block.flatten(1)
            gram += flat @ flat.T
        return gram

    def _gram_by_tokens(self, limit_bytes: int) -> Tensor:
        samples, device = self.samples, self.captured.batches[0][0].gradients.device
        by_draw = torch.zeros(len(self.draws), samples, len(self.draws), samples, dtype=torch.float64, device=device)
        batches = list(zip(*(captured.batches for captured in self.draws), strict=True))
        starts = [0]
        for batch in batches:
            starts.append(starts[-1] + len(batch[0][0].inputs))
        for i, left in enumerate(batches):
            for j, right in enumerate(batches[: i + 1]):
                block = by_draw[:, starts[i] : starts[i + 1], :, starts[j] : starts[j + 1]]
                for first in zip(*left, strict=True):
                    for second in zip(*right, strict=True):
                        _add_inner_products(block, first, second, limit_bytes)
                if j < i:
                    by_draw[:, starts[j] : starts[j + 1], :, starts[i] : starts[i + 1]] = block.permute(2, 3, 0, 1)
        return by_draw.reshape(len(self.draws) * samples, -1)

    def _lookup_forms(self, parts: Sequence[Part], changes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Only the rows that a sample looks up have a gradient."""
        diagonal, full = [], []
        for sample in range(len(parts[0].inputs)):
            ids = torch.cat([part.inputs[sample].reshape(-1) for part in parts])
            gradients = torch.cat([part.gradients[sample] for part in parts])
            rows, position = ids.unique(return_inverse=True)
            gradient = gradients.new_zeros(len(rows), gradients.shape[1]).index_add_(0, position, gradients)
            looked_up = torch.stack([change[rows] for change in changes]) * gradient
            diagonal.append(looked_up.square().sum((1, 2)))
            full.append(looked_up.sum((1, 2)).square())
        return torch.stack(diagonal), torch.stack(full)


def _slices(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([first for first, _ in pairs]), torch.cat([second for _, second in pairs])


def _dense(part: Part, samples: slice, rows: int) -> Tensor:
    """Gradients [samples, out, in] of one part."""
    inputs, gradients = part.inputs[samples], part.gradients[samples]
    if part.kind == "dense":
        return gradients.transpose(1, 2) @ inputs
    result = gradients.new_zeros(len(inputs), rows, gradients.shape[-1])
    return result.scatter_add_(1, inputs[:, :, None].expand_as(gradients), gradients)


def _rows_of(part: Part, start: int, target: Tensor, *, add: bool) -> None:
    """Write some output rows of a part's gradients to the target [samples, rows, in], or add them to what it holds."""
    rows = target.shape[1]
    if part.kind == "dense":
        torch.baddbmm(target, part.gradients[:, :, start : start + rows].mT, part.inputs, beta=1 if add else 0, out=target)
        return
    if not add:
        target.zero_()
    sample, token = ((part.inputs >= start) & (part.inputs < start + rows)).nonzero(as_tuple=True)
    target.index_put_((sample, part.inputs[sample, token] - start), part.gradients[sample, token], accumulate=True)


def _compact(gradients: PerSampleGradients) -> PerSampleGradients:
    """Of an embedding, the rows that are looked up at all, renumbered."""
    used = torch.cat([part.inputs.flatten() for parts in gradients.captured.batches for part in parts]).unique()
    layer = dataclasses.replace(gradients.captured.layer, shape=(len(used), gradients.captured.layer.shape[1]))

    def renumbered(captured: Captured) -> Captured:
        batches = tuple(
            tuple(dataclasses.replace(part, inputs=torch.searchsorted(used, part.inputs.contiguous())) for part in parts)
            for parts in captured.batches
        )
        return Captured(layer, batches)

    return PerSampleGradients(renumbered(gradients.captured), tuple(map(renumbered, gradients.further)))


def _first(captured: Captured, samples: int) -> Captured:
    batches: list[tuple[Part, ...]] = []
    for parts in captured.batches:
        if samples > 0:
            batches.append(tuple(some_samples(part, slice(samples)) for part in parts))
        samples -= len(parts[0].inputs)
    return Captured(captured.layer, tuple(batches))


def _add_inner_products(block: Tensor, first: Sequence[Part], second: Sequence[Part], limit_bytes: int) -> None:
    r"""Add what two uses have in common to the block [draws, samples, draws, samples], a few samples of the first at a time."""
    tokens, others = first[0].inputs.shape[1], second[0].inputs.shape[:2]
    step = max(1, limit_bytes // max(1, first[0].gradients.element_size() * tokens * others.numel()))
    for start in range(0, len(first[0].inputs), step):
        some = slice(start, start + step)
        shared = _input_products(first[0], second[0], some)
        for d, one in enumerate(first):
            for e, other in enumerate(second):
                if shared is not None:  # a·a' (or whether they look up the same row) times g·g'
                    products = one.gradients[some].flatten(0, 1) @ other.gradients.flatten(0, 1).T * shared
                elif one.kind == "dense":
                    products = _mixed(one.inputs[some], one.gradients[some], other)
                else:
                    products = _mixed(other.inputs, other.gradients, some_samples(one, some)).T
                block[d, some, e] += products.reshape(len(one.inputs[some]), tokens, *others).sum((1, 3))


def _input_products(first: Part, second: Part, some: slice) -> Tensor | None:
    """Inner products of the inputs of all pairs of tokens; None between a head and the lookup that it is tied to."""
    if first.kind != second.kind:
        return None
    if first.kind == "lookup":
        return first.inputs[some].flatten()[:, None] == second.inputs.flatten()
    return first.inputs[some].flatten(0, 1) @ second.inputs.flatten(0, 1).T


def _mixed(inputs: Tensor, gradients: Tensor, lookup: Part) -> Tensor:
    """A head's g a^T against a lookup's e_id h^T: g[id] times a·h, for all pairs of tokens."""
    return gradients.flatten(0, 1)[:, lookup.inputs.flatten()] * (inputs.flatten(0, 1) @ lookup.gradients.flatten(0, 1).T)
