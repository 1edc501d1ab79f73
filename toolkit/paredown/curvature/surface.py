"""The loss as a function of the weights: a model, the batches, and one value per sample."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from paredown.errors import ParedownError
from paredown.specs import Split
from paredown.tasks import Batch, Predictions, Task


@dataclass(frozen=True, eq=False)
class LossSurface:
    r"""The loss \(\frac1N \sum_s \ell_s\) whose curvature is asked for; N counts units (samples or tokens).

    Attributes:
        model: In evaluation mode, in float32 or float64; `LossSurface.of` makes a float32 copy of one in half precision.
        loss: A batch to \(\ell_s\), the loss of each sample summed over its units, [samples]; differentiable in the weights.
        batches: The samples.
        units: Counted units of each sample, [samples], in the order of the batches.
        logits: A batch to the predictions for its counted units; None where the task offers no probabilities.

    Raises:
        ParedownError: If the model is in training mode or in half precision, there are no samples, or a batch has nothing to count.
    """

    model: nn.Module
    loss: Callable[[Batch], Tensor]
    batches: Sequence[Batch]
    units: Tensor
    logits: Callable[[Batch], Predictions] | None = None

    def __post_init__(self) -> None:
        _check_mode(self.model)
        half = next((name for name, tensor in self.model.named_parameters() if _is_half(tensor)), None)
        if half is not None:
            raise ParedownError(
                f"expected weights in float32 or float64, {half} is in half precision, too coarse for second derivatives;"
                " LossSurface.of(model, task) computes with a float32 copy"
            )
        if not self.batches or self.samples != len(self.units):
            raise ParedownError(
                f"expected at least one sample and the units of each, got {self.samples} samples and {len(self.units)} units"
            )
        for batch, units in zip(self.batches, self.units.split([len(batch.ids) for batch in self.batches]), strict=True):
            if int(units.sum()) == 0:
                raise ParedownError(f"expected labels to count in {_named(batch)}, got none; leave that batch out")

    @classmethod
    def of(cls, model: nn.Module, task: Task, samples: int | None = None, split: Split = "calibration") -> LossSurface:
        """The surface of a task's loss.

        Args:
            model: The model; where weights are in half precision, a float32 copy of all of it is made.
            task: Its loss, and its predictions where it offers probabilities.
            samples: The first so many; the task's default where None.
            split: Which data.
        """
        batches = task.batches(split, samples)
        if any(_is_half(tensor) for tensor in model.parameters()):
            model = copy.deepcopy(model).float()
            batches = [
                dataclasses.replace(batch, inputs={name: _widened(tensor) for name, tensor in batch.inputs.items()}) for batch in batches
            ]
        logits = partial(task.predictions, model) if task.offers_probabilities else None
        return cls(model, partial(task.loss, model), batches, torch.cat([task.units(batch) for batch in batches]), logits)

    @property
    def samples(self) -> int:
        """Number of samples."""
        return sum(len(batch.ids) for batch in self.batches)

    @property
    def total_units(self) -> int:
        """N, what everything is divided by."""
        return int(self.units.sum())

    def first(self, samples: int) -> LossSurface:
        """The samples with the lowest ids; batches are sorted by length, so that their first rows would be the shortest."""
        ids = torch.tensor([i for batch in self.batches for i in batch.ids])
        return self.take(ids.argsort()[:samples])

    def take(self, rows: Tensor) -> LossSurface:
        """Some of the samples, each in the batch that it was in.

        Args:
            rows: Positions in the order of the batches, 0 to `samples` − 1, in any order.
        """
        chosen = torch.zeros(self.samples, dtype=torch.bool)
        chosen[rows] = True
        parts = chosen.split([len(batch.ids) for batch in self.batches])
        batches = [rows_of(batch, part.nonzero()[:, 0]) for batch, part in zip(self.batches, parts, strict=True) if part.any()]
        return dataclasses.replace(self, batches=batches, units=self.units[chosen])

    def losses(self, batch: Batch) -> Tensor:
        r"""\(\ell_s\), checked, [samples].

        Raises:
            ParedownError: If the model is in training mode, the loss isn't one finite value per sample; where values inside the model are
                not finite either, the first layer with such an output is named.
        """
        _check_mode(self.model)
        try:
            values = self.loss(batch)
        except ParedownError as error:
            if culprit := _first_not_finite(self.model, self.loss, batch):
                raise ParedownError(f"{error}; the first layer whose output is not finite is {culprit}") from error
            raise
        if not isinstance(values, Tensor) or tuple(values.shape) != (len(batch.ids),):
            got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ParedownError(
                f"expected one loss per sample, a tensor [{len(batch.ids)}] for {_named(batch)}, got {got};"
                " sum over the units of a sample, and neither sum nor average over samples"
            )
        if not bool(torch.isfinite(values.detach()).all()):
            bad = [i for i, value in zip(batch.ids, values.detach().tolist(), strict=True) if not abs(value) < float("inf")]
            culprit = _first_not_finite(self.model, self.loss, batch)
            where = (
                f"; the first layer whose output is not finite is {culprit}"
                if culprit
                else "; every layer's output is finite, look at the loss"
            )
            raise ParedownError(f"the loss is NaN or infinite for samples {', '.join(map(str, bad[:4]))} in {_named(batch)}{where}")
        return values


def rows_of(batch: Batch, rows: Tensor) -> Batch:
    """Some samples of a batch."""
    targets = None if batch.targets is None else batch.targets[rows]
    return Batch({name: tensor[rows] for name, tensor in batch.inputs.items()}, targets, tuple(batch.ids[i] for i in rows.tolist()))


def _named(batch: Batch) -> str:
    return f"the batch of samples {batch.ids[0]} to {batch.ids[-1]}"


def _is_half(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if _is_half(tensor) else tensor


def _check_mode(model: nn.Module) -> None:
    if model.training:
        raise ParedownError("the model is in training mode, where dropout makes every pass differ; call model.eval() first")


@torch.no_grad()
def _first_not_finite(model: nn.Module, loss: Callable[[Batch], Tensor], batch: Batch) -> str | None:
    """Run once more and watch the leaves: the first module, in order of execution, that returns a value that isn't finite."""
    found: list[str] = []

    def watch(name: str):
        def look(module: nn.Module, arguments: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and output.is_floating_point() and not bool(torch.isfinite(output).all()):
                found.append(name)

        return look

    leaves = [(name, module) for name, module in model.named_modules() if next(module.children(), None) is None]
    handles = [module.register_forward_hook(watch(name)) for name, module in leaves]
    try:
        loss(batch)
    except ParedownError:
        pass  # the same refusal again: what it stumbled on has been found by now
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
