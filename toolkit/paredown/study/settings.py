"""Which settings a study has: those that it was begun with, but for some that may change."""

from __future__ import annotations

import dataclasses

from paredown.errors import ParedownError
from paredown.specs import MEASURED, ModelInfo, StudyConfig
from paredown.store import Store

_MAY_CHANGE = (
    "hessian_seconds",
    "latency_tokens",
    "refine_plans",
    "refine_objective",
    "search_samples",
    "interactions",
    "interaction_scheme",
)
"""Settings that a study may be opened with anew."""


def settled(store: Store, config: StudyConfig | None) -> StudyConfig:
    """The settings that a study goes on with.

    Args:
        store: The study's.
        config: Those that it is opened with; None for those that it has.

    Raises:
        ParedownError: If it has none yet, or was begun with others.
    """
    kept = store.payloads(StudyConfig)
    # until the model was loaded there is nothing that other settings could spoil: a name that was mistyped can be mended
    # and more or less time for the Hessian spoils nothing that is there
    # nor do latencies, which are measured on whatever machine it is, nor a longer refinement, whose trials say what they are of
    free = {name: getattr(kept[-1], name) for name in _MAY_CHANGE} if kept else {}
    if config is not None and kept and set(config.scores) ^ set(kept[-1].scores) <= {MEASURED}:  # the others come with the prices
        free["scores"] = kept[-1].scores
    asked = dataclasses.replace(config, **free) if config is not None and kept else None
    if asked is not None and asked != kept[-1] and store.payloads(ModelInfo):
        changed = ", ".join(
            f"{name} {getattr(kept[-1], name)!r} → {getattr(asked, name)!r}"
            for name in StudyConfig.__slots__
            if getattr(kept[-1], name) != getattr(asked, name)
        )
        raise ParedownError(
            f"{store.folder} holds a study with other settings ({changed}); choose another folder, or open it without settings to go on with its own"
        )
    if config is None and not kept:
        raise ParedownError(
            f"the study in {store.folder} was never started; give it a configuration, for example StudyConfig(model='demo:sentiment')"
        )
    return config or kept[-1]
