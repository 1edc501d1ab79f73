"""What goes into the projections of a model, and what its blocks do, over the real tokens of some batches; forward passes alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paredown.calibration import token_mask
from paredown.errors import ParedownError
from paredown.methods.block_influence import block_influence
from paredown.structure.anatomy import Block
from paredown.symmetric import gram
from paredown.tasks import Batch, Task


@dataclass(frozen=True, eq=False, slots=True)
class InputMoments:
    """Moments of a projection's inputs.

    Attributes:
        second: Mean of x xᵀ, float64 [in, in].
        mean: Mean of x, float64 [in].
        tokens: How many there were.
    """

    second: Tensor
    mean: Tensor
    tokens: int


class _Enough(Exception):  # noqa: N818  (no error: all that was wanted has been seen)
    pass


def input_moments(model: nn.Module, task: Task, batches: Sequence[Batch], paths: Sequence[str]) -> dict[str, InputMoments]:
    """Moments of the inputs of some modules; each pass ends when all of them were run.

    Args:
        model: In evaluation mode.
        task: How it is run.
        batches: On what.
        paths: Module paths.

    Returns:
        By path.

    Raises:
        ParedownError: If no batch runs one of them.
    """
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}
    for batch in batches:
        waiting, mask = set(paths), token_mask(batch)

        def hear(path: str, inputs: Tensor, mask: Tensor | None = mask, waiting: set[str] = waiting) -> None:
            rows = _rows(inputs.detach(), mask)
            second, mean = gram(rows).double(), rows.sum(0, dtype=torch.float64)
            old = sums.get(path)
            sums[path] = (second, mean, len(rows)) if old is None else (old[0] + second, old[1] + mean, old[2] + len(rows))
            waiting.discard(path)
            if not waiting:
                raise _Enough

        def hook(path: str, hear: Callable[[str, Tensor], None] = hear) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            return lambda module, arguments: hear(path, arguments[0])

        hooks = [model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
        try:
            run(model, task, batch)
        except _Enough:
            pass
        finally:
            for handle in hooks:
                handle.remove()
    if unseen := [path for path in paths if path not in sums]:
        raise ParedownError(f"the calibration data never runs {', '.join(unseen[:3])}, so that nothing is known of its inputs; leave it")
    return {path: InputMoments(second / tokens, mean / tokens, tokens) for path, (second, mean, tokens) in sums.items()}


def influences(model: nn.Module, task: Task, batches: Sequence[Batch], blocks: Sequence[Block]) -> dict[str, float]:
    r"""Mean of \(1 - \cos(x_t, y_t)\) between what goes into each block and what comes out (Men et al. 2024, ShortGPT), by path."""
    sums = {block.path: (0.0, 0) for block in blocks}
    for batch in batches:
        mask = token_mask(batch)

        def hear(path: str, before: Tensor, after: Tensor, mask: Tensor | None = mask) -> None:
            each = block_influence(_rows(before, mask), _rows(after, mask))
            total, tokens = sums[path]
            sums[path] = total + float(each.sum()), tokens + len(each)

        def hook(path: str, hear: Callable[[str, Tensor, Tensor], None] = hear) -> Callable[..., None]:
            def heard(module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
                hear(path, arguments[0] if arguments else options["hidden_states"], output[0] if isinstance(output, tuple) else output)

            return heard

        hooks = [model.get_submodule(block.path).register_forward_hook(hook(block.path), with_kwargs=True) for block in blocks]
        try:
            run(model, task, batch)
        finally:
            for handle in hooks:
                handle.remove()
    return {path: total / max(tokens, 1) for path, (total, tokens) in sums.items()}


@torch.no_grad()
def run(model: nn.Module, task: Task, batch: Batch) -> None:
    """One forward pass."""
    task.predictions(model, batch) if task.offers_probabilities else task.loss(model, batch)


def _rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """The real tokens, [tokens, width]."""
    if mask is not None and values.shape[:2] == mask.shape:
        return values[mask.to(values.device)]
    return values.reshape(-1, values.shape[-1])
