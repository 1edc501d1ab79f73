"""A study as one HTML file: the explorer's own ES module over recorded state, plotly.js inside, no network."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paredown.errors import ParedownError
from paredown_widgets import _assets, curvature, flips, layer, plotly_js, sensitivities, sensitivity
from paredown_widgets.comparison import KINDS
from paredown_widgets.controls import StudyLike
from paredown_widgets.figures import front, spectrum
from paredown_widgets.handlers import handle
from paredown_widgets.model import ExplorerModel
from paredown_widgets.snapshot import snapshot

_OF_A_PLAN = ("plan", "summary", "budget", "sensitivity")
_MOST_PLANS = 60  # plans that can be loaded in the file; each adds about 3 kB


def write_report(study: str | Path | StudyLike, path: str | Path) -> Path:
    """Write a report of a study.

    In the file the reader selects layers, loads measured plans by clicking their points, and switches charts and orders, all
    from what is recorded; running, measuring and exporting need the study itself.

    Args:
        study: The study, or its folder.
        path: The file to write.

    Returns:
        The path.

    Raises:
        ParedownError: If there is no study, or the file can't be written.
    """
    from paredown_widgets.app import open_study

    target = Path(path)
    content = render_report(open_study(study))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ParedownError(f"the report {target} can't be written: {error}; choose another place") from error
    return target


def render_report(study: StudyLike, model: ExplorerModel | None = None) -> str:
    """The HTML of a report; with a model, of its present plan."""
    offline = ExplorerModel(study, offline=True)
    offline.refresh()
    if model is not None and offline.editor.schemes:
        offline.budget = model.budget
        offline.load(model.editor.schemes, "")
        offline.locked = list(model.locked)
        offline.editor.locked = set(model.editor.locked)
    offline.comparison.begin(offline, None if model is None else model.comparison)
    recorded = record(offline)
    title = f"{recorded['state']['head']['model']}, {recorded['state']['head']['task']}"
    template = (Path(__file__).parent / "report.html").read_text(encoding="utf-8")
    parts = {
        "{{title}}": title.replace("&", "&amp;").replace("<", "&lt;"),
        "{{css}}": _assets.css(),
        "{{plotly}}": base64.b64encode(plotly_js.packed()).decode(),
        "{{module}}": _packed(_assets.esm("explorer").encode()),
        "{{record}}": _packed(json.dumps(recorded, ensure_ascii=False, separators=(",", ":")).encode()),
    }
    for mark, content in parts.items():
        template = template.replace(mark, content)
    return template


def record(model: ExplorerModel) -> dict[str, Any]:
    """What the file holds: the state, and what each thing that can be clicked leads to."""
    model.rank()
    state = {**snapshot(model), "seq": 1, "offline": True, "bundle": ""}
    fronts, plans = (_fronts(model, view) if model.record.info else {} for view in (front.ground, front.plan_on_it))
    kinds = {}
    for choice in sensitivities.choices(model):
        model.sensitivity = choice.id
        kinds[choice.id] = sensitivity.view(model)
    model.sensitivity = "kl"
    colors = {}
    for option in state["plan"]["color_options"]:
        handle(model, {"type": "color_by", "id": option["id"]})
        colored = snapshot(model)["plan"]
        colors[option["id"]] = {"legend": colored["legend"], "color": {name: cell["color"] for name, cell in colored["cells"].items()}}
    handle(model, {"type": "color_by", "id": "bits"})
    return {
        "flips": _flips(model),
        "state": state,
        "fronts": fronts,
        "front_plans": plans,
        "sensitivities": kinds,
        "colors": colors,
        "spectra": _spectra(model),
        "pages": _pages(model),
        "groups": model.editor.groups,
        "plans": _plans(model),
    }


def _flips(model: ExplorerModel) -> dict[str, Any]:
    """The first flipped answers of each kind."""
    views: dict[str, Any] = {}
    for kind in KINDS:
        handle(model, {"type": "flips", "id": kind})
        views[kind] = flips.view(model)
    handle(model, {"type": "flips", "id": "any"})
    return views


def _spectra(model: ExplorerModel) -> dict[str, Any]:
    """Of each matrix the spectrum of each layer alone, of what is shown without a selection, and of all as ridges and as a table."""
    spectra: dict[str, Any] = {}
    for matrix in curvature.matrices(model.record):
        handle(model, {"type": "spectrum_matrix", "id": matrix})
        views = spectra[matrix] = {}
        for mode in ("all", "table", "selected"):
            handle(model, {"type": "spectrum_mode", "id": mode})
            views[f"*{mode}"] = spectrum.view(model)
        for name in model.labels:
            if name in model.record.curvature:
                model.selection = [name]
                views[name] = spectrum.view(model)
        model.selection = []
    handle(model, {"type": "spectrum_matrix", "id": "auto"})
    return spectra


def _pages(model: ExplorerModel) -> dict[str, Any]:
    """The page of each layer; its spectrum is among the spectra."""
    model.paging = True
    pages: dict[str, Any] = {}
    for name in model.labels:
        model.selection, model.opened = [name], name
        pages[name] = layer.view(model)
    model.selection, model.paging = [], False
    return pages


def _plans(model: ExplorerModel) -> dict[str, Any]:
    """What loading each measured plan changes."""
    plans: dict[str, Any] = {}
    before = dict(model.editor.schemes)
    for digest in list(model.measured_plans())[:_MOST_PLANS]:
        handle(model, {"type": "load_plan", "digest": digest})
        state = snapshot(model)
        fronts = _fronts(model, front.plan_on_it)
        kept = {name: state[name] for name in _OF_A_PLAN}
        kept["sensitivity"] |= {"kinds": kept["sensitivity"]["kinds"][:1]}
        plans[digest] = {"state": kept, "fronts": fronts}
    if before:
        model.load(before, "")
    model.editor.start_from(before)
    return plans


def _fronts(model: ExplorerModel, view: Callable[..., dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A view of the front for each pair of axes, by the words ``x y``."""
    return {
        f"{x['id']} {y['id']}": view(model, y["id"], "seconds" if x["id"] == "seconds" else "bytes")
        for x in front.x_options(model)
        for y in front.options(model)
    }


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
