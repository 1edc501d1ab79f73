"""The Hessian of any layers together, by differentiating twice with respect to their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from paredown.curvature.double_backward import GRAPH_BYTES, Graphs, gradients, products, twice_differentiable
from paredown.curvature.operators import CurvatureOperator
from paredown.curvature.surface import LossSurface
from paredown.layers import weight_of
from paredown.specs import LayerRef
from paredown.tasks import Batch


class Hessian(CurvatureOperator):
    r"""\(H = \frac1N \sum_s \nabla^2_W \ell_s\) over the weights of some layers, cross terms between them included.

    A product is the gradient of \(\langle \nabla L, v \rangle\) (Pearlmutter, "Fast exact multiplication by the Hessian", 1994), about 2.3
    forward and backward passes where the graph is kept. It takes whatever the model does with a weight: ties, lookups, several uses.
    For one layer that is used once, `HessianBlock` gives the same for less. Computed in the model's float32 or float64.

    Args:
        surface: The loss.
        layers: The layers.
        limit_bytes: What kept graphs may take; those of other samples are built again for each product.

    Attributes:
        notice: What was switched in the model while graphs are built; empty where nothing was.
    """

    def __init__(self, surface: LossSurface, layers: Sequence[LayerRef], limit_bytes: int = GRAPH_BYTES) -> None:
        weight = weight_of(surface.model, layers[0])
        super().__init__(layers, weight.dtype, weight.device)
        self.surface = surface
        with twice_differentiable(surface.model) as self.notice:
            pass
        self._uses = [_parameters(surface.model, layer) for layer in self.layers]
        self._graphs = Graphs(surface, self._graph, limit_bytes)

    def _graph(self, batch: Batch) -> _WeightGraph:
        flat = [parameter for uses in self._uses for parameter in uses]
        with twice_differentiable(self.surface.model), torch.enable_grad():
            return _WeightGraph(gradients(self.surface.losses(batch).sum(), flat))

    @override
    def _matmat(self, vectors: Tensor) -> Tensor:
        flat = [parameter for uses in self._uses for parameter in uses]
        total = torch.zeros_like(vectors)
        with _wanting_gradients(flat):
            for graph in self._graphs:
                for column in range(vectors.shape[1]):
                    directions = [
                        part.T if layer.kind == "conv1d" else part
                        for layer, uses, part in zip(self.layers, self._uses, self.split(vectors[:, column]), strict=True)
                        for _ in uses
                    ]
                    found = iter(products(graph.gradients, flat, directions))
                    blocks = [sum(next(found) for _ in uses) for uses in self._uses]
                    parts = [
                        block.T if layer.kind == "conv1d" else block
                        for layer, block in zip(self.layers, blocks, strict=True)
                        if isinstance(block, Tensor)
                    ]
                    total[:, column] += self.join(parts)
        return total / self.surface.total_units


@dataclass(frozen=True, eq=False, slots=True)
class _WeightGraph:
    """The gradients of some samples with respect to the parameters, differentiable."""

    gradients: tuple[Tensor, ...]


def _parameters(model: nn.Module, layer: LayerRef) -> list[nn.Parameter]:
    """Every parameter that stands for the layer's weight; tied ones are mostly one and the same, but may only share their memory."""
    found = [model.get_submodule(path).weight for path in (layer.name, *layer.tied_to)]
    return list({id(parameter): parameter for parameter in found if isinstance(parameter, nn.Parameter)}.values())


@contextmanager
def _wanting_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    before = [parameter.requires_grad for parameter in parameters]
    for parameter in parameters:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, wanted in zip(parameters, before, strict=True):
            parameter.requires_grad_(wanted)
