"""What calibration knows of one layer, for the schemes that need it; what several of them make of it is made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from paredown.errors import ParedownError
from paredown.methods import kfac_pruning, moments
from paredown.methods.activations import Range
from paredown.methods.error_feedback import InverseFactor, Order, inverse_factor

Made = TypeVar("Made")
Given = TypeVar("Given")

_CHUNK = 1 << 22  # numbers of the gradients that are held at once


@dataclass(frozen=True, eq=False, slots=True)
class Statistics:
    r"""What is known of a layer. All but the moment is asked for when a scheme needs it.

    Attributes:
        moment: Mean of x xᵀ over tokens, [in, in].
        tokens: How many there were; None where nobody counted.
        gradients: Gives the gradients of the loss in some rows of the weight, start .. stop, one for each sample (summed over its tokens),
            [samples, stop - start, in]. Their mean square is the diagonal of the Fisher where the loss is an output-space probe or has
            sampled labels.
        output_moment: Gives the mean of g gᵀ over tokens, g the gradients of the layer's outputs, [out, out].
        input_range: Gives the range of the layer's inputs for a grid of that many bits.
        squares: Gives the mean of the squared gradients, [out, in], where that takes less than to go through `gradients`.
    """

    moment: Tensor
    tokens: int | None = None
    gradients: Callable[[int, int], Tensor] | None = None
    output_moment: Callable[[], Tensor] | None = None
    input_range: Callable[[int], Range] | None = None
    squares: Callable[[], Tensor] | None = None
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def note(self) -> str:
        """What is degenerate about the inputs; empty where nothing is."""
        inputs = len(self.moment)
        _, idle = moments.usable(self.moment, inputs)
        dead = int((self.moment.diagonal() <= 0).sum())
        notes = [idle] if idle else [f"{dead} inputs are never active"] * (dead > 0)
        if self.tokens is not None and self.tokens < inputs:
            notes.append(f"{self.tokens} tokens for {inputs} inputs: not all directions were seen")
        return "; ".join(notes)

    def factor(self, order: Order, unit: int) -> InverseFactor:
        """Of the inverse second moment."""
        return self.once(("factor", order, unit), lambda: inverse_factor(self.moment, order=order, unit=unit, tokens=self.tokens))

    def fisher(self, out: int) -> Tensor:
        """Mean of the squared gradients of single samples, float32 [out, in]."""
        return self.once("fisher", self.squares or (lambda: self._fisher(out)))

    def _fisher(self, out: int) -> Tensor:
        read = self.sample_gradients
        rows = max(1, _CHUNK // read(0, 1).numel())
        return torch.cat([read(start, min(start + rows, out)).float().square().mean(0) for start in range(0, out, rows)])

    @property
    def sample_gradients(self) -> Callable[[int, int], Tensor]:
        """`gradients`, where they are at hand."""
        return _given(self.gradients, "the gradients of the loss in the layer's weight, one for each sample")

    @property
    def outputs(self) -> Tensor:
        """`output_moment`, computed."""
        return self.once("outputs", _given(self.output_moment, "the second moment of the gradients of the layer's outputs"))

    def range(self, bits: int) -> Range:
        """`input_range`, computed."""
        return self.once(("range", bits), lambda: _given(self.input_range, "the range of the layer's inputs")(bits))

    def inverse_diagonal(self) -> kfac_pruning.InverseDiagonal:
        """Of K-FAC's damped Fisher."""
        return self.once("kfac", lambda: kfac_pruning.inverse_diagonal(self.moment, self.outputs))

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What was made before under that key, else what is made now."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def last(self, key: tuple[Any, ...], make: Callable[[], Made]) -> Made:
        """What was made the last time, if the key is made of the same objects or equal values; else what is made now, in its place."""
        known, made = self._made.get("last", ((), None))
        if len(known) != len(key) or not all(mine is theirs or _same(mine, theirs) for mine, theirs in zip(key, known, strict=True)):
            made = make()
            self._made["last"] = (key, made)
        return made


def _same(mine: Any, theirs: Any) -> bool:
    return not isinstance(mine, Tensor) and not isinstance(theirs, Tensor) and mine == theirs


def _given(value: Given | None, name: str) -> Given:
    """What a scheme asks for.

    Raises:
        ParedownError: If it is not at hand.
    """
    if value is None:
        raise ParedownError(f"{name} is not at hand; calibrate the layer, or take a scheme that does without")
    return value
