"""Compress pre-trained transformers: price every layer, search plans, measure them, export the one you choose.

The names below are loaded when they are first used, so that the values and the search can be had without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paredown.errors import ParedownError
    from paredown.models import LoadedModel
    from paredown.specs import Candidate, LayerRef, Measurement, Plan, Scheme, StudyConfig
    from paredown.study import Study

__all__ = ["Candidate", "LayerRef", "LoadedModel", "Measurement", "ParedownError", "Plan", "Scheme", "Study", "StudyConfig"]

_HOMES = {"ParedownError": "errors", "LoadedModel": "models", "Study": "study"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'specs')}"), name)


def __dir__() -> list[str]:
    return [*__all__, *globals()]
