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

    def squared_norms(self, weights: Sequence[Tensor]) -> Tensor:
        r"""\(\langle P_s^{\odot 2}, D_c \rangle\) for each sample s and each weighting \(D_c\).

        With \(D = \Delta W^{\odot 2}\) this is the diagonal form of \(\Delta W^\top G \Delta W\), with \(D = 1\) the trace.

        Args:
            weights: Weightings, each [out, in].

        Returns:
            [samples, weightings].
        """
        if all(part.kind == "lookup" for parts in self.captured.batches for part in parts):
            return torch.cat([self._lookup_squared_norms(parts, weights) for parts in self.captured.batches])
        flat = torch.stack([weight.reshape(-1) for weight in weights], 1) if _bytes(weights) <= CHUNK_BYTES else None
        result = []
        for chunk in self.chunks():
            squares = chunk.square_().flatten(1)
            result.append(squares @ flat if flat is not None else torch.stack([squares @ weight.reshape(-1) for weight in weights], 1))
        return torch.cat(result)

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

    def _lookup_squared_norms(self, parts: Sequence[Part], weights: Sequence[Tensor]) -> Tensor:
        """Only the rows that a sample looks up have a gradient."""
        result = []
        for sample in range(len(parts[0].inputs)):
            ids = torch.cat([part.inputs[sample].reshape(-1) for part in parts])
            gradients = torch.cat([part.gradients[sample] for part in parts])
            rows, position = ids.unique(return_inverse=True)
            squares = gradients.new_zeros(len(rows), gradients.shape[1]).index_add_(0, position, gradients).square_()
            result.append(torch.stack([(squares * weight[rows]).sum() for weight in weights]))
        return torch.stack(result)


def _dense(part: Part, samples: slice, rows: int) -> Tensor:
    """Gradients [samples, out, in] of one part."""
    inputs, gradients = part.inputs[samples], part.gradients[samples]
    if part.kind == "dense":
        return gradients.transpose(1, 2) @ inputs
    result = gradients.new_zeros(len(inputs), rows, gradients.shape[-1])
    return result.scatter_add_(1, inputs[:, :, None].expand_as(gradients), gradients)


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(4 * tensor.numel() for tensor in tensors)
