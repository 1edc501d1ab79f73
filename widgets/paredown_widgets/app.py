"""``paredown app``: the explorer served with Panel, to this machine only."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paredown.errors import ParedownError
from paredown_widgets.controls import StudyLike
from paredown_widgets.model import ExplorerModel
from paredown_widgets.pump import Watcher

ADDRESS = "127.0.0.1"
PAGE = """
body { margin: 12px; }
@media (prefers-color-scheme: dark) { :root { --design-background-text-color: #e8ecf1; } body { background: #0e1216; } }
"""
"""Style of the page; dark where the system is. Panel hands its text colour down to the explorer, which follows it."""


def serve(
    studies: str | Path | StudyLike | Sequence[str | Path | StudyLike], *, port: int = 5006, show: bool = False, threaded: bool = False
) -> Any:
    """Serve explorers on studies at http://127.0.0.1:PORT; every browser window has a plan of its own.

    Args:
        studies: One study or several: folders or `paredown.study.Study` values.
        port: Port; 0 picks a free one.
        show: Open a browser window.
        threaded: Serve in a thread and return the server at once.

    Returns:
        The server; where not `threaded`, after it was stopped (Ctrl C).

    Raises:
        ParedownError: If a folder holds no study, or the port is taken.
    """
    import panel as pn

    from paredown_widgets import panel_host

    several = [studies] if isinstance(studies, (str, Path)) or not isinstance(studies, Sequence) else list(studies)
    opened = [open_study(study) for study in several]
    panel_host.prepare()
    pn.config.raw_css = [PAGE]
    routes: dict[str, Callable[[], Any]] = {_route(study, opened): _session(study) for study in opened}
    if port == 0:
        port = _free_port()
    origins = [f"{name}:{port}" for name in (ADDRESS, "localhost")]
    titles = {route: f"{Path(study.store.folder).name} · Paredown" for route, study in zip(routes, opened, strict=True)}
    try:
        return pn.serve(
            routes,  # pyright: ignore[reportArgumentType]  (Panel takes functions too)
            port=port,
            address=ADDRESS,
            websocket_origin=origins,
            show=show,
            threaded=threaded,
            title=titles,  # pyright: ignore[reportArgumentType]  (one title a route)
            verbose=not threaded,
        )
    except OSError as error:
        raise ParedownError(f"port {port} can't be opened on this machine ({error}); choose another with --port") from error


def open_study(study: str | Path | StudyLike) -> StudyLike:
    """A study by its folder, or as it is."""
    if isinstance(study, (str, Path)):
        from paredown.study import Study

        return Study(study)
    return study


def _session(study: StudyLike) -> Callable[[], Any]:
    """What Panel calls for every browser window."""

    def make() -> Any:
        import panel as pn

        from paredown_widgets.panel_host import ExplorerPane

        model = ExplorerModel(study)
        model.refresh()
        watcher = Watcher(model)
        pn.state.on_session_destroyed(lambda _: threading.Thread(target=watcher.close, daemon=True).start())
        return ExplorerPane(model)

    return make


def _route(study: StudyLike, studies: Sequence[StudyLike]) -> str:
    if len(studies) == 1:
        return "/"
    return "/" + re.sub(r"[^\w.-]+", "-", Path(study.store.folder).name)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])
