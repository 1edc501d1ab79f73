"""The explorer of Paredown, for JupyterLab and Panel. Names are loaded when they are first used, so importing is quick."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paredown_widgets.app import serve
    from paredown_widgets.explorer import Change, Explorer
    from paredown_widgets.report import write_report

__all__ = ["Change", "Explorer", "serve", "write_report"]

_HOMES = {"Change": "explorer", "Explorer": "explorer", "serve": "app", "write_report": "report"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
