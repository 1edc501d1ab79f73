"""What the Hessian's traces need to go on after a kill: sums of every sample and layer, as an artifact of the study."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from paredown.curvature import LossSurface, TraceSums
from paredown.specs import LayerRef
from paredown.study.arrays import Arrays

NAME = "hessian-traces"
_FIELDS = tuple(field.name for field in dataclasses.fields(TraceSums))


class KeptSums:
    """The sums of all samples and layers, of which a piece of work takes those that it needs.

    Args:
        store: Where they are kept.
        ids: Ids of all samples.
        layers: All layers of the model.
    """

    def __init__(self, store: Arrays, ids: Sequence[int], layers: Sequence[LayerRef]) -> None:
        self._store = store
        self._rows = {sample: row for row, sample in enumerate(sorted(ids))}
        self._columns = {layer.name: column for column, layer in enumerate(layers)}
        self._all = TraceSums.none(len(self._rows), len(self._columns))
        kept = store.load_arrays(NAME)
        if kept is not None:
            rows = torch.from_numpy(kept["rows"])
            for name in _FIELDS:
                getattr(self._all, name)[rows] = torch.from_numpy(kept[name])

    def of(self, surface: LossSurface, layers: Sequence[LayerRef]) -> TraceSums:
        """A copy of those of some samples and layers, in their order."""
        place = self._place(surface, layers)
        return TraceSums(*(getattr(self._all, name)[place].clone() for name in _FIELDS))

    def keep(self, surface: LossSurface, layers: Sequence[LayerRef], sums: TraceSums) -> None:
        """Take them back and write all of them down.

        Raises:
            ParedownError: If the file can't be written.
        """
        place = self._place(surface, layers)
        for name in _FIELDS:
            getattr(self._all, name)[place] = getattr(sums, name)
        rows = self._all.counts.any(1).nonzero()[:, 0]
        arrays = {name: getattr(self._all, name)[rows].numpy() for name in _FIELDS}
        self._store.save_arrays(NAME, {"rows": rows.numpy().astype(np.int64), **arrays})

    def _place(self, surface: LossSurface, layers: Sequence[LayerRef]) -> tuple[Tensor, Tensor]:
        rows = torch.tensor([self._rows[sample] for batch in surface.batches for sample in batch.ids])
        return rows[:, None], torch.tensor([self._columns[layer.name] for layer in layers])
