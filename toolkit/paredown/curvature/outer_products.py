r"""\(\frac1N \sum_{s,d} w\, P_{s,d} P_{s,d}^\top\): a matrix that is known by per-sample gradients, of one layer or of several together.

Gauss-Newton, Fisher and empirical Fisher differ only in what is sent backward. One pass over the data captures inputs and output
gradients; products, trace, diagonal and the whole spectrum then need no further run of the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from paredown.calibration import Call, Captured, Part, listening
from paredown.curvature.operators import CurvatureOperator
from paredown.curvature.per_sample import PerSampleGradients
from paredown.curvature.surface import LossSurface
from paredown.errors import ParedownError
from paredown.specs import LayerRef
from paredown.tasks import Batch

Directions = Callable[[Batch], tuple[Tensor, Sequence[Tensor]]]
"""A batch to an output of the model, and what to send backward from it: one tensor of the output's shape for each draw."""


class OuterProducts(CurvatureOperator):
    r"""A sum of outer products of per-sample gradients, \(\frac1N \sum_{s,d} w\, P_{s,d} P_{s,d}^\top\).

    Positive semi-definite, of rank at most samples times draws. A product costs two matrix products of the layer over all tokens. Memory:
    inputs and output gradients of all tokens (`paredown.calibration.passes` says how many layers fit).

    Attributes:
        gradients: Per-sample gradients of each layer.
        units: Counted units of each sample, [samples].
        weight: w of a draw: 1 where the draws add up, 1/draws where they are averaged.
        ids: Each sample's id, which halves of the samples are told by.

    Args:
        gradients: See above.
        units: See above.
        weight: See above.
        ids: See above.
    """

    def __init__(self, gradients: Sequence[PerSampleGradients], units: Tensor, weight: float, ids: Sequence[int]) -> None:
        like = gradients[0].captured.batches[0][0].gradients
        super().__init__([each.captured.layer for each in gradients], like.dtype, like.device)
        self.gradients = tuple(gradients)
        self.units = units
        self.weight = weight
        self.ids = tuple(ids)
        self._gram: Tensor | None = None

    @classmethod
    def of(cls, surface: LossSurface, layers: Sequence[LayerRef], directions: Directions, *, averaged: bool) -> OuterProducts:
        """Capture the gradients: one forward pass a batch, and a backward pass for each direction.

        Args:
            surface: Model and data.
            layers: The layers; each must be run by some batch.
            directions: What is sent backward.
            averaged: Whether the draws are averaged, or add up.

        Raises:
            ParedownError: If no layers are given, a layer is not run by any batch, or a gradient is not finite.
        """
        captured = _captured(surface, layers, directions)
        draws = len(next(iter(captured.values())))
        gradients = [PerSampleGradients(captured[layer.name][0], tuple(captured[layer.name][1:])) for layer in layers]
        return cls(gradients, surface.units, 1 / draws if averaged else 1.0, [i for batch in surface.batches for i in batch.ids])

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.units)

    @property
    def scale(self) -> float:
        r"""\(w / N\), what each outer product counts."""
        return self.weight / float(self.units.sum())

    def _matmat(self, vectors: Tensor) -> Tensor:
        return self._combined(self._coefficients(vectors) * self.scale)

    def block(self, index: int) -> OuterProducts:
        """The diagonal block of one of the layers."""
        return OuterProducts(self.gradients[index : index + 1], self.units, self.weight, self.ids)

    def trace(self) -> float:
        """The trace."""
        return float(self.sample_traces().sum()) / float(self.units.sum())

    def sample_traces(self) -> Tensor:
        r"""\(\sum_d w \|P_{s,d}\|^2\) of each sample, [samples], float64; over the units their ratio is the trace and its data error."""
        return self.weight * self._over_draws(sum((each.squared_norms().double() for each in self.gradients), torch.zeros(())))

    def sample_forms(self, changes: Sequence[Tensor | Sequence[Tensor]]) -> Tensor:
        r"""\(\sum_d w \langle P_{s,d}, \Delta W \rangle^2\) of each sample, [samples, k], float64, as `sample_traces`."""
        return self.weight * self._over_draws(self._coefficients(self.columns(changes)).double().square())

    def quadratic_forms(self, changes: Sequence[Tensor | Sequence[Tensor]]) -> Tensor:
        r"""\(\langle \Delta W, A\, \Delta W \rangle\) of each change, [k], float64; half the cost of the products.

        Args:
            changes: As `columns` takes them.
        """
        return self.sample_forms(changes).sum(0) / float(self.units.sum())

    def diagonal(self) -> Tensor:
        """The diagonal, [n]."""
        return self.join([each.summed_squares() for each in self.gradients]) * self.scale

    def gram(self) -> Tensor:
        r"""\(\langle P_i, P_j \rangle\) over all layers for rows i, j (draw after draw, samples inside), float64; computed once."""
        if self._gram is None:
            self._gram = sum((each.gram() for each in self.gradients), torch.zeros((), dtype=torch.float64, device=self.device))
        return self._gram

    def eigenvalues(self) -> Tensor:
        """All eigenvalues that can differ from zero, descending, float64: those of the Gram matrix, exact up to rounding."""
        values = torch.linalg.eigvalsh(self.gram() * self.scale).flip(0).clamp(min=0)
        return values[: self.dimension]

    def top_eigenvector(self) -> Tensor:
        """A unit vector [n] to the largest eigenvalue: where to start for kindred matrices."""
        _, vectors = torch.linalg.eigh(self.gram())
        vector = self._combined(vectors[:, -1:].to(self.dtype))[:, 0]
        return vector / vector.norm().clamp(min=torch.finfo(self.dtype).tiny)

    def half_sample_top(self) -> float:
        r"""Largest eigenvalue of half of the samples (the lower ids), per unit.

        \(\lambda_{\max}\) of few samples is too high, in expectation the more the fewer: beside the value of all, this one shows by how much.
        """
        half = torch.tensor(self.ids).argsort()[: max(1, self.samples // 2)]
        draws = len(self.gradients[0].draws)
        rows = (torch.arange(draws)[:, None] * self.samples + half).flatten()
        return float(torch.linalg.eigvalsh(self.gram()[rows][:, rows])[-1]) * self.weight / float(self.units[half].sum())

    def _coefficients(self, vectors: Tensor) -> Tensor:
        """Inner products of all rows with the columns, [rows, k]."""
        return sum((each.products(part) for each, part in zip(self.gradients, self.split(vectors), strict=True)), torch.zeros(()))

    def _combined(self, coefficients: Tensor) -> Tensor:
        return self.join([each.combinations(coefficients) for each in self.gradients])

    def _over_draws(self, values: Tensor) -> Tensor:
        """Sums over the draws of each sample."""
        return values.reshape(-1, self.samples, *values.shape[1:]).sum(0)


def _captured(surface: LossSurface, layers: Sequence[LayerRef], directions: Directions) -> dict[str, list[Captured]]:
    """Per layer, what each draw gave."""
    if not layers:
        raise ParedownError("expected at least one layer, got none")
    seen: dict[str, list[list[tuple[Part, ...]]]] = {layer.name: [] for layer in layers}
    ran: set[str] = set()
    for batch in surface.batches:
        gradients: dict[Call, Tensor] = {}
        with torch.enable_grad(), listening(surface.model, layers, batch, gradients.__setitem__) as calls:
            output, sent = directions(batch)
            for draw, direction in enumerate(sent):
                gradients.clear()
                torch.autograd.backward(output, direction.to(output), retain_graph=draw + 1 < len(sent))
                for layer in layers:
                    parts = tuple(_part(call, gradients.get(call), last=draw + 1 == len(sent)) for call in calls[layer.name])
                    parts = parts or (_nothing(layer, batch, output),)
                    _check_finite(parts, layer, batch)
                    draws = seen[layer.name]
                    while len(draws) <= draw:
                        draws.append([])
                    draws[draw].append(parts)
        ran |= {name for name, made in calls.items() if made}
    if missing := [layer.name for layer in layers if layer.name not in ran]:
        raise ParedownError(f"expected layers that the data runs through, but no batch ran {', '.join(missing)}; leave them out")
    return {layer.name: [Captured(layer, tuple(parts)) for parts in seen[layer.name]] for layer in layers}


def _part(call: Call, gradient: Tensor | None, *, last: bool) -> Part:
    assert call.inputs is not None
    if gradient is None:  # the output does not depend on it
        gradient = torch.zeros(call.outputs, dtype=call.dtype, device=call.inputs.device)
    # autograd adds the next draw's to the first layers' gradients in place
    return Part(call.kind, call.inputs, gradient if last else gradient.clone(), call.mask)


def _nothing(layer: LayerRef, batch: Batch, like: Tensor) -> Part:
    """A layer that this batch did not run: samples without tokens."""
    rows, width = layer.shape
    samples = len(batch.ids)
    if layer.kind == "embedding":
        return Part("lookup", torch.zeros(samples, 0, dtype=torch.long, device=like.device), like.new_zeros(samples, 0, width), None)
    return Part("dense", like.new_zeros(samples, 0, width), like.new_zeros(samples, 0, rows), None)


def _check_finite(parts: Sequence[Part], layer: LayerRef, batch: Batch) -> None:
    if not all(bool(torch.isfinite(part.gradients.sum())) for part in parts):
        raise ParedownError(
            f"the gradients of {layer.name} are NaN or infinite for the batch of samples {batch.ids[0]} to {batch.ids[-1]};"
            " look for such values in the model's weights or inputs"
        )
