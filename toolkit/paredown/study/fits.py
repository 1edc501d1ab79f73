r"""How far the quadratic model holds for a layer: its rounding errors put in place one after the other, and the loss measured.

Measured is what the sensitivities predict: the KL divergence to the original model's predictions, or the increase of the task's own
loss where it offers no probabilities. Predicted is \(\frac12 \langle \Delta W, G\, \Delta W \rangle\) on the same samples, with the matrix of the
sensitivities (Gauss-Newton or empirical Fisher), so that the two differ by the quadratic model's error alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from paredown.curvature import LossSurface, OuterProducts, empirical_fisher, ratio
from paredown.curvature.trust import judge
from paredown.errors import ParedownError
from paredown.evaluation import divergence
from paredown.layers import weight_of
from paredown.sizes import fit
from paredown.specs import QuadraticFit, QuadraticStep, Scheme, SpectralDensity
from paredown.study.session import Session
from paredown.tasks import Predictions

SCHEMES = tuple(Scheme.parse(f"int{bits}g64sym") for bits in (8, 4, 3, 2))
"""The steps, shortest first."""

_NUMBERS = 4_000_000
"""Logits that are compared at once; in double precision, for at 8 bits the divergence of one layer is below float32's rounding."""


@dataclass(frozen=True, eq=False, slots=True)
class Ground:
    """What the fits of all layers share: the samples, and what is known of the original model on them.

    Attributes:
        session: Model and task.
        surface: The samples.
        matrix: Gauss-Newton or empirical Fisher of the layers together.
        gradient: The empirical Fisher, made of the gradients of the loss; None where there are no labels.
        original: Per batch, the model's predictions, or the losses of the samples.
        check: Called before each forward pass; may stop the work.
    """

    session: Session
    surface: LossSurface
    matrix: OuterProducts
    gradient: OuterProducts | None
    original: tuple[Predictions | Tensor, ...]
    check: Callable[[], None]

    @classmethod
    def of(cls, session: Session, surface: LossSurface, matrix: OuterProducts, check: Callable[[], None]) -> Ground:
        """Run the original model: once forward and backward for the gradients of the loss, once forward for its answers."""
        gradient = matrix if surface.logits is None else None
        if gradient is None and all(batch.targets is not None for batch in surface.batches):
            gradient = empirical_fisher(surface, matrix.layers)
        return cls(session, surface, matrix, gradient, tuple(_answers(surface, check)), check)

    def quadratic_fit(self, index: int, density: SpectralDensity | None) -> QuadraticFit:
        """Measure one layer's steps and judge them.

        Args:
            index: Which of the matrix's layers.
            density: The spectrum of its Hessian, where it is known.

        Raises:
            ParedownError: If the model's answers are not finite with some step.
        """
        layer = self.matrix.layers[index]
        weight = weight_of(self.surface.model, layer)
        applied = list(dict.fromkeys(fit(scheme, layer)[0] for scheme in SCHEMES))
        rounded = [self.session.variants.weight(layer.name, scheme) for scheme in applied]
        changes = [(other.T if layer.kind == "conv1d" else other) - weight for other in rounded]
        predicted = 0.5 * self.matrix.block(index).sample_forms(changes)
        measured = torch.stack([self._measured(layer.name, scheme) for scheme in applied], 1)
        means, deviations = zip(*(ratio(forms, self.surface.units) for forms in (predicted, measured, measured - predicted)), strict=True)
        columns = (means[0], deviations[0], means[1], deviations[1], deviations[2])
        steps = tuple(
            QuadraticStep(str(scheme), *figures) for scheme, *figures in zip(applied, *(column.tolist() for column in columns), strict=True)
        )
        norm, chance = (0.0, 0.0) if self.gradient is None else _gradient_norm(self.gradient.block(index))
        share = None if density is None else density.negative_share
        verdict, reason = judge(steps, gradient_norm=norm, gradient_norm_sd=chance, negative_share=share)
        return QuadraticFit(layer.name, norm, chance, share, steps, verdict, reason, self.surface.samples, self.session.config.seed)

    def _measured(self, name: str, scheme: Scheme) -> Tensor:
        """What each sample's loss does with the rounded weight, summed over its units, [samples], float64."""
        with self.session.variants.applied({name: scheme}):
            try:
                answers = list(_answers(self.surface, self.check))
            except ParedownError as error:
                raise ParedownError(f"{name} by {scheme}: {error}") from error
        triples = zip(self.original, answers, self.surface.batches, strict=True)
        return torch.cat([_increase(before, after, len(batch.ids)) for before, after, batch in triples])


@torch.no_grad()
def _answers(surface: LossSurface, check: Callable[[], None]) -> Iterator[Predictions | Tensor]:
    for batch in surface.batches:
        check()
        yield surface.losses(batch) if surface.logits is None else surface.logits(batch)


def _increase(before: Predictions | Tensor, after: Predictions | Tensor, samples: int) -> Tensor:
    if isinstance(before, Tensor) or isinstance(after, Tensor):
        assert isinstance(before, Tensor)
        assert isinstance(after, Tensor)
        return after.double() - before.double()
    rows = max(1, _NUMBERS // before.logits.shape[-1])
    pairs = zip(before.logits.split(rows), after.logits.split(rows), strict=True)
    each = torch.cat([divergence(first.double(), second.double()) for first, second in pairs])
    return each.new_zeros(samples).index_add_(0, before.sample, each)


def _gradient_norm(rows: OuterProducts) -> tuple[float, float]:
    r"""\(\|\sum_s g_s\| / N\), and what chance would make of it at a minimum: \(\sqrt{n s^2} / N\) with the samples' spread \(s^2\)."""
    gram, samples = rows.gram(), rows.samples
    total = float(gram.sum().clamp(min=0))
    spread = max(0.0, float(gram.trace()) - total / samples) * samples / max(samples - 1, 1)
    units = float(rows.units.sum())
    return total**0.5 / units, spread**0.5 / units
