r"""The Gauss-Newton block of one layer, \(G = \frac1n \sum_s P_s P_s^\top\), through its per-sample gradients.

\(P_s = \sum_t g_t a_t^\top\) [out, in] sums over the tokens of sample s; g are the gradients of an output-space probe
(`paredown.curvature.probes`), a the layer's inputs. With gradients of the loss itself the same formulas give the empirical Fisher.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.calibration import Captured, Part

CHUNK_BYTES = 256_000_000
"""Per-sample gradients that exist at once."""

EIGENVALUE_SAMPLES = 64
"""Samples that the eigenvalues are taken from; their cost grows with the square."""


@dataclass(frozen=True, eq=False, slots=True)
class PerSampleGradients:
    """Per-sample weight gradients of one layer, formed a few samples at a time from what was captured.

    Attributes:
        captured: Inputs and output gradients.
    """

    captured: Captured

    @property
    def samples(self) -> int:
        """Calibration samples."""
        return sum(len(parts[0].inputs) for parts in self.captured.batches)

    def chunks(self, limit_bytes: int = CHUNK_BYTES) -> Iterator[Tensor]:
        """Dense gradients [samples, out, in], as many at once as fit into the limit (at least one)."""
        rows, width = self.captured.layer.shape
        step = max(1, limit_bytes // (4 * rows * width))
        for parts in self.captured.batches:
            for start in range(0, len(parts[0].inputs), step):
                yield functools.reduce(Tensor.add_, (_dense(part, slice(start, start + step), rows) for part in parts))

    def forms(self, changes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        r"""The quadratic form of each change of the weight, its diagonal part and all of it, for each sample.

        Args:
            changes: \(\Delta W_c\), each [out, in].

        Returns:
            \(\langle P_s^{\odot 2}, \Delta W_c^{\odot 2} \rangle\) and \(\langle P_s, \Delta W_c \rangle^2\), each [samples, changes].
        """
        if not changes:
            return torch.zeros(self.samples, 0), torch.zeros(self.samples, 0)
        if self._lookup:
            return _joined([self._lookup_forms(parts, changes) for parts in self.captured.batches])
        first = torch.stack([change.reshape(-1) for change in changes], 1)
        second = first.square()
        result = []
        for chunk in self.chunks():
            flat = chunk.flatten(1)
            full = (flat @ first).square_()
            result.append((flat.square_() @ second, full))
        return _joined(result)

    def squared_norms(self) -> Tensor:
        r"""\(\|P_s\|^2\) of each sample, whose mean is the trace; [samples]."""
        if self._lookup:
            ones = torch.ones(self.captured.layer.shape, dtype=self.captured.batches[0][0].gradients.dtype)
            return self.forms([ones])[0][:, 0]
        return torch.cat([chunk.flatten(1).square_().sum(1) for chunk in self.chunks()])

    def eigenvalues(self, limit: int = EIGENVALUE_SAMPLES, limit_bytes: int = 2 * CHUNK_BYTES) -> tuple[Tensor, int]:
        r"""Non-zero eigenvalues of \(\sum_s P_s P_s^\top\) over the first samples, from their Gram matrix \(\langle P_s, P_t \rangle\).

        Exact for those samples and that probe; as an estimate for all data the largest are biased upward, by about 1.5 at 64.

        Args:
            limit: Most samples.
            limit_bytes: Most bytes of gradients; fewer samples are taken where a layer is large.

        Returns:
            Eigenvalues, descending, and the number of samples.
        """
        rows, width = self.captured.layer.shape
        wanted = max(2, min(limit, limit_bytes // (4 * rows * width)))
        taken: list[Tensor] = []
        for chunk in self.chunks():
            taken.append(chunk.flatten(1)[: wanted - sum(map(len, taken))])
            if sum(map(len, taken)) >= wanted:
                break
        gradients = torch.cat(taken)
        return torch.linalg.eigvalsh((gradients @ gradients.T).double()).flip(0).clamp(min=0), len(gradients)

    @property
    def _lookup(self) -> bool:
        return all(part.kind == "lookup" for parts in self.captured.batches for part in parts)

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


def _joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([first for first, _ in pairs]), torch.cat([second for _, second in pairs])


def _dense(part: Part, samples: slice, rows: int) -> Tensor:
    """Gradients [samples, out, in] of one part."""
    inputs, gradients = part.inputs[samples], part.gradients[samples]
    if part.kind == "dense":
        return gradients.transpose(1, 2) @ inputs
    result = gradients.new_zeros(len(inputs), rows, gradients.shape[-1])
    return result.scatter_add_(1, inputs[:, :, None].expand_as(gradients), gradients)
