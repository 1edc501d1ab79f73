"""The allocation problem: one scheme for each group of layers that are decided together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, cast, get_args

import numpy as np

from paredown.errors import ParedownError
from paredown.record import MatrixEstimates
from paredown.search.resources import Resource, bit_operations
from paredown.search.sensitivities import Sensitivity, curvature_of
from paredown.specs import KEEP, Candidate, LayerRef, Scheme, Score, fused_groups

Objective = Literal["guarded_loss", "loss_increase", "output_error", "weight_error"] | Sensitivity | Score
"""What a search sums: a column of `Problem`, one number of curvature a layer (`paredown.search.sensitivities`), or a score."""

DEVIATIONS = 2.0
"""Standard errors that the guarded loss adds (`Problem`)."""

STEP_PENALTY = 10.0
"""How fast the guarded loss grows with the relative output error (`Problem`)."""

FEW_NAMES = 3
"""Layers that a message names."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the additive model says of a plan.

    Attributes:
        bytes: Size of the whole file.
        loss_increase: Sum over the layers, nats per unit. The true loss is super-additive: this ranks plans, it is no result.
        loss_increase_sd: Upper bound of its standard error, the sum of the layers' own: their errors come from the same samples,
            so they are no more than fully correlated.
        seconds_per_token: Sum of the layers' CPU seconds; None where one was not timed.
        seconds_per_token_sd: Upper bound of its standard error, likewise: layers of one shape are timed by the same calls.
    """

    bytes: int
    loss_increase: float
    loss_increase_sd: float
    seconds_per_token: float | None = None
    seconds_per_token_sd: float | None = None


@dataclass(frozen=True, eq=False)
class Problem:
    r"""Choices per group of layers, as arrays.

    What a search minimises by default is the guarded loss \((l + 2\sigma)(1 + 10\,e)\) of each choice, for two reasons. A search picks
    what is predicted too low by chance (the optimiser's curse), which the standard errors \(\sigma\) counter. And the quadratic model
    holds for small steps only, which the relative output error e stands for. Neither constant follows from theory or from a fit: they
    are the pair that did best among about ten tried on the demos, judged by held-out KL.

    Attributes:
        groups: Layer names that are decided together.
        schemes: The schemes that each group may get, as asked.
        candidates: Per group and scheme, the candidates of its layers.
        bytes: Per group, the bytes of each choice, [choices].
        loss_increase: Per group, the predicted loss increase of each choice in nats per unit, [choices].
        guarded_loss: Per group, what a search minimises instead, [choices].
        output_error: Per group, the predicted relative output error of each choice weighted by the layer's size, [choices].
        fixed_bytes: Bytes of the file that no choice changes.
        layers: Layer name to layer.
        curvature: Layer name to what is known of one curvature matrix.
        columns: Further scores and resources by name: per group, the sum over its layers for each choice, [choices].
    """

    groups: tuple[tuple[str, ...], ...]
    schemes: tuple[tuple[Scheme, ...], ...]
    candidates: tuple[tuple[tuple[Candidate, ...], ...], ...]
    bytes: tuple[np.ndarray, ...]
    loss_increase: tuple[np.ndarray, ...]
    guarded_loss: tuple[np.ndarray, ...]
    output_error: tuple[np.ndarray, ...]
    fixed_bytes: int
    layers: Mapping[str, LayerRef] = field(default_factory=dict)
    curvature: Mapping[str, MatrixEstimates] = field(default_factory=dict)
    columns: Mapping[str, tuple[np.ndarray, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        fixed_bytes: int,
        layers: Sequence[LayerRef],
        candidates: Mapping[str, Mapping[Scheme, Candidate]],
        *,
        fuse: bool = True,
        curvature: Mapping[str, MatrixEstimates] | None = None,
        columns: Mapping[str, Mapping[str, Mapping[Scheme, float]]] | None = None,
    ) -> Problem:
        """Arrange the candidates of the given layers.

        Args:
            fixed_bytes: Bytes of the file that no choice changes.
            layers: The layers to decide on; those without candidates are left out.
            candidates: Layer name to scheme to candidate.
            fuse: Decide the layers that a runtime fuses together.
            curvature: Layer name to the estimates of one matrix; the sensitivities that rest on curvature alone need it.
            columns: Name of a `Score` or `Resource` to layer name to scheme (as asked) to value, in place of `Candidate.scores`.

        Returns:
            The problem.

        Raises:
            ParedownError: If no layer has candidates, the layers of a group share no scheme, or a column misses a candidate.
        """
        known = [layer for layer in layers if layer.name in candidates]
        if not known:
            raise ParedownError("there is nothing to allocate: no layer has candidates yet; run the sensitivity stage first")
        groups = fused_groups(known) if fuse else tuple((layer.name,) for layer in known)
        schemes = tuple(
            tuple(scheme for scheme in candidates[group[0]] if all(scheme in candidates[name] for name in group)) for group in groups
        )
        for group, shared in zip(groups, schemes, strict=True):
            if not shared:
                raise ParedownError(
                    f"the fused layers {', '.join(group)} share no scheme; give them a common one, or decide them apart with fuse=False"
                )
        table = tuple(
            tuple(tuple(candidates[name][scheme] for name in group) for scheme in shared)
            for group, shared in zip(groups, schemes, strict=True)
        )
        sizes = {layer.name: layer.parameters for layer in known}

        def column(value: Callable[[Candidate], float]) -> tuple[np.ndarray, ...]:
            return tuple(np.array([sum(map(value, choice)) for choice in choices]) for choices in table)

        return cls(
            groups,
            schemes,
            table,
            bytes=column(lambda c: c.bytes),
            loss_increase=column(lambda c: c.loss_increase),
            guarded_loss=column(lambda c: (c.loss_increase + DEVIATIONS * c.loss_increase_sd) * (1 + STEP_PENALTY * c.output_error)),
            output_error=column(lambda c: c.output_error * sizes[c.layer]),
            fixed_bytes=fixed_bytes,
            layers={layer.name: layer for layer in known},
            curvature=curvature or {},
            columns={
                **{
                    score: column(lambda c, score=score: c.scores.get(score, 0.0))
                    for score in get_args(Score)
                    if not _lacking(score, table)
                },
                **{name: column(_looked_up(name, values)) for name, values in (columns or {}).items()},
            },
        )

    def narrowed(self, masks: Sequence[np.ndarray]) -> Problem:
        """The same problem with some choices of each group only, [choices] bool."""

        def some(columns: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
            return tuple(values[mask] for values, mask in zip(columns, masks, strict=True))

        return replace(
            self,
            schemes=tuple(
                tuple(s for s, kept in zip(offered, mask, strict=True) if kept) for offered, mask in zip(self.schemes, masks, strict=True)
            ),
            candidates=tuple(
                tuple(c for c, kept in zip(choices, mask, strict=True) if kept)
                for choices, mask in zip(self.candidates, masks, strict=True)
            ),
            bytes=some(self.bytes),
            loss_increase=some(self.loss_increase),
            guarded_loss=some(self.guarded_loss),
            output_error=some(self.output_error),
            columns={name: some(values) for name, values in self.columns.items()},
        )

    def costs(self, objective: Objective) -> tuple[np.ndarray, ...]:
        """What a search sums under that name: per group, [choices].

        Raises:
            ParedownError: If it needs curvature or scores that are not known, or ‖ΔW‖², which candidates of an earlier version don't hold.
        """
        if objective in get_args(Score):
            if objective not in self.columns:
                raise ParedownError(_missing(cast(Score, objective), self.candidates))
            return self.columns[objective]
        if objective in ("guarded_loss", "loss_increase", "output_error"):
            return getattr(self, objective)
        if objective != "weight_error" and objective not in get_args(Sensitivity):
            raise ParedownError(f"expected an objective such as guarded_loss, loss_increase or trace, got {objective!r}")
        priced = [candidate for choices in self.candidates for choice in choices for candidate in choice if candidate.effective != KEEP]
        if priced and not any(candidate.weight_error for candidate in priced):
            raise ParedownError(
                f"the sensitivity {objective!r} needs ‖ΔW‖² of each candidate, which studies of earlier versions don't hold; run a new study"
            )
        if objective == "weight_error":
            return tuple(
                np.array([sum(candidate.weight_error for candidate in choice) for choice in choices]) for choices in self.candidates
            )
        sensitivity = cast(Sensitivity, objective)
        scales = {
            name: 0.5 * curvature_of(sensitivity, self.layers[name], self.curvature) for name in {candidate.layer for candidate in priced}
        }
        return tuple(
            np.array([sum(scales.get(candidate.layer, 0.0) * candidate.weight_error for candidate in choice) for choice in choices])
            for choices in self.candidates
        )

    def amounts(self, resource: Resource) -> tuple[np.ndarray, ...]:
        """What each choice takes of a resource: per group, [choices].

        Raises:
            ParedownError: If it was not given, or is not known by that name.
        """
        if resource == "bytes":
            return self.bytes
        if resource in self.columns:
            return self.columns[resource]
        if resource == "bit_operations":
            return tuple(
                np.array([sum(bit_operations(self.layers[each.layer], each.effective) for each in choice) for choice in choices])
                for choices in self.candidates
            )
        if resource == "seconds":
            timed = tuple(
                [_sum([candidate.seconds_per_token for candidate in choice]) for choice in choices] for choices in self.candidates
            )
            if any(None in seconds for seconds in timed):
                raise ParedownError(
                    "latency is not known: nothing has timed the candidates; give the study latency_tokens, or pass Problem.of(columns={'seconds': ...}), or limit bytes or bit_operations"
                )
            return tuple(np.array(seconds, float) for seconds in timed)
        raise ParedownError(f"expected a resource out of {', '.join(get_args(Resource))}, got {resource!r}")

    def fixed(self, resource: Resource) -> int:
        """What the parts that no choice changes take of it; known for bytes, others count the layers alone."""
        return self.fixed_bytes if resource == "bytes" else 0

    def least(self, resource: Resource) -> float:
        """The least of it that a plan can take."""
        return self.fixed(resource) + sum(amount.min() for amount in self.amounts(resource))

    @cached_property
    def smallest_bytes(self) -> int:
        """Size of the smallest plan."""
        return int(self.least("bytes"))

    @cached_property
    def largest_bytes(self) -> int:
        """Size of the largest plan."""
        return self.fixed_bytes + int(sum(choice.max() for choice in self.bytes))

    def predict(self, schemes: Mapping[str, Scheme]) -> Prediction:
        """What the additive model says of a decision for every layer; microseconds.

        Raises:
            ParedownError: If a layer is missing or gets a scheme that was not priced.
        """
        size, loss, deviation = self.fixed_bytes, 0.0, 0.0
        seconds: list[float | None] = []
        errors: list[float | None] = []
        for group, places, choices in zip(self.groups, self._places, self.candidates, strict=True):
            for position, name in enumerate(group):
                candidate = choices[self._choice(name, places, schemes.get(name, KEEP), choices, position)][position]
                size += candidate.bytes
                loss += candidate.loss_increase
                deviation += candidate.loss_increase_sd
                seconds.append(candidate.seconds_per_token)
                errors.append(candidate.seconds_per_token_sd)
        return Prediction(size, loss, deviation, _sum(seconds), _sum(errors))

    def effective(self, schemes: Mapping[str, Scheme]) -> dict[str, Scheme]:
        """The same decision with the schemes that really apply, where a layer's shape does not take the asked one.

        Raises:
            ParedownError: If a layer gets a scheme that was not priced.
        """
        result: dict[str, Scheme] = {}
        for group, places, choices in zip(self.groups, self._places, self.candidates, strict=True):
            for position, name in enumerate(group):
                chosen = self._choice(name, places, schemes.get(name, KEEP), choices, position)
                result[name] = choices[chosen][position].effective
        return result

    def decide(self, choices: Sequence[int]) -> dict[str, Scheme]:
        """One choice per group as a decision per layer."""
        return {name: offered[choice] for group, offered, choice in zip(self.groups, self.schemes, choices, strict=True) for name in group}

    @cached_property
    def _places(self) -> tuple[dict[Scheme, int], ...]:
        """Of each group, where a scheme stands among those offered: asked for with every edit and every plan."""
        return tuple({scheme: place for place, scheme in enumerate(offered)} for offered in self.schemes)

    @staticmethod
    def _choice(name: str, places: dict[Scheme, int], scheme: Scheme, choices: tuple[tuple[Candidate, ...], ...], position: int) -> int:
        place = places.get(scheme)
        if place is not None:
            return place
        for index, choice in enumerate(choices):  # a plan names the scheme that applies, a person the one that they asked for
            if choice[position].effective == scheme:
                return index
        known = ", ".join(map(str, places))
        raise ParedownError(f"{name}: expected one of the priced schemes {known}, got {scheme}; add it to the study's schemes")


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _lacking(score: Score, table: Sequence[Sequence[Sequence[Candidate]]]) -> dict[str, str]:
    """The layers that lack the score, with a note of theirs; one that is kept loses nothing and needs none."""
    changed = [each for choices in table for choice in choices for each in choice if each.effective != KEEP]
    return {each.layer: each.note for each in changed if score not in each.scores}


def _missing(score: Score, table: Sequence[Sequence[Sequence[Candidate]]]) -> str:
    lacking = _lacking(score, table)
    if not any(score in each.scores for choices in table for choice in choices for each in choice):
        return f"the score {score!r} was not asked for; give the study scores=({score!r},), or pass Problem.of(columns=...)"
    some = "; ".join(f"{name} ({note})" if note else name for name, note in list(lacking.items())[:FEW_NAMES])
    more = f" and {len(lacking) - FEW_NAMES} more" if len(lacking) > FEW_NAMES else ""
    return f"{len(lacking)} layers lack the score {score!r}: {some}{more}; compare without it, or pass Problem.of(columns=...)"


def _looked_up(name: str, values: Mapping[str, Mapping[Scheme, float]]) -> Callable[[Candidate], float]:
    def value(candidate: Candidate) -> float:
        found = values.get(candidate.layer, {}).get(candidate.scheme)
        if found is None or not np.isfinite(found):
            raise ParedownError(
                f"the column {name!r} needs a finite value for {candidate.scheme} on {candidate.layer}, got {found}; leave out what it misses, or compute it"
            )
        return found

    return value
