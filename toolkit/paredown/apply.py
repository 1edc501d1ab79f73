"""Put a plan into a model: for a while, as exactly dequantized weights, or for good, as packed modules."""

from __future__ import annotations

import difflib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from paredown import sizes
from paredown.errors import ParedownError
from paredown.kernels.packing import pack
from paredown.layers import weight_of
from paredown.methods import Compressed, compress, dequantize
from paredown.packed_modules import packed_module
from paredown.specs import KEEP, LayerRef, Scheme


def parameters_of(model: nn.Module, layer: LayerRef) -> list[nn.Parameter]:
    """The parameter objects that hold a layer's weight: one, or more where tied modules share the storage and not the object.

    Raises:
        ParedownError: If the model has no such layer, or its weight has another shape.
    """
    weight_of(model, layer)  # refuses what is not there
    found = {
        id(weight): weight for name in (layer.name, *layer.tied_to) if isinstance(weight := model.get_submodule(name).weight, nn.Parameter)
    }
    return list(found.values())


Kept = Callable[[LayerRef, Scheme], Compressed | None]
"""Weights that were compressed before, by layer and effective scheme; None where there is none. Asked for the schemes alone that
need calibration, whose statistics nobody has at hand once it is over."""


def compress_layer(weight: Tensor, layer: LayerRef, scheme: Scheme, kept: Kept | None = None) -> Compressed:
    """Compress a layer's weight by the scheme that fits it.

    Args:
        weight: As the module holds it: [out, in], transposed for a ``conv1d``.
        layer: Whose weight it is.
        scheme: What was asked; `paredown.sizes.fit` says what applies.
        kept: Where to find what calibration is needed for.

    Returns:
        What the file holds of [out, in].

    Raises:
        ParedownError: If the weight can't be compressed, or needs statistics and nobody kept it; the layer is named.
    """
    effective, _ = sizes.fit(scheme, layer)
    if effective.needs_calibration and kept is not None and (made := kept(layer, effective)) is not None:
        return made
    try:
        return compress(weight.T if layer.kind == "conv1d" else weight, effective, dtype=getattr(torch, layer.dtype))
    except ParedownError as error:
        raise ParedownError(f"{layer.name} by {scheme}: {error}") from error


def check_names(schemes: Mapping[str, Scheme], layers: Iterable[LayerRef]) -> None:
    """Refuse layers that the model does not have.

    Raises:
        ParedownError: With the nearest names that exist; a tied name is told which layer decides for it.
    """
    names = [layer.name for layer in layers]
    decides = {tied: layer.name for layer in layers for tied in layer.tied_to}
    for name in schemes:
        if name in decides:
            raise ParedownError(f"{name} shares the weight of {decides[name]}; give the scheme to that layer")
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else f"the model's layers start with {', '.join(names[:3])}"
            raise ParedownError(f"expected the name of one of the model's {len(names)} layers, got {name!r}; {hint}")


RoundInputs = Callable[[Tensor], Tensor]
"""A layer's inputs [..., in] to what the layer computes with."""


@dataclass(frozen=True, eq=False, slots=True)
class Variant:
    """A layer under a scheme.

    Attributes:
        weight: As the module holds it, transposed for a ``conv1d``; not to be written to.
        round_inputs: What is done to the layer's inputs; None where they are taken as they come.
    """

    weight: Tensor
    round_inputs: RoundInputs | None = None


class Variants:
    """One model under many plans: the exactly dequantized weights of a plan, in place for as long as it is measured.

    Schemes that round a layer's inputs are emulated alike: the inputs are put on their grid before the module sees them.

    Tied modules follow the layer that decides for them. Weights that were made once are kept, up to ``max_bytes``; those that
    were not used for longest go first.

    Args:
        model: The model; its parameter objects stay, only the data behind them changes.
        layers: The layers that plans decide on.
        max_bytes: Bytes of dequantized weights to keep.
        kept: Weights that were compressed before, for schemes that need calibration.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 2, bias=False))
        >>> layer = LayerRef("0", "linear", "fc1", "", (2, 64), "float32")
        >>> variants = Variants(model, (layer,))
        >>> before = model[0].weight.detach().clone()
        >>> with variants.applied({"0": Scheme.parse("int2g16")}):
        ...     len(model[0].weight.unique()) <= 4 * 2 * 4  # four codes in each of eight groups
        True
        >>> torch.equal(model[0].weight, before)
        True
    """

    def __init__(self, model: nn.Module, layers: Sequence[LayerRef], max_bytes: int = 2**30, *, kept: Kept | None = None) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self._parameters = {layer.name: parameters_of(model, layer) for layer in layers}
        self._originals = {layer.name: self._parameters[layer.name][0].data for layer in layers}
        self._max_bytes, self._kept = max_bytes, kept
        self._cache: OrderedDict[tuple[str, Scheme], Variant] = OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()  # one plan at a time
        self._model = model
        self._rounding: dict[str, RoundInputs | None] = {}  # of the layers that a plan is in place for, the innermost one's

    @contextmanager
    def applied(self, schemes: Mapping[str, Scheme]) -> Iterator[None]:
        """Put a plan in place; on leaving, also by an exception, the weights are what they were before, bit for bit.

        May be nested: the inner plan replaces the outer one's weights, layer by layer. Another thread waits.

        Args:
            schemes: Layer name to scheme; a layer that is absent is left alone.

        Yields:
            Nothing.

        Raises:
            ParedownError: If a layer is unknown or can't be compressed; the model is then unchanged.
        """
        check_names(schemes, self._layers.values())
        with self._lock:
            variants = {name: self.variant(name, scheme) for name, scheme in schemes.items()}
            before = [(parameter, parameter.data) for name in variants for parameter in self._parameters[name]]
            outer = dict(self._rounding)
            handles = [self._round_inputs(name) for name in schemes if name not in outer]
            self._rounding |= {name: variant.round_inputs for name, variant in variants.items()}
            try:
                for name, variant in variants.items():
                    for parameter in self._parameters[name]:
                        parameter.data = variant.weight
                yield
            finally:
                for parameter, data in before:
                    parameter.data = data
                self._rounding = outer
                for handle in (handle for layer in handles for handle in layer):
                    handle.remove()

    def _round_inputs(self, name: str) -> list[RemovableHandle]:
        """Let the modules of a layer see rounded inputs while the plan in place says so."""

        def rounded(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            round_inputs = self._rounding.get(name)
            return None if round_inputs is None else (round_inputs(arguments[0]), *arguments[1:])

        layer = self._layers[name]
        return [self._model.get_submodule(path).register_forward_pre_hook(rounded) for path in (name, *layer.tied_to)]

    def weight(self, name: str, scheme: Scheme) -> Tensor:
        """The weight that a layer would have, as its module holds it (transposed for a ``conv1d``); not to be written to.

        Args:
            name: The layer.
            scheme: What is asked of it.

        Returns:
            The original tensor for ``keep``, else the dequantized one, of the parameter's dtype.

        Raises:
            ParedownError: If the layer is unknown or can't be compressed.
        """
        return self.variant(name, scheme).weight

    def rows(self, name: str, scheme: Scheme, chosen: Tensor) -> Tensor:
        """Some rows of the `weight` of a table or a ``linear``; where a scheme rounds each row for itself, the others are not rounded.

        Args:
            name: The layer.
            scheme: What is asked of it.
            chosen: Which rows, [number].

        Raises:
            ParedownError: If the layer is unknown or can't be compressed.
        """
        check_names({name: scheme}, self._layers.values())
        layer = self._layers[name]
        effective, _ = sizes.fit(scheme, layer)
        if (name, effective) in self._cache or not effective.rounds_rows_alone or layer.kind == "conv1d":
            return self.weight(name, effective)[chosen]
        original = self._originals[name][chosen]
        return dequantize(compress_layer(original, layer, effective)).to(original.dtype)

    def compressed(self, name: str, scheme: Scheme) -> Compressed:
        """What the file holds of a layer under a scheme that changes it; made anew on each call.

        Raises:
            ParedownError: If the layer is unknown or can't be compressed.
        """
        check_names({name: scheme}, self._layers.values())
        return compress_layer(self._originals[name], self._layers[name], scheme, self._kept)

    def variant(self, name: str, scheme: Scheme) -> Variant:
        """A layer under a scheme: its `weight`, and what is done to its inputs.

        Raises:
            ParedownError: If the layer is unknown or can't be compressed.
        """
        check_names({name: scheme}, self._layers.values())
        layer, original = self._layers[name], self._originals[name]
        effective, _ = sizes.fit(scheme, layer)
        if effective == KEEP:
            return Variant(original)
        with self._lock:
            key = (name, effective)
            if key not in self._cache:
                made = compress_layer(original, layer, effective, self._kept)
                weight = dequantize(made)
                weight = (weight.T.contiguous() if layer.kind == "conv1d" else weight).to(original.dtype)
                self._cache[key] = Variant(weight, made.round_inputs)
                self._bytes += weight.nbytes
                while self._bytes > self._max_bytes and len(self._cache) > 1:
                    _, dropped = self._cache.popitem(last=False)
                    self._bytes -= dropped.weight.nbytes
            self._cache.move_to_end(key)
            return self._cache[key]

    def clear(self) -> None:
        """Forget the weights that were kept."""
        with self._lock:
            self._cache.clear()
            self._bytes = 0

    @property
    def cached_bytes(self) -> int:
        """Bytes of the weights that are kept."""
        return self._bytes


def compress_(model: nn.Module, layers: Sequence[LayerRef], schemes: Mapping[str, Scheme], kept: Kept | None = None) -> None:
    """Replace the modules of a plan by packed ones; tied modules share one set of packed tensors.

    All layers are compressed before the first module is replaced, so that a refusal leaves the model as it was.

    Args:
        model: The model; changed in place. What runs afterwards holds the codes, scales and zero points of the exported file.
        layers: The layers that plans decide on.
        schemes: Layer name to scheme; a layer that is absent is kept.
        kept: Weights that were compressed before, for schemes that need calibration.

    Raises:
        ParedownError: If a layer is unknown, of a kind of module that can't be packed, or can't be compressed.
    """
    check_names(schemes, layers)
    replacements: dict[str, nn.Module] = {}
    for layer in layers:
        scheme = schemes.get(layer.name, KEEP)
        if scheme == KEEP:
            continue
        packed = pack(compress_layer(parameters_of(model, layer)[0], layer, scheme, kept))
        for name in (layer.name, *layer.tied_to):
            replacements[name] = packed_module(name, model.get_submodule(name), packed)
    for name, module in replacements.items():
        model.set_submodule(name, module)


def stored_tensors(model: nn.Module, dtype: str = "float32") -> tuple[sizes.StoredTensor, ...]:
    """The tensors of the uncompressed checkpoint file, shared ones once, under the name that comes first in the model.

    Args:
        model: The model, uncompressed.
        dtype: What the checkpoint stores. A floating tensor that this dtype can't hold exactly stays as the model has it.

    Returns:
        Names, dtypes and shapes; for `paredown.sizes.fixed_bytes`.
    """
    return tuple(sizes.StoredTensor(name, stored_dtype(tensor, dtype), tuple(tensor.shape)) for name, tensor in state_of(model).items())


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's persistent tensors by name, each storage once."""
    seen: set[tuple[int, torch.Size, tuple[int, ...]]] = set()
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        tensors[name] = tensor
    return tensors


def stored_dtype(tensor: Tensor, dtype: str) -> str:
    """What the file stores a tensor as: ``dtype`` where that loses nothing, else the tensor's own."""
    own = str(tensor.dtype).removeprefix("torch.")
    if own == dtype or not tensor.is_floating_point():
        return own
    smaller = getattr(torch, dtype)
    return dtype if torch.equal(tensor.to(smaller).to(tensor.dtype), tensor) else own
