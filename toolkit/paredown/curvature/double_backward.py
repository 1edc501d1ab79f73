"""Second derivatives by differentiating twice: what a model must be switched to for that, and what is said where it can't be done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from paredown.curvature.padding import padding_is_idle, runs, without_padding
from paredown.curvature.surface import LossSurface, rows_of
from paredown.errors import ParedownError
from paredown.tasks import Batch

MATH_KERNEL = "attention runs in PyTorch's math kernel while second derivatives are taken: the fused kernels have none"
EAGER = "attention {} is switched to eager while second derivatives are taken: it has none"


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[str]:
    """Within it, the model's forward passes build graphs that can be differentiated twice.

    Fused attention kernels have no second derivative. PyTorch's own function is held to its math kernel, which costs what the eager
    form of transformers costs (measured on a BERT) and needs no change of the model; any other implementation of transformers is
    switched to eager. Only the forward pass has to be within it. All is restored at the end.

    Args:
        model: The model.

    Yields:
        What was switched, in a sentence for the user; empty where nothing had to be.
    """
    configs = {id(config): config for module in model.modules() if (config := getattr(module, "config", None)) is not None}.values()
    before = [(config, kind) for config in configs if (kind := getattr(config, "_attn_implementation", None))]
    other = [(config, kind) for config, kind in before if kind not in ("eager", "sdpa")]
    fused = any(kind == "sdpa" for _, kind in before) or any(isinstance(module, nn.MultiheadAttention) for module in model.modules())
    notices = [EAGER.format(kind) for kind in sorted({kind for _, kind in other})] + [MATH_KERNEL] * fused
    try:
        for config, _ in other:
            config._attn_implementation = "eager"
        with sdpa_kernel(SDPBackend.MATH):
            yield "; ".join(notices)
    finally:
        for config, kind in other:
            config._attn_implementation = kind


def gradients(value: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The gradient of a scalar, itself differentiable; 0 where it does not depend on an input.

    Raises:
        ParedownError: If some operation below the value can be differentiated once only.
    """
    if culprit := _once_differentiable(value):
        raise ParedownError(_ONCE.format(f"{culprit} is marked once_differentiable"))
    return _grad([value], inputs, None, twice=True, keep=True)


def products(first: Sequence[Tensor], inputs: Sequence[Tensor], directions: Sequence[Tensor]) -> tuple[Tensor, ...]:
    r"""The Hessian times a direction, \(\nabla \langle g, v \rangle\), from the gradient g of `gradients`; the graph stays.

    Args:
        first: g, one tensor an input.
        inputs: What g is with respect to.
        directions: v, shaped as the inputs.

    Returns:
        One tensor an input; 0 where the gradient is constant.

    Raises:
        ParedownError: If some operation can be differentiated once only.
    """
    return _grad(first, inputs, directions, twice=False, keep=True)


_ONCE = (
    "expected a model and a loss that can be differentiated twice, but {}; replace that operation,"
    " or ask for the Gauss-Newton matrix, which needs first derivatives only"
)


def _grad(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], directions: Sequence[Tensor] | None, *, twice: bool, keep: bool
) -> tuple[Tensor, ...]:
    live = [i for i, output in enumerate(outputs) if output.requires_grad]
    if not live:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    try:
        return torch.autograd.grad(
            [outputs[i] for i in live],
            inputs,
            None if directions is None else [directions[i] for i in live],
            create_graph=twice,
            retain_graph=keep,
            materialize_grads=True,
        )
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        if "derivative for" in text or "once_differentiable" in text:
            raise ParedownError(_ONCE.format(f"PyTorch says: {text}")) from error
        raise


def _once_differentiable(value: Tensor) -> str | None:
    """The first Python operation whose backward pass leaves no graph: its second derivative would silently be 0."""
    waiting, seen = [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        function = getattr(node, "_forward_cls", None)
        if function is not None and hasattr(function.backward, "__wrapped__"):  # functools.wraps, by once_differentiable
            return function.__name__
        waiting += [above for above, _ in node.next_functions]
    return None


Graph = TypeVar("Graph")

GRAPH_BYTES = 1_500_000_000
"""Most bytes that the graphs of second derivatives take at once; at least one sample's graph is held, whatever its size."""


class Graphs(Generic[Graph]):
    """The graphs of all samples of a surface, in pieces of some samples that fit into memory; those that fit together are kept.

    Args:
        surface: The samples.
        build: Makes the graph of a batch.
        limit_bytes: What the graphs may take.
    """

    def __init__(self, surface: LossSurface, build: Callable[[Batch], Graph], limit_bytes: int = GRAPH_BYTES) -> None:
        self._surface, self._build, self._limit = surface, build, limit_bytes
        self._kept: dict[int, Graph] = {}

    def __iter__(self) -> Iterator[Graph]:
        """Each piece's graph, built where it isn't kept."""
        for index, batch in enumerate(self._pieces):
            graph = self._kept.get(index)
            if graph is None:
                graph = self._build(batch)
                if self.fit or index < self._room:
                    self._kept[index] = graph
            yield graph
            del graph

    @cached_property
    def _each(self) -> int:
        return bytes_of_a_sample(self._surface.batches, self._build)

    @property
    def fit(self) -> bool:
        """Whether all graphs are kept."""
        return self._each * self._surface.samples <= self._limit

    @cached_property
    def _pieces(self) -> list[Batch]:
        # where they don't fit, half for the kept ones, half for the one at work
        most = self._surface.samples if self.fit else max(1, int(self._limit / 2 / self._each))
        return list(pieces(self._surface, most))

    @property
    def _room(self) -> int:
        return int(self._limit / 2 / (self._each * max(len(piece.ids) for piece in self._pieces)))


def pieces(surface: LossSurface, samples: int) -> Iterator[Batch]:
    """The batches, cut to so many samples at most, and by length where that saves padding."""
    shorten = padding_is_idle(surface)
    for batch in surface.batches:
        for rows in runs(batch, torch.arange(len(batch.ids)), samples, by_length=shorten):
            piece = batch if len(rows) == len(batch.ids) else rows_of(batch, rows)
            yield without_padding(piece) if shorten else piece


def bytes_of_a_sample(batches: Sequence[Batch], build: Callable[[Batch], object]) -> int:
    """What autograd keeps for the first sample of the largest batch, measured by building its graph."""
    largest = max(batches, key=lambda batch: sum(tensor[0].numel() for tensor in batch.inputs.values()))
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graph = build(rows_of(largest, torch.tensor([0])))
    del graph
    return max(1, sum(sizes.values()))
