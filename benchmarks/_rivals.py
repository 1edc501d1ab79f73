"""PyHessian and curvlinops, used as their documentation does and at the settings that serve them best.

Both fail on the attention that transformers choose by default, whose backward pass has no derivative: they get a model with eager
attention. PyHessian 0.1 calls ``torch.eig``, which PyTorch removed, in `density`: `legacy_eig` puts it back for the call. It reads
one tensor as input and has no notion of a layer but ``requires_grad``: `pyhessian_of` gives it both, so that its graph begins at the layer.
Its stopping rule for traces lacks an absolute value and ends at once where the trace is negative; it is given a number of draws instead.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from curvlinops import HessianLinearOperator
from curvlinops.papyan2020traces.spectrum import lanczos_approximate_spectrum
from pyhessian import hessian as pyhessian
from pyhessian.utils import group_product, hessian_vector_product
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from _rows import spent
from paredown.specs import LayerRef
from paredown.tasks import Batch


class _Logits(nn.Module):
    """From what a rival hands over to logits: a mapping, or one tensor of token ids where the mask is known."""

    def __init__(self, model: nn.Module, mask: Tensor | None = None) -> None:
        super().__init__()
        self.model, self.mask = model, mask

    def forward(self, inputs: Any) -> Tensor:
        if isinstance(inputs, Tensor):
            return self.model(input_ids=inputs, attention_mask=self.mask).logits
        return self.model(**inputs).logits


@contextmanager
def pyhessian_of(model: nn.Module, layer: LayerRef, batch: Batch) -> Iterator[Any]:
    """PyHessian's class for one layer; it runs the model forward and backward once, and keeps the graph for its products."""
    parameter = model.get_submodule(layer.name).weight
    parameter.requires_grad_(True)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
            data = (batch.inputs["input_ids"], batch.targets)
            yield pyhessian(_Logits(model, batch.inputs["attention_mask"]), nn.CrossEntropyLoss(), data=data, cuda=False)
    finally:
        parameter.grad = None  # it holds the graph, and the graph holds it
        parameter.requires_grad_(False)


@dataclass(frozen=True, eq=False)
class TraceCosts:
    """What Hutchinson's estimator took, layer by layer.

    Attributes:
        setup: Seconds of each layer's first passes, [layers].
        per_draw: Seconds of one draw, [layers].
        draws: The draws, [draws, layers].
    """

    setup: np.ndarray
    per_draw: np.ndarray
    draws: np.ndarray

    def seconds(self, draws: float) -> float:
        """Of so many draws of every layer."""
        return float(self.setup.sum() + draws * self.per_draw.sum())


def pyhessian_traces(model: nn.Module, layers: Sequence[LayerRef], batch: Batch, draws: int) -> TraceCosts:
    """So many draws of each layer: with a tolerance that nothing meets, its stopping rule is out of the way."""
    setup, per_draw, values = [], [], []
    for layer in layers:
        started = time.process_time()
        with pyhessian_of(model, layer, batch) as computer:
            setup.append(time.process_time() - started)
            seconds, found = spent(lambda computer=computer: computer.trace(maxIter=draws, tol=-np.inf))
        per_draw.append(seconds / draws)
        values.append(found)
    return TraceCosts(np.array(setup), np.array(per_draw), np.array(values).T)


def pyhessian_top(model: nn.Module, layer: LayerRef, batch: Batch, residual: float) -> tuple[float, float, float]:
    r"""Seconds, the eigenvalue of largest magnitude \(\theta\), and its relative residual \(\|Hv - \theta v\| / |\theta|\).

    It stops where \(\theta\) changes little. The seconds are those of the loosest tolerance that gives the residual asked for, as if one
    had known it; of the tightest one here where none does.
    """
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
        started = time.process_time()
        with pyhessian_of(model, layer, batch) as computer:
            _, (vector,) = computer.eigenvalues(maxIter=100, tol=tolerance)
            seconds = time.process_time() - started
            product = hessian_vector_product(computer.gradsH, computer.params, vector)
            value = float(group_product(product, vector))
            reached = float(sum(((p - value * v) ** 2).sum() for p, v in zip(product, vector, strict=True)) ** 0.5) / abs(value)
        if reached <= residual:
            break
    return seconds, value, reached


@contextmanager
def legacy_eig() -> Iterator[None]:
    """``torch.eig`` as it was, for the symmetric tridiagonal matrices that PyHessian gives it."""

    def eig(matrix: Tensor, eigenvectors: bool = True) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], 1), vectors

    before, torch.eig = torch.eig, eig
    try:
        yield
    finally:
        torch.eig = before


def curvlinops_of(model: nn.Module, layers: Sequence[LayerRef], batches: Sequence[Batch]) -> HessianLinearOperator:
    """The Hessian of the layers in curvlinops, block by block; without its check for determinism, which takes products of its own."""
    parameters = [model.get_submodule(layer.name).weight for layer in layers]
    return HessianLinearOperator(
        _Logits(model),
        nn.CrossEntropyLoss(),
        parameters,
        [(dict(batch.inputs), batch.targets) for batch in batches],
        check_deterministic=False,
        num_data=sum(len(batch.ids) for batch in batches),
        block_sizes=[1] * len(layers),
        batch_size_fn=lambda inputs: len(inputs["input_ids"]),
    )


def curvlinops_draw(operator: HessianLinearOperator, layers: Sequence[LayerRef], columns: int) -> np.ndarray:
    """Hutchinson's draws of each block from one product with a matrix of random signs, [columns, layers]."""
    signs = [torch.randint(0, 2, (*layer.shape, columns)).float() * 2 - 1 for layer in layers]
    return np.stack([(s * p).sum((0, 1)).numpy() for s, p in zip(signs, operator @ signs, strict=True)], 1)


def curvlinops_top(model: nn.Module, layer: LayerRef, batches: Sequence[Batch], tolerance: float) -> tuple[float, int]:
    """Largest eigenvalue by SciPy's `eigsh`, as curvlinops' examples do, and its products: its default of 20 Lanczos vectors a cycle."""
    scipy, count = curvlinops_of(model, [layer], batches).to_scipy(), [0]

    def product(vector: np.ndarray) -> np.ndarray:
        count[0] += 1
        return scipy @ vector

    counted: Callable[..., Any] = LinearOperator
    (value,) = eigsh(counted(scipy.shape, matvec=product, dtype=scipy.dtype), k=1, which="LA", tol=tolerance, return_eigenvectors=False)
    return float(value), count[0]


def curvlinops_density(model: nn.Module, layer: LayerRef, batches: Sequence[Batch], steps: int) -> None:
    """Its spectral density, bounds included."""
    lanczos_approximate_spectrum(curvlinops_of(model, [layer], batches), steps)


def pyhessian_density(model: nn.Module, layer: LayerRef, batch: Batch) -> list[float]:
    """Nodes of its spectral density, at its default of 100 steps and one start."""
    with pyhessian_of(model, layer, batch) as computer, legacy_eig():
        (nodes,), _ = computer.density(iter=100, n_v=1)
    return nodes
