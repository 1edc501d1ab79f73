"""The explorer in Panel: the same ES module as in Jupyter, in Panel's adapter for anywidgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import panel as pn
import param
from panel.custom import AnyWidgetComponent

from paredown_widgets import _assets
from paredown_widgets.model import ExplorerModel
from paredown_widgets.pump import Pump


class ExplorerPane(AnyWidgetComponent):
    """The browser's view of one model, for one session.

    Panel's adapter has no messages, only values; `event` carries the last messages, numbered, so that none overwrites another.
    """

    _esm = _assets.esm("explorer")
    _stylesheets = [_assets.css()]  # noqa: RUF012  (Panel reads the class attribute)

    event = param.Dict(default={}, doc="n: number of the last message; items: the last messages")
    bundle = param.String(default="")
    offline = param.Boolean(default=False)
    seq = param.Integer(default=0)
    theme = param.String(default="auto")
    head = param.Dict(default={})
    run = param.Dict(default={})
    budget = param.Dict(default={})
    grid = param.Dict(default={})
    plan = param.Dict(default={})
    what_if = param.Dict(default={})
    summary = param.Dict(default={})
    sensitivity = param.Dict(default={})
    front = param.Dict(default={})
    accuracy = param.Dict(default={})
    spectrum = param.Dict(default={})
    log = param.Dict(default={})
    export = param.Dict(default={})
    clipboard = param.Dict(default={})
    error = param.Dict(default=None, allow_None=True)

    def __init__(self, model: ExplorerModel, **params: Any) -> None:
        document = pn.state.curdoc  # of the session that is being made; None in a notebook or a test
        post = None if document is None else document.add_next_tick_callback
        self._seen = 0
        self._pump = Pump(model, self._take, post=post)
        super().__init__(**{"sizing_mode": "stretch_width", **self._pump.first, **params})
        self.param.watch(self._receive, "event")
        self._pump.start()
        if document is not None:
            pn.state.on_session_destroyed(lambda _: self.close())

    @property
    def pump(self) -> Pump:
        """What pushes to this pane."""
        return self._pump

    def close(self) -> None:
        """Stop the view."""
        self._pump.close()

    def _take(self, changed: Mapping[str, Any]) -> None:
        self.param.update(**changed)

    def _receive(self, event: param.parameterized.Event) -> None:
        for message in (event.new or {}).get("items", ()):
            if message.get("n", 0) > self._seen:
                self._seen = message["n"]
                self._pump.receive(message)


def prepare() -> None:
    """Make Panel serve its own copy of plotly.js; nothing comes from a network."""
    pn.extension("plotly")
