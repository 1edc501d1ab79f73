"""All traits of the browser's contract, from the model: the only thing that a host has to push."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Any

from paredown_widgets import (
    budget,
    compare,
    exports,
    flips,
    handles,
    head,
    history,
    interactions,
    layer,
    log,
    measuring,
    plan,
    presets,
    rankings,
    run,
    sensitivity,
    steps,
    summary,
    what_if,
)
from paredown_widgets.figures import front, spectrum
from paredown_widgets.model import ExplorerModel

VIEWS: dict[str, Callable[[ExplorerModel], Any]] = {
    "theme": lambda model: model.theme,
    "head": head.view,
    "run": run.view,
    "budget": budget.view,
    "grid": plan.grid,
    "handles": handles.view,
    "plan": plan.view,
    "what_if": what_if.view,
    "summary": summary.view,
    "sensitivity": sensitivity.view,
    "front": front.ground,
    "front_plan": front.plan_on_it,
    "spectrum": spectrum.view,
    "history": history.view,
    "rankings": rankings.view,
    "interactions": interactions.view,
    "layer": layer.view,
    "layer_spectrum": layer.spectra,
    "steps": steps.view,
    "presets": presets.view,
    "queue": measuring.view,
    "compare": compare.view,
    "flips": flips.view,
    "log": log.view,
    "export": exports.view,
    "clipboard": lambda model: model.clipboard,
}
"""Trait to the pure function that makes it; each may be replaced by a later panel of the same name."""

_CONSTANT: dict[str, Callable[[ExplorerModel], Hashable]] = {
    "grid": lambda model: tuple(model.labels),
    "handles": lambda model: (tuple(model.labels), model.choices.schemes, model.priced),
    "what_if": lambda model: (tuple(model.labels), sum(map(len, model.record.candidates.values())), model.curvature_events),
    "spectrum": spectrum.key,
    "layer": layer.key,
    "layer_spectrum": layer.spectra_key,
    "flips": flips.key,
    "rankings": lambda model: (model.rankings and model.rankings.key, model.record.sensitivity_complete),
    "interactions": lambda model: (id(model.record.interactions), model.config, tuple(model.labels)),
}
"""Large traits that an edit of the plan does not change, with what they depend on."""


FIGURES = ("plan", "budget", "summary")
"""What an edit is made for: the traits that a person waits for, without a chart."""


def snapshot(model: ExplorerModel, names: Collection[str] = tuple(VIEWS)) -> dict[str, Any]:
    """Traits' values. A view that fails leaves its trait out and shows the error; the other panels go on."""
    traits: dict[str, Any] = {}
    with model.lock:
        for name in names:
            view = VIEWS[name]
            try:
                traits[name] = model.kept(name, _CONSTANT[name](model), lambda view=view: view(model)) if name in _CONSTANT else view(model)
            except Exception as error:  # shown; a broken panel must not stop the others
                text = f"The {name} panel failed: {type(error).__name__}: {error}"
                if model.error is None or model.error["text"] != text:
                    model.error = {"text": text, "remedy": "the other panels go on; please report this"}
        traits["error"] = model.error
    return traits
