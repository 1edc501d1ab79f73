"""The explorer in Panel: the same ES module as in Jupyter, in Panel's adapter for anywidgets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import panel as pn
import param
from panel.custom import AnyWidgetComponent

from paredown_widgets import _assets
from paredown_widgets.model import ExplorerModel
from paredown_widgets.pump import Pump


class ExplorerPane(AnyWidgetComponent):
    """The browser's view of one model, for one session.

    Panel's adapter has no messages, only values; `event` carries the last messages, numbered, so that none overwrites another, and every
    push says which were `heard`.
    Traits that are objects travel as JSON text: Bokeh walks through every value of a dict several times, which would cost more than
    everything else between an edit and its figures.
    """

    _esm = _assets.esm("explorer")
    _stylesheets = [_assets.css()]  # noqa: RUF012  (Panel reads the class attribute)
    _priority_changes = ["event"]  # noqa: RUF012  (Panel lets any other change wait 50 ms for company)

    event = param.Dict(default={}, doc="n: number of the last message; items: those that Python had not heard")
    heard = param.Integer(default=0, doc="number of the last message that was here")
    bundle = param.String(default="")
    offline = param.Boolean(default=False)
    seq = param.Integer(default=0)
    held = param.Integer(default=0)
    patch = param.String(default="{}")
    theme = param.String(default="auto")
    head = param.String(default="{}")
    run = param.String(default="{}")
    budget = param.String(default="{}")
    grid = param.String(default="{}")
    plan = param.String(default="{}")
    handles = param.String(default="{}")
    what_if = param.String(default="{}")
    summary = param.String(default="{}")
    sensitivity = param.String(default="{}")
    front = param.String(default="{}")
    front_plan = param.String(default="{}")
    spectrum = param.String(default="{}")
    history = param.String(default="{}")
    rankings = param.String(default="{}")
    interactions = param.String(default="{}")
    steps = param.String(default="{}")
    presets = param.String(default="{}")
    queue = param.String(default="{}")
    layer = param.String(default="{}")
    layer_spectrum = param.String(default="{}")
    compare = param.String(default="{}")
    flips = param.String(default="{}")
    log = param.String(default="{}")
    export = param.String(default="{}")
    clipboard = param.String(default="{}")
    error = param.String(default="null")

    def __init__(self, model: ExplorerModel, **params: Any) -> None:
        self._document = document = pn.state.curdoc  # of the session that is being made; None in a notebook or a test
        post = None if document is None else document.add_next_tick_callback
        self._heard = 0
        self._pump = Pump(model, self._take, post=post)
        super().__init__(**{"sizing_mode": "stretch_width", **_encoded(self._pump.first), **params})
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
        self.param.update(**_encoded(changed), heard=self._heard)

    def _receive(self, event: param.parameterized.Event) -> None:
        for message in (event.new or {}).get("items", ()):
            if message.get("n", 0) > self._heard:
                self._heard = message["n"]
                self._soon(partial(self._pump.receive, message))

    def _soon(self, work: Callable[[], None]) -> None:
        """As soon as the event's receipt is sent: while that is being written, Panel would let a push wait for 10 ms."""
        if self._document is None:
            work()
        else:
            self._document.add_timeout_callback(work, 1)


def _encoded(traits: Mapping[str, Any]) -> dict[str, Any]:
    """Traits as Panel sends them: what is not a word or a number as JSON."""
    return {
        name: value if isinstance(value, (str, int)) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        for name, value in traits.items()
    }


def prepare() -> None:
    """Make Panel serve its own copy of plotly.js; nothing comes from a network."""
    pn.extension("plotly")
