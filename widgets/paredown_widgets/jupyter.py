"""The explorer in Jupyter: one anywidget whose traits mirror the snapshot, and one copy of plotly.js per kernel."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import anywidget
import traitlets

from paredown_widgets import _assets, plotly_js
from paredown_widgets.model import ExplorerModel
from paredown_widgets.pump import Pump

HIDE_PICTURE = ".jp-OutputArea-child:has(.pd-host) + .jp-OutputArea-child:has(.jp-RenderedSVG) { display: none; }"
"""The static picture that follows the widget is for notebooks without a kernel: hidden while the live explorer is on the page."""


class PlotlyBundle(anywidget.AnyWidget):
    """Carries plotly.js to the browser once per kernel; draws nothing."""

    _esm = _assets.esm("plotly_bundle")
    code_gz = traitlets.Bytes().tag(sync=True)
    _shared: PlotlyBundle | None = None

    @classmethod
    def reference(cls) -> str:
        """How another widget's state names the kernel's bundle."""
        if cls._shared is None or cls._shared.comm is None:
            cls._shared = cls(code_gz=plotly_js.packed())
        return f"IPY_MODEL_{cls._shared.model_id}"


class ExplorerWidget(anywidget.AnyWidget):
    """The browser's view of one model. The browser sends custom messages; it never sets a trait."""

    _esm = _assets.esm("explorer")
    _css = _assets.css() + HIDE_PICTURE

    bundle = traitlets.Unicode().tag(sync=True)
    offline = traitlets.Bool(False).tag(sync=True)
    seq = traitlets.Int(0).tag(sync=True)
    held = traitlets.Int(0).tag(sync=True)
    patch = traitlets.Dict().tag(sync=True)
    theme = traitlets.Unicode("auto").tag(sync=True)
    head = traitlets.Dict().tag(sync=True)
    run = traitlets.Dict().tag(sync=True)
    budget = traitlets.Dict().tag(sync=True)
    grid = traitlets.Dict().tag(sync=True)
    plan = traitlets.Dict().tag(sync=True)
    handles = traitlets.Dict().tag(sync=True)
    what_if = traitlets.Dict().tag(sync=True)
    summary = traitlets.Dict().tag(sync=True)
    sensitivity = traitlets.Dict().tag(sync=True)
    front = traitlets.Dict().tag(sync=True)
    front_plan = traitlets.Dict().tag(sync=True)
    spectrum = traitlets.Dict().tag(sync=True)
    history = traitlets.Dict().tag(sync=True)
    rankings = traitlets.Dict().tag(sync=True)
    interactions = traitlets.Dict().tag(sync=True)
    steps = traitlets.Dict().tag(sync=True)
    presets = traitlets.Dict().tag(sync=True)
    queue = traitlets.Dict().tag(sync=True)
    layer = traitlets.Dict().tag(sync=True)
    layer_spectrum = traitlets.Dict().tag(sync=True)
    compare = traitlets.Dict().tag(sync=True)
    flips = traitlets.Dict().tag(sync=True)
    log = traitlets.Dict().tag(sync=True)
    export = traitlets.Dict().tag(sync=True)
    clipboard = traitlets.Dict().tag(sync=True)
    error = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)

    def __init__(self, model: ExplorerModel) -> None:
        self._ui = threading.RLock()  # a browser's message and a push must not merge: one of them would be lost
        bundle = PlotlyBundle.reference()  # before the state is worked out: the browser unpacks it meanwhile
        self.pump = Pump(model, self._take, saved=True)
        super().__init__(bundle=bundle, **self.pump.first)
        self.on_msg(self._receive)
        self.pump.start()

    def set_state(self, sync_data: Any) -> None:
        """State from the browser, in whichever thread the kernel chose."""
        with self._ui:
            super().set_state(sync_data)

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> dict[str, Any]:
        """The traits as the browser has them; all of them for a page that is opened again, which gets no patches of before."""
        state = super().get_state(key, drop_defaults)
        return state if key is not None else {**state, **self.pump.first, "patch": {}}

    def close(self) -> None:
        """Stop the view."""
        self.pump.close()
        super().close()

    def _take(self, changed: Mapping[str, Any]) -> None:
        with self._ui, self.hold_sync():  # all traits in one message
            for name, value in changed.items():
                setattr(self, name, value)

    def _receive(self, _: Any, message: Mapping[str, Any], buffers: Any) -> None:
        self.pump.receive(message)
