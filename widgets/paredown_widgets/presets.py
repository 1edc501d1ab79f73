"""Whole plans to begin with: uniform ones, the optimum and the best measured one at the budget, the model as shipped, and saved ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paredown.errors import ParedownError
from paredown.search import allocate
from paredown.specs import KEEP, Scheme
from paredown_widgets import numbers
from paredown_widgets.editor import Call
from paredown_widgets.filling import limit
from paredown_widgets.model import ExplorerModel
from paredown_widgets.schemes import describe, describe_all

Json = dict[str, Any]
_MOST_DIGITS = 6  # of a digest are enough to load a plan by


def view(model: ExplorerModel) -> Json:
    """State of the `presets` trait."""
    model.saved.look(model)
    if not model.editor.schemes:
        return {"groups": [], "saved": []}
    uniform = [
        {"id": f"uniform {scheme}", "label": label, "note": note, "refused": ""}
        for (scheme, note), label in zip(uniform_sizes(model).items(), describe_all([*uniform_sizes(model)]), strict=True)
    ]
    refused = "" if model.problem is not None else "the layers are not priced yet"
    best = _best_measured(model)
    within = _within(model)
    budget = [
        {"id": "optimum", "label": "Predicted optimum at the budget", "note": within, "refused": refused},
        {
            "id": "best",
            "label": "Best measured plan at the budget",
            "note": within if best is None else numbers.size(model.record.measurements[best].bytes),
            "refused": "" if best else "no plan within the budget was measured yet",
        },
        {"id": "kept", "label": "As shipped", "note": describe(KEEP), "refused": ""},
    ]
    now = model.editor.schemes
    saved = [
        {"name": name, "note": _size(model, schemes), "now": {layer: schemes.get(layer, KEEP) for layer in now} == now}
        for name, schemes in model.saved.plans(model).items()
    ]
    return {"groups": [{"label": "At the budget", "items": budget}, {"label": "Uniform", "items": uniform}], "saved": saved}


def uniform_sizes(model: ExplorerModel) -> dict[Scheme, str]:
    """Every scheme of the study to the size of its uniform plan; worked out once for a problem."""
    schemes = model.choices.schemes

    def make() -> dict[Scheme, str]:
        return {scheme: _size(model, model.everywhere(scheme)) for scheme in schemes if scheme != KEEP}

    return model.kept("uniform sizes", (model.priced, schemes), make)


def load(model: ExplorerModel, name: str) -> None:
    """Load a plan by what it is called: `optimum`, `best`, `kept`, ``uniform int4g64``, the name of a saved one, or a digest's first digits.

    Raises:
        ParedownError: If there is no such plan, or several.
    """
    schemes, label, calls = _found(model, name)
    model.load(schemes, label, calls=calls)


def _found(model: ExplorerModel, name: str) -> tuple[Mapping[str, Scheme], str, tuple[Call, ...]]:
    kind, _, text = name.partition(" ")
    if name == "kept":
        return dict.fromkeys(model.editor.schemes, KEEP), "as shipped", (("load", name),)
    if name == "optimum":
        resource, most = limit(model)
        if model.problem is None or most is None:
            raise ParedownError("the optimum is known once every layer is priced; run the sensitivity stage first")
        found = allocate(model.problem, most * (1 + 1e-9) if resource == "seconds" else int(most), resource=resource)
        named = ("latency_budget", most) if resource == "seconds" else ("budget", int(most))
        return found, "predicted optimum at the budget", (named, ("load", name))
    if name == "best":
        best = _best_measured(model)
        if best is None:
            raise ParedownError("no plan within the budget was measured yet; raise the budget, or run the study")
        return model.record.plans[best].schemes, "best measured plan at the budget", (("load", best),)
    if kind == "uniform" and text:
        scheme = Scheme.parse(text)
        if scheme not in model.choices.schemes:
            raise ParedownError(f"this study has no scheme {scheme}; expected one of {', '.join(map(str, model.choices.schemes))}")
        return model.everywhere(scheme), f"uniform {describe(scheme)}", (("load", name),)
    saved = model.saved.plans(model)
    if name in saved:
        return saved[name], f"load {name}", ()
    return _by_digest(model, name)


def _by_digest(model: ExplorerModel, digits: str) -> tuple[Mapping[str, Scheme], str, tuple[Call, ...]]:
    found = [digest for digest in model.record.plans if digits and digest.startswith(digits)]
    if len(found) != 1:
        names = ", ".join(["optimum", "best", "kept", "uniform SCHEME", *map(repr, model.saved.plans(model))])
        raise ParedownError(
            f"expected {names}, or the first digits of one plan's digest, got {digits!r}, which {len(found)} plans begin with"
        )
    bits = model.uniform_bits(found[0])
    return model.record.plans[found[0]].schemes, f"load W{bits}" if bits else f"load plan {found[0][:_MOST_DIGITS]}", (("load", found[0]),)


def _best_measured(model: ExplorerModel) -> str | None:
    """Digest of the measured plan of least KL (loss, where there is none) within the budget; of equal ones the smaller."""
    resource, most = limit(model)
    if most is None:
        return None
    return model.kept(f"best {resource}", (most, model.record.sequence), lambda: _best_within(model, resource, most))


def _best_within(model: ExplorerModel, resource: str, most: float) -> str | None:
    ranked = []
    for digest, measured in model.measured_plans().items():
        plan = model.record.plans[digest]
        taken = measured.bytes if resource == "bytes" else plan.seconds_per_token
        loss = measured.kl if measured.kl is not None else measured.loss
        if loss is not None and taken is not None and taken <= most * (1 + 1e-9):
            ranked.append((loss, measured.bytes, digest))
    return min(ranked)[2] if ranked else None


def _within(model: ExplorerModel) -> str:
    resource, most = limit(model)
    if most is None:
        return ""
    return f"within {numbers.latency(most) + ' a token' if resource == 'seconds' else numbers.size(most)}"


def _size(model: ExplorerModel, schemes: Mapping[str, Scheme]) -> str:
    prediction = model.predict(schemes)
    return numbers.size(prediction.bytes) if prediction else ""
