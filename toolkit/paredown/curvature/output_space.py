r"""Second derivatives with respect to the outputs of layers, and what they say of the weights.

With \(z = a W^\top\) the input a does not depend on W, so the Hessian block of W is \(J^\top (\nabla_z^2 L) J\), exactly:
\(H(V) = \frac1N \sum_s [\nabla^2_{z} \ell_s\, (a_s V^\top)]^\top a_s\). The weights stay frozen: no product forms a gradient of a weight, and the
graph starts at the layer, so that later layers cost less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from paredown.calibration import Call, listening
from paredown.curvature.double_backward import GRAPH_BYTES, Graphs, gradients, products, twice_differentiable
from paredown.curvature.hessian import Hessian
from paredown.curvature.operators import CurvatureOperator
from paredown.curvature.surface import LossSurface
from paredown.layers import weight_of
from paredown.specs import LayerRef
from paredown.tasks import Batch


@dataclass(frozen=True, eq=False, slots=True)
class OutputGraph:
    """The loss of some samples as a function of the outputs of layers, ready for second derivatives.

    Attributes:
        calls: One for each use of a weight.
        outputs: Of each call, as the module returned it.
        gradients: Of the summed loss with respect to the outputs, differentiable.
    """

    calls: tuple[Call, ...]
    outputs: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]

    @property
    def entangled(self) -> frozenset[str]:
        """Layers whose weight is used more than once, and not by lookups alone: one use's input depends on the other's output."""
        uses: dict[str, list[Call]] = {}
        for call in self.calls:
            uses.setdefault(call.layer.name, []).append(call)
        return frozenset(name for name, made in uses.items() if len(made) > 1 and any(call.kind == "dense" for call in made))

    def products(self, directions: Sequence[Tensor], of: Sequence[int] | None = None) -> list[Tensor]:
        r"""\(\nabla_z^2 L\, \delta z\), over the outputs of some calls together.

        Args:
            directions: \(\delta z\), each [samples, tokens, out].
            of: Which calls; all where None.

        Returns:
            Each [samples, tokens, out]; samples don't mix.
        """
        of = range(len(self.calls)) if of is None else of
        outputs = [self.outputs[i] for i in of]
        shaped = [direction.reshape(output.shape) for direction, output in zip(directions, outputs, strict=True)]
        found = products([self.gradients[i] for i in of], outputs, shaped)
        return [product.reshape(direction.shape) for product, direction in zip(found, directions, strict=True)]


def output_graph(surface: LossSurface, batch: Batch, layers: Sequence[LayerRef]) -> OutputGraph:
    """Run the loss on a batch and differentiate it once.

    Args:
        surface: The loss.
        batch: Some of its samples.
        layers: Whose outputs are the variables; nothing below the first of them is in the graph.

    Raises:
        ParedownError: If the loss is not finite, or can't be differentiated twice.
    """
    outputs: dict[str, list[Tensor]] = {layer.name: [] for layer in layers}
    modules = dict(surface.model.named_modules(remove_duplicate=False))

    def keeper(name: str):
        def keep(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[name].append(output)

        return keep

    with (
        twice_differentiable(surface.model),
        torch.enable_grad(),
        listening(surface.model, layers, batch, lambda call, gradient: None) as calls,
    ):
        # after those of `listening`, which make the outputs variables
        handles = [modules[path].register_forward_hook(keeper(layer.name)) for layer in layers for path in (layer.name, *layer.tied_to)]
        try:
            value = surface.losses(batch).sum()
        finally:
            for handle in handles:
                handle.remove()
        flat = [output for layer in layers for output in outputs[layer.name]]
        first = gradients(value, flat)
    made = [call for layer in layers for call in calls[layer.name]]
    return OutputGraph(tuple(made), tuple(flat), first)


def inputs_of(call: Call) -> Tensor:
    """The inputs of a dense call [samples, tokens, in], those of padded tokens 0: nothing that counts depends on their outputs."""
    assert call.inputs is not None
    return call.inputs if call.mask is None else call.inputs * call.mask[:, :, None]


class HessianBlock(CurvatureOperator):
    r"""The Hessian block of one layer, \(\frac1N \sum_s \nabla^2_W \ell_s\), through the layer's outputs.

    A product is one double backward pass from the loss to the layer's outputs and two products with the inputs. A weight that is used
    twice in one pass (an embedding tied to the head, shared blocks) is left to `Hessian`. Computed in the model's float32 or float64.

    Args:
        surface: The loss.
        layer: The layer.
        limit_bytes: What kept graphs may take; those of other samples are built again for each product.
        graphs: Of this layer's outputs and of others'; its own where None. `HessianBlocks` gives all its blocks the same.

    Attributes:
        notice: What was switched in the model while graphs are built; empty where nothing was.
    """

    def __init__(
        self, surface: LossSurface, layer: LayerRef, limit_bytes: int = GRAPH_BYTES, *, graphs: Graphs[OutputGraph] | None = None
    ) -> None:
        weight = weight_of(surface.model, layer)
        super().__init__([layer], weight.dtype, weight.device)
        self.surface, self._limit = surface, limit_bytes
        with twice_differentiable(surface.model) as self.notice:
            pass
        self._graphs: Graphs[OutputGraph] | None = graphs or _graphs(surface, [layer], limit_bytes)
        self._whole: Hessian | None = None

    @override
    def _matmat(self, vectors: Tensor) -> Tensor:
        total = vectors.new_zeros(vectors.shape[1], *self.layers[0].shape)
        if self._graphs is not None:
            (layer,) = self.layers
            for graph in self._graphs:
                if layer.name in graph.entangled:
                    self._graphs, self._whole = None, Hessian(self.surface, self.layers, self._limit)
                    break
                mine = [i for i, call in enumerate(graph.calls) if call.layer.name == layer.name]
                if mine:
                    for part, matrix in zip(total, vectors.T, strict=True):
                        _add_product(graph, mine, matrix.reshape(layer.shape), part)
        if self._whole is not None:
            return self._whole._matmat(vectors)
        return total.flatten(1).T / self.surface.total_units


class HessianBlocks:
    """The Hessian blocks of some layers, each a `HessianBlock`, from one graph where that fits into memory.

    Building a graph costs about as much as a product; a product walks only what is above its layer, whatever else is in the graph.

    Args:
        surface: The loss.
        layers: The layers.
        limit_bytes: What kept graphs may take; where those of all layers don't fit, each block has its own.
    """

    def __init__(self, surface: LossSurface, layers: Sequence[LayerRef], limit_bytes: int = GRAPH_BYTES) -> None:
        self.surface, self.layers, self._limit = surface, tuple(layers), limit_bytes
        self._graphs = _graphs(surface, self.layers, limit_bytes)

    def __getitem__(self, layer: LayerRef) -> HessianBlock:
        """The block of one of the layers."""
        return HessianBlock(self.surface, layer, self._limit, graphs=self._graphs if self._graphs.fit else None)

    def __iter__(self) -> Iterator[HessianBlock]:
        """The blocks of all layers."""
        return (self[layer] for layer in self.layers)


def _graphs(surface: LossSurface, layers: Sequence[LayerRef], limit_bytes: int) -> Graphs[OutputGraph]:
    return Graphs(surface, lambda batch: output_graph(surface, batch, layers), limit_bytes)


def _add_product(graph: OutputGraph, of: Sequence[int], matrix: Tensor, total: Tensor) -> None:
    """Add the product with `matrix` [out, in] over some calls of one piece to `total`."""
    calls = [graph.calls[i] for i in of]
    found = graph.products([_lifted(call, matrix) for call in calls], of)
    for call, curved in zip(calls, found, strict=True):
        assert call.inputs is not None
        if call.kind == "lookup":
            total.index_add_(0, call.inputs.flatten(), curved.flatten(0, 1))
        else:
            total.addmm_(curved.flatten(0, 1).T, call.inputs.flatten(0, 1))


def _lifted(call: Call, matrix: Tensor) -> Tensor:
    r"""How the outputs move with the weight, \(a V^\top\) or the rows of V, [samples, tokens, out]."""
    assert call.inputs is not None
    return matrix[call.inputs] if call.kind == "lookup" else call.inputs @ matrix.T
