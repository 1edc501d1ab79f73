"""Pure builders: the model in, plotly JSON out. Colours are names of tokens, so a figure fits any theme."""

from __future__ import annotations

from paredown_widgets.figures.front import front_figure
from paredown_widgets.figures.spectrum import spectrum_figure

__all__ = ["front_figure", "spectrum_figure"]
