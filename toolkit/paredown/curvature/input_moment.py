r"""Second moment of a layer's inputs, \(I \otimes E[x x^\top]\): half the Hessian of the squared error of the layer's output.

What GPTQ and its kin minimise, \(\langle \Delta W, (I \otimes E[x x^\top]) \Delta W \rangle = E\|\Delta W x\|^2\). It knows nothing of the loss:
across layers its trace says nothing of theirs (rank correlation 0.12 with the Gauss-Newton trace).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from paredown.calibration import Captured, Part, listening, statistics
from paredown.curvature.double_backward import pieces
from paredown.curvature.operators import CurvatureOperator
from paredown.curvature.surface import LossSurface
from paredown.errors import ParedownError
from paredown.specs import LayerRef


class InputMoment(CurvatureOperator):
    r"""\(I \otimes E[x x^\top]\), a block for each layer; for an embedding \(\mathrm{diag}(\text{share of each row}) \otimes I\).

    Attributes:
        moments: \(E[x x^\top]\) of each layer [in, in], or the shares [rows].

    Args:
        layers: The layers.
        moments: See above; as `paredown.calibration.statistics` gives them.
    """

    def __init__(self, layers: Sequence[LayerRef], moments: Sequence[Tensor]) -> None:
        super().__init__(layers, moments[0].dtype, moments[0].device)
        self.moments = tuple(moments)

    def _matmat(self, vectors: Tensor) -> Tensor:
        parts = zip(self.split(vectors), self.moments, strict=True)
        return self.join([part * moment[:, None] if moment.dim() == 1 else part @ moment for part, moment in parts])

    def trace(self) -> float:
        """The trace."""
        pairs = zip(self.layers, self.moments, strict=True)
        return sum(
            float(moment.sum()) * layer.shape[1] if moment.dim() == 1 else float(moment.trace()) * layer.shape[0] for layer, moment in pairs
        )


@torch.no_grad()
def input_moment(surface: LossSurface, layers: Sequence[LayerRef]) -> InputMoment:
    """Input moments over the real tokens, by one forward pass without needless padding; layers that read the same inputs share theirs.

    Args:
        surface: Model and data.
        layers: The layers.

    Raises:
        ParedownError: If a layer is not run by any batch.
    """
    seen: dict[str, list[tuple[Part, ...]]] = {layer.name: [] for layer in layers}
    for batch in pieces(surface, surface.samples):
        with listening(surface.model, layers, batch, lambda call, gradient: None) as calls:
            surface.losses(batch) if surface.logits is None else surface.logits(batch)
        for name, made in calls.items():
            parts = tuple(Part(call.kind, call.inputs, call.inputs, call.mask) for call in made if call.inputs is not None)
            seen[name].extend([parts] if parts else [])
    if missing := [name for name, batches in seen.items() if not batches]:
        raise ParedownError(f"expected layers that the data runs through, but no batch ran {', '.join(missing)}; leave them out")
    known: dict[object, Tensor] = {}
    for layer in layers:
        read = _read(layer, seen[layer.name])
        if read not in known:
            known[read] = statistics(Captured(layer, tuple(seen[layer.name]))).input_second_moment
    return InputMoment(layers, [known[_read(layer, seen[layer.name])] for layer in layers])


def _read(layer: LayerRef, batches: Sequence[tuple[Part, ...]]) -> object:
    """What tells the inputs of a layer from all others that are held."""
    where = tuple((part.kind, part.inputs.data_ptr(), part.inputs.shape, part.inputs.stride()) for parts in batches for part in parts)
    return where, layer.shape[0] if layer.kind == "embedding" else None
