"""Every chart of the explorer by its name, in the light palette, as a figure for a paper or as the code that makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pprint import pformat
from typing import TYPE_CHECKING, Any

from paredown.errors import ParedownError
from paredown_widgets import layer
from paredown_widgets.figures import front, spectrum
from paredown_widgets.figures import layer as layer_figures
from paredown_widgets.figures.heat_map import heat_map
from paredown_widgets.figures.layer_bars import layer_bars
from paredown_widgets.figures.plan_map import plan_map
from paredown_widgets.figures.style import paper
from paredown_widgets.model import ExplorerModel

if TYPE_CHECKING:
    import plotly.graph_objects as go

_WIDTH = 140


def _front(y: str, x: str = "bytes") -> Callable[[ExplorerModel], Any]:
    return lambda model: front.view(model, y, "seconds" if x == "seconds" else "bytes")["figure"]


def _latency(model: ExplorerModel) -> Any:
    if model.front_by_seconds is None:
        raise ParedownError("latency is not known: nothing has timed the candidates; give a new study latency_tokens, such as 1")
    return _front("kl", "seconds")(model)


def _interactions(model: ExplorerModel) -> Any:
    if model.record.interactions is None:
        raise ParedownError("no interactions were measured; give a new study interactions, such as 300")
    return heat_map(model, model.record.interactions)


def _histogram(build: Callable[[ExplorerModel, list[str]], Any]) -> Callable[[ExplorerModel], Any]:
    def built(model: ExplorerModel) -> Any:
        figure = build(model, layer.shown(model))
        if not figure["data"]:
            name = layer.opened(model)
            raise ParedownError(
                f"there is no histogram of {name or 'a layer'}; select a layer that a new study has priced, and for its inputs no embedding"
            )
        return figure

    return built


def _schemes(model: ExplorerModel) -> Any:
    name = layer.opened(model)
    if not model.record.candidates.get(name):
        raise ParedownError("the layer has no prices yet; run the study first")
    return layer_figures.schemes_figure(model, name)


FIGURES: Mapping[str, Callable[[ExplorerModel], Any]] = {
    "front": _front("kl"),
    "accuracy": _front("metric"),
    "loss": _front("loss"),
    "latency": _latency,
    "plan": plan_map,
    "sensitivity": layer_bars,
    "spectrum": lambda model: spectrum.spectrum_figure(model, spectrum.shown_layers(model)),
    "spectra": spectrum.all_figure,
    "interactions": _interactions,
    "weights": _histogram(layer_figures.weights_figure),
    "inputs": _histogram(layer_figures.inputs_figure),
    "schemes": _schemes,
}
"""Name to what builds it, in the tokens of the explorer's themes."""


def figure_of(model: ExplorerModel, name: str) -> go.Figure:
    """A chart as plotly has it.

    Raises:
        ParedownError: If there is no such figure, or nothing to draw in it.
    """
    import plotly.graph_objects as go

    return go.Figure(_built(model, name))


def as_code(model: ExplorerModel, name: str) -> str:
    """Python that makes the figure again, with its data, and needs plotly alone.

    Raises:
        ParedownError: As `figure_of`.
    """
    literal = pformat(_built(model, name), width=_WIDTH, compact=True, sort_dicts=False)
    return f'import plotly.graph_objects as go\n\n# explorer.figure("{name}") is the same, of the explorer as it stands\nfigure = go.Figure({literal})\nfigure\n'


def _built(model: ExplorerModel, name: str) -> Any:
    if name not in FIGURES:
        raise ParedownError(f"figure must be one of {', '.join(FIGURES)}, got {name!r}")
    with model.lock:
        return paper(FIGURES[name](model))
