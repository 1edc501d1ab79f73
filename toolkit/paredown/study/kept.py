"""Weights that were found with what calibration saw of their layers, kept in the study's artifacts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from paredown.kernels.packing import Packed, pack, unpack
from paredown.methods import Compressed
from paredown.sizes import packed_tensors
from paredown.specs import LayerRef, Scheme
from paredown.study.arrays import Arrays


class KeptWeights:
    """What was priced is what is measured and exported: one packed file for each layer and scheme; a `paredown.apply.Kept`.

    The statistics themselves are not kept: they take in² numbers a layer, the packed weight a few bits for each of out · in.
    """

    def __init__(self, store: Arrays, again: Callable[[LayerRef, Scheme], Compressed]) -> None:
        """Keep weights in a store.

        Args:
            store: The study's.
            again: Makes a weight that the artifacts don't have, from the calibration data.
        """
        self._store, self._again = store, again

    def __call__(self, layer: LayerRef, scheme: Scheme) -> Compressed:
        """The weight of a layer by a scheme that fits it: as it was priced, or made again where the artifact is lost."""
        made = self._load(layer, scheme)
        if made is None:
            made = self._again(layer, scheme)
            self.keep(layer, made)
        return made

    def keep(self, layer: LayerRef, made: Compressed) -> None:
        """Write a weight down.

        Raises:
            ParedownError: If the file can't be written.
        """
        arrays = {name: _array(tensor) for name, tensor in pack(made).tensors.items()}
        self._store.save_arrays(_name(layer, made.scheme), arrays)

    def _load(self, layer: LayerRef, scheme: Scheme) -> Compressed | None:
        arrays = self._store.load_arrays(_name(layer, scheme))
        expected = {tensor.name: tensor for tensor in packed_tensors(layer.shape, scheme, layer.dtype) if tensor.name != "weight_shape"}
        if arrays is None or {name: array.shape for name, array in arrays.items()} != {name: t.shape for name, t in expected.items()}:
            return None
        tensors = {name: torch.from_numpy(array).view(getattr(torch, expected[name].dtype)) for name, array in arrays.items()}
        return unpack(Packed(tensors, scheme, layer.shape))


def _name(layer: LayerRef, scheme: Scheme) -> str:
    return f"variant-{hashlib.sha256(f'{layer.name} {scheme}'.encode()).hexdigest()[:16]}"


def _array(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu().contiguous()
    bits = {torch.bfloat16: torch.int16, torch.float8_e4m3fn: torch.uint8}.get(tensor.dtype)  # numpy has neither
    return (tensor if bits is None else tensor.view(bits)).numpy()
