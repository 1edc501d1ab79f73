"""The stage that times every layer under every scheme on this machine, where a study asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from paredown.evaluation.modules import modules_of
from paredown.kernels.latency import Call, Timing, seconds_of
from paredown.search import Problem
from paredown.specs import Candidate, LayerRef
from paredown.study.journal import Journal
from paredown.study.session import Session


def latencies(session: Session, journal: Journal) -> None:
    """Write the candidates again with their CPU seconds, and the plans with the sums of theirs, where these are new.

    Every layer is timed as if it saw all the tokens; a tied tensor takes the seconds of each module that uses it.

    Args:
        session: Model and schemes.
        journal: Where the candidates go; cancelled between two shapes.
    """
    tokens, record = session.config.latency_tokens, journal.record
    if tokens is None:
        return
    journal.stage("sensitivity", f"Timing every layer under every scheme, {tokens} tokens at once", total=len(session.layers))
    calls = {
        (layer.name, candidate.scheme): _calls(session, layer, candidate, tokens)
        for layer in session.layers
        for candidate in record.candidates.get(layer.name, {}).values()
    }

    def say(words: str) -> None:
        journal.check()
        journal.write("notice", message=words)

    timings = seconds_of([call for several in calls.values() for call in several], say=say)
    for done, layer in enumerate(session.layers, 1):
        timed = [
            _timed(candidate, [timings[call] for call in calls[layer.name, scheme]], tokens)
            for scheme, candidate in record.candidates.get(layer.name, {}).items()
        ]
        if any(candidate != record.candidates[layer.name][candidate.scheme] for candidate in timed):
            journal.write("candidates", layer=layer.name, done=done, total=len(session.layers), payload=timed)
    problem = Problem.of(session.info().fixed_bytes, session.layers, record.candidates, fuse=session.config.fuse)
    for plan in list(record.plans.values()):
        prediction = problem.predict(plan.schemes)
        predicted = replace(plan, seconds_per_token=prediction.seconds_per_token, seconds_per_token_sd=prediction.seconds_per_token_sd)
        if predicted != plan:
            journal.write("plan", payload=[predicted])


def _timed(candidate: Candidate, timings: Sequence[Timing], tokens: int) -> Candidate:
    """With the sum over its modules; their errors are one error where they are timed by the same call, so errors add up too."""
    deviations = [timing.deviation for timing in timings if timing.deviation is not None]
    return replace(
        candidate,
        seconds_per_token=sum(timing.seconds for timing in timings) / tokens,
        seconds_per_token_sd=sum(deviations) / tokens if len(deviations) == len(timings) else None,
    )


def _calls(session: Session, layer: LayerRef, candidate: Candidate, tokens: int) -> list[Call]:
    modules = modules_of(session.loaded.model, layer)
    return [Call("rows" if isinstance(each, nn.Embedding) else "product", layer.shape, candidate.effective, tokens) for each in modules]
